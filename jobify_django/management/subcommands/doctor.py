"""``jobs doctor``: what is wrong here, and how to mend it."""

from __future__ import annotations

import contextlib
from argparse import ArgumentParser
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

from django.conf import settings as django_settings
from django.core import checks
from django.core.management.base import CommandError, OutputWrapper
from django.db import connections
from django.db.migrations.executor import MigrationExecutor
from django.utils.module_loading import import_string

from jobify_django.asgi import Lifespan
from jobify_django.conf import get_settings
from jobify_django.exceptions import StoreError
from jobify_django.job import JobStatus
from jobify_django.management.subcommands.output import elsewhere
from jobify_django.queue import queue
from jobify_django.stores import every_store, queues_by_store
from jobify_django.strays import strays_in
from jobify_django.task import tasks

SAMPLE = 1_000
"""Waiting jobs looked through for unknown tasks."""


class Finding(NamedTuple):
    """One line of the report."""

    level: Literal["PASS", "WARN", "FAIL"]
    text: str
    fix: str = ""


def add_doctor(parser: ArgumentParser) -> None:
    """It takes no arguments."""


def doctor(out: OutputWrapper, *, owns_process: bool = False, **options: Any) -> None:
    """Examine settings, tables, database, workers and tasks; exit 1 if anything is broken."""
    findings = list(_findings(owns_process))
    for finding in findings:
        out.write(f"{finding.level}  {finding.text}{' -> ' + finding.fix if finding.fix else ''}")
    broken = sum(finding.level == "FAIL" for finding in findings)
    if broken:
        raise CommandError(f"{broken} of {len(findings)} looks found something broken.")


def _findings(owns_process: bool) -> Iterator[Finding]:
    messages = checks.run_checks(tags=["jobify"], include_deployment_checks=False)
    for message in messages:
        level: Any = "FAIL" if message.level >= checks.ERROR else "WARN"
        yield Finding(level, f"{message.id}: {message.msg}", message.hint or "")
    if any(message.level >= checks.ERROR for message in messages):
        return
    yield Finding("PASS", "settings.JOBIFY is right")
    yield from _tables()
    yield from _workers(owns_process)
    yield from _strays()
    yield from _stores()
    yield from _tasks()
    yield _asgi()


def _tables() -> Iterator[Finding]:
    settings = get_settings()
    if not any(one.store == "database" for one in settings.queues.values()):
        return
    executor = MigrationExecutor(connections[settings.database])
    targets = [key for key in executor.loader.graph.leaf_nodes() if key[0] == "jobify_django"]
    if executor.migration_plan(targets):
        yield Finding("FAIL", "the app's tables are not up to date", "manage.py migrate")
        return
    yield Finding("PASS", f"tables on database {settings.database!r} are up to date")
    for message in checks.run_checks(tags=[checks.Tags.database], databases=[settings.database]):
        if (message.id or "").startswith("jobify."):
            yield Finding("WARN", f"{message.id}: {message.msg}", message.hint or "")


def _workers(owns_process: bool) -> Iterator[Finding]:
    for name, settings in get_settings().queues.items():
        if elsewhere(settings, owns_process=owns_process):
            yield Finding("PASS", f"queue {name}: in memory, known only to the process that serves it")
            continue
        try:
            stats = queue(name).stats()
        except StoreError as error:
            yield Finding("FAIL", f"queue {name}: {error}")
            continue
        if not stats.pools:
            yield Finding(
                "WARN",
                f"queue {name}: no worker is alive, {stats.waiting} jobs wait",
                "manage.py runjobs, or serve the site through jobify_django.asgi.lifespan",
            )
        else:
            yield Finding("PASS", f"queue {name}: {len(stats.pools)} pools alive, {stats.waiting} jobs wait")
        if stats.paused:
            yield Finding("WARN", f"queue {name} is paused", f"manage.py jobs resume {name}")


def _strays() -> Iterator[Finding]:
    for store in every_store():
        with contextlib.suppress(StoreError):  # said above, of its queues
            for stray in strays_in(store):
                stats = stray.stats
                text = (
                    f"queue {stray.name} ({stray.note}): {len(stats.pools)} pools alive, {stats.waiting} "
                    f"jobs wait, {stats.delayed} are delayed and {stats.running} run in store {store.alias}"
                )
                yield Finding("PASS", text) if stats.pools else Finding("WARN", text, stray.remedy)


def _stores() -> Iterator[Finding]:
    for store in queues_by_store():
        with contextlib.suppress(StoreError):  # said above, of its queues
            for trouble in store.troubles():
                yield Finding("WARN", f"store {store.alias}: {trouble.text}", trouble.fix)


def _tasks() -> Iterator[Finding]:
    known = {task.name for task in tasks}
    yield Finding("PASS" if known else "WARN", f"{len(known)} tasks are registered")
    for store in queues_by_store():
        try:
            waiting = store.find(status=JobStatus.WAITING, limit=SAMPLE)
        except StoreError:
            continue  # said above, of its queues
        for name in sorted({record.task for record in waiting} - known):
            yield Finding(
                "WARN", f"jobs of an unknown task wait: {name!r}", "deploy the code that declares it"
            )


def _asgi() -> Finding:
    path = getattr(django_settings, "ASGI_APPLICATION", None)
    if not path:
        return Finding("PASS", "ASGI_APPLICATION is not set: whether lifespan() wraps asgi.py is not known")
    try:
        wrapped = isinstance(import_string(path), Lifespan)
    except ImportError as error:
        return Finding("WARN", f"ASGI_APPLICATION {path!r} cannot be imported: {error}")
    if wrapped:
        return Finding("PASS", f"ASGI_APPLICATION {path!r} runs workers where the server supports lifespan")
    return Finding("PASS", f"ASGI_APPLICATION {path!r} is not wrapped by lifespan(): workers run in runjobs")
