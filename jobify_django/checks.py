"""System checks: settings and tasks always, and with ``check --database`` the SQLite file as well."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from django.apps.config import AppConfig
from django.conf import settings as django_settings
from django.core.checks import CheckMessage, Error, Info, Tags, Warning, register
from django.core.exceptions import ImproperlyConfigured
from django.db import connections, router

from jobify_django.conf import Settings, get_settings, problems
from jobify_django.exceptions import UnknownBand, UnknownQueue
from jobify_django.models import Job
from jobify_django.registry import tasks
from jobify_django.stores import stores
from jobify_django.stores.database.store import what_is_wrong_with

ROUTER = "jobify_django.router.JobifyRouter"

WAL_RECIPE = (
    'Add OPTIONS = {"init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;", '
    '"transaction_mode": "IMMEDIATE", "timeout": 20} to the database.'
)


@register("jobify")
def check_settings(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Report what is wrong in ``settings.JOBIFY``, and tasks that name what is not in it."""
    found = problems(getattr(django_settings, "JOBIFY", {}))
    if found:
        return [Error(p.message, hint=p.hint or None, id=f"jobify.{p.id}") for p in found]
    settings = get_settings()
    return [*_database(settings), *_stores(settings), *_tasks(settings)]


@register("jobify", Tags.database)
def check_database(
    app_configs: Sequence[AppConfig] | None, databases: Sequence[str] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """Report what is unsafe or slow about the SQLite database that jobs wait in."""
    if problems(getattr(django_settings, "JOBIFY", {})):
        return []
    settings = get_settings()
    if settings.database not in (databases or ()) or not _in_database(settings):
        return []
    connection = connections[settings.database]
    return list(_sqlite(settings.database, connection)) if connection.vendor == "sqlite" else []


def _in_database(settings: Settings) -> bool:
    return any(queue.store == "database" for queue in settings.queues.values())


def _database(settings: Settings) -> Iterator[CheckMessage]:
    alias = settings.database
    if not _in_database(settings):
        return
    if alias not in connections.settings:
        yield Error(
            f"JOBIFY['DATABASE'] is {alias!r}, and DATABASES has no such key.",
            hint=f"Known keys: {', '.join(connections.settings)}.",
            id="jobify.E006",
        )
        return
    if wrong := what_is_wrong_with(alias):
        message, hint = wrong
        yield Error(message, hint=hint, id="jobify.E007")
    if router.db_for_write(Job) != alias or not router.allow_migrate_model(alias, Job):
        yield Warning(
            f"JOBIFY['DATABASE'] is {alias!r}, and DATABASE_ROUTERS does not send the app's tables there.",
            hint=f"Add {ROUTER!r} to DATABASE_ROUTERS.",
            id="jobify.W001",
        )


def _stores(settings: Settings) -> Iterator[CheckMessage]:
    for queue in settings.queues.values():
        if queue.store == "memory":
            yield Info(
                f"Jobs of queue {queue.name!r} wait in the memory of the process that pushed them, end with "
                "it; 'runjobs' cannot see them.",
                hint="Serve them with jobify_django.asgi.lifespan, or use STORE 'database'.",
                id="jobify.I001",
            )
        elif queue.store != "database":
            try:
                stores.of(queue)
            except ImproperlyConfigured as error:
                yield Error(str(error), id="jobify.E008")


def _tasks(settings: Settings) -> Iterator[CheckMessage]:
    for task in tasks:
        try:
            queue = settings.queue(task.queue)
            queue.priority(task.priority)
        except (UnknownQueue, UnknownBand) as error:
            id = "jobify.E009" if isinstance(error, UnknownQueue) else "jobify.E010"
            yield Error(f"Task {task.name} ({task.declaration}): {error}.", id=id)


def _sqlite(alias: str, connection: Any) -> Iterator[CheckMessage]:
    if connection.is_in_memory_db():
        yield Warning(
            f"Database {alias!r} is in memory: no other process sees its jobs, and its threads collide.",
            hint="Use a file.",
            id="jobify.W002",
        )
        return
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA journal_mode")
        (mode,) = cursor.fetchone()
    if mode != "wal":
        yield Warning(
            f"Database {alias!r} uses journal_mode={mode}: readers and writers block one another.",
            hint=WAL_RECIPE,
            id="jobify.W003",
        )
    elif not wal_is_safe((driver := connection.Database).sqlite_version_info):
        # Information: there is no better mode to advise, for the rollback journal makes everybody wait, and
        # few can choose their SQLite.
        yield Info(
            f"Database {alias!r} is right to use WAL, and SQLite {driver.sqlite_version} has a bug in it "
            "that may damage a file when two connections checkpoint and a third writes in one moment. It is "
            "as rare as a failing disk.",
            hint="Keep WAL, and back the file up as against a failing disk. SQLite 3.51.3, 3.50.7 and 3.44.6 "
            "have mended it.",
            id="jobify.I002",
        )


def wal_is_safe(version: tuple[int, ...]) -> bool:
    """Whether this SQLite has the fix of the WAL-reset bug (https://sqlite.org/wal.html#walresetbug)."""
    fixed = {50: 7, 44: 6}
    return version >= (3, 51, 3) or version[2] >= fixed.get(version[1], 1_000)
