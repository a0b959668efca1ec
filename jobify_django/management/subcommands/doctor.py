"""``jobs doctor``: what is wrong here, and how to mend it."""

from __future__ import annotations

import contextlib
import sys
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import Any

from django.conf import settings as django_settings
from django.core import checks
from django.core.management.base import CommandError, OutputWrapper
from django.db import connections
from django.db.migrations.executor import MigrationExecutor
from django.utils.module_loading import import_string

from jobify_django.asgi import Lifespan
from jobify_django.conf import QueueSettings, get_settings
from jobify_django.exceptions import StoreError
from jobify_django.job import JobStatus
from jobify_django.management.subcommands.finding import Finding, Level, findings_of, from_message
from jobify_django.management.subcommands.output import document, elsewhere, seconds
from jobify_django.management.subcommands.running import running
from jobify_django.management.subcommands.table import plain, words
from jobify_django.queue import queue
from jobify_django.registry import tasks
from jobify_django.stores import reachable, unconfigured_stores
from jobify_django.stores.base import Store
from jobify_django.stores.value import JobQuery, QueueStats
from jobify_django.unconfigured import unconfigured_in

SAMPLE = 1_000
"""Waiting jobs looked through for unknown tasks."""

LONG = 3600.0
"""Seconds after which a job that runs is named, unless ``--long`` says otherwise."""

LONG_WAIT = 60.0
"""Seconds after which a job that waits beside idle workers is worth a warning."""

BAD: dict[str, tuple[Level, ...]] = {"fail": ("FAIL",), "warn": ("FAIL", "WARN")}


def add_doctor(parser: ArgumentParser) -> None:
    parser.add_argument("--format", choices=("text", "json"), default="text")
    parser.add_argument(
        "--fail-on",
        choices=tuple(BAD),
        default="fail",
        help="exit with 1 for a warning too, or for a FAIL only",
    )
    parser.add_argument("--long", help="name jobs that run for longer than 90s, 15m, 5h, 7d (default 1h)")


def doctor(
    out: OutputWrapper,
    *,
    format: str = "text",
    fail_on: str = "fail",
    long: str | None = None,
    owns_process: bool = False,
    **options: Any,
) -> None:
    """Examine settings, tables, database, workers, jobs and tasks; exit 1 if anything is broken."""
    limit = LONG if long is None else seconds(long)
    # What is imported to be looked at may print: stdout is the report's.
    with contextlib.redirect_stdout(sys.stderr):
        findings = list(_findings(owns_process, limit))
    if format == "json":
        out.write(document([_values(finding) for finding in findings]))
    else:
        for finding in findings:
            fix = f" -> {finding.fix}" if finding.fix else ""
            out.write(f"{finding.level}  {_line(finding.text + fix)}")
    _judge(findings, fail_on)


def _judge(findings: list[Finding], fail_on: str) -> None:
    levels = Counter[str](finding.level for finding in findings)
    if not any(levels[level] for level in BAD[fail_on]):
        return
    broken = f"{levels['FAIL']} of {len(findings)} looks found something broken."
    warned = f" {levels['WARN']} found something to mend." if fail_on == "warn" else ""
    raise CommandError(f"{broken}{warned}")


def _values(finding: Finding) -> dict[str, str]:
    text, fix = map(_line, (finding.text, finding.fix))
    return {"level": finding.level, "id": finding.id, "text": text, "fix": fix}


def _line(text: str) -> str:
    return plain(" ".join(text.split()))


def _findings(owns_process: bool, long: float) -> Iterator[Finding]:
    yield from findings_of("settings", "settings.JOBIFY", _settings)
    try:
        queues = get_settings().queues
    except Exception:  # said above
        queues = {}
    if queues:
        yield from findings_of("tables", "the app's tables", _tables)
        for settings in queues.values():
            yield from findings_of("queue", f"queue {settings.name}", partial(_queue, settings, owns_process))
        by_store, _failed = reachable()  # said of the queues themselves
        for store in (*by_store, *unconfigured_stores(list(by_store))):
            yield from findings_of(
                "leftovers", f"store {store.alias}", partial(_unconfigured, store), reported_elsewhere=True
            )
        for store, served in by_store.items():
            subject = f"store {store.alias}"
            yield from findings_of("store", subject, partial(_store, store), reported_elsewhere=True)
            if store.shared or not owns_process:
                yield from findings_of(
                    "running", subject, partial(running, store, served, long), reported_elsewhere=True
                )
        yield from findings_of("tasks", "the tasks", _tasks)
    path = getattr(django_settings, "ASGI_APPLICATION", None)
    yield from findings_of("asgi", f"ASGI_APPLICATION {path!r} cannot be imported", partial(_asgi, path))


def _settings() -> Iterator[Finding]:
    messages = checks.run_checks(tags=["jobify"], databases=[])  # those come with the tables
    yield from map(from_message, messages)
    if not any(message.level >= checks.ERROR for message in messages):
        yield Finding("PASS", "settings.JOBIFY is right")


def _tables() -> Iterator[Finding]:
    settings = get_settings()
    if not any(one.store == "database" for one in settings.queues.values()):
        return
    executor = MigrationExecutor(connections[settings.database])
    targets = [key for key in executor.loader.graph.leaf_nodes() if key[0] == "jobify_django"]
    if executor.migration_plan(targets):
        where = "" if settings.database == "default" else f" --database {settings.database}"
        yield Finding("FAIL", "the app's tables are not up to date", f"manage.py migrate{where}")
        return
    yield Finding("PASS", f"tables on database {settings.database!r} are up to date")
    for message in checks.run_checks(tags=[checks.Tags.database], databases=[settings.database]):
        if (message.id or "").startswith("jobify."):
            yield from_message(message)


def _queue(settings: QueueSettings, owns_process: bool) -> Iterator[Finding]:
    name = settings.name
    if elsewhere(settings, owns_process=owns_process):
        yield Finding("NOTE", f"queue {name}: in memory, known only to the process that serves it")
        return
    stats = queue(name).stats()
    if stats.pools:
        yield Finding("PASS", f"queue {name}: {len(stats.pools)} pools alive, {stats.waiting} jobs wait")
    else:
        yield Finding(
            "WARN",
            f"queue {name}: no worker is alive, {stats.waiting} jobs wait",
            "manage.py runjobs, or serve the site through jobify_django.asgi.lifespan",
            "queue-unserved",
        )
    if stats.paused:
        since = f", the first of them since {words(stats.oldest_wait)}" if stats.waiting else ""
        text = f"queue {name} is paused, {stats.waiting} jobs wait{since}"
        yield Finding("WARN", text, f"manage.py jobs resume {name}", "queue-paused")
    if stats.waiting >= stats.maxsize:
        yield Finding(
            "WARN",
            f"queue {name} is full: {stats.waiting} jobs wait and maxsize is {stats.maxsize}, so pushes wait "
            "or are refused",
            f"more workers, or a larger maxsize: manage.py jobs tune {name}",
            "queue-full",
        )
    if not stats.paused and stats.waiting and stats.oldest_wait > LONG_WAIT:
        yield from _beside_idle_workers(settings, stats)


def _beside_idle_workers(settings: QueueSettings, stats: QueueStats) -> Iterator[Finding]:
    """Find out why jobs wait long although workers are idle, as far as that can be seen from here."""
    mine = [pool.queues[stats.queue] for pool in stats.pools]
    # Half of them: one that is between two jobs looks idle.
    if 2 * sum(one.busy for one in mine) >= sum(one.workers for one in mine):
        return
    since = words(stats.oldest_wait)
    text = (
        f"queue {stats.queue}: {stats.waiting} jobs wait, the first of them since {since}, although workers "
        "are idle"
    )
    if settings.max_running is not None and stats.running >= settings.max_running:
        yield Finding(
            "NOTE", f"{text}: MAX_RUNNING is {settings.max_running}, and so many run", id="queue-capped"
        )
        return
    fix = "look for event=held in the logs of the workers: they may not know the tasks of these jobs"
    yield Finding("WARN", text, fix, "queue-held")


def _unconfigured(store: Store) -> Iterator[Finding]:
    for found in unconfigured_in(store):
        stats = found.stats
        text = (
            f"queue {found.name} ({found.note}): {len(stats.pools)} pools alive, {stats.waiting} "
            f"jobs wait, {stats.delayed} are delayed and {stats.running} run in store {store.alias}"
        )
        if stats.pools:
            yield Finding("PASS", text)
        else:
            yield Finding("WARN", text, found.remedy, "queue-not-in-settings")


def _store(store: Store) -> Iterator[Finding]:
    for diagnosis in store.diagnose():
        yield Finding("WARN", f"store {store.alias}: {diagnosis.text}", diagnosis.fix)


def _tasks() -> Iterator[Finding]:
    known = {task.name for task in tasks}
    yield Finding("PASS" if known else "WARN", f"{len(known)} tasks are registered")
    for store in reachable()[0]:
        try:
            waiting = store.query(JobQuery(status=JobStatus.WAITING, limit=SAMPLE, payload=False))
        except StoreError:
            continue  # said of its queues
        unknown = Counter(record.task for record in waiting if record.task not in known)
        for name, number in sorted(unknown.items()):
            yield Finding(
                "WARN",
                f"{number} jobs of a task that is not known here wait: {name!r}",
                "deploy the code that declares it",
                "tasks-unknown",
            )


def _asgi(path: str | None) -> Iterator[Finding]:
    if not path:
        yield Finding("NOTE", "ASGI_APPLICATION is not set: whether lifespan() wraps asgi.py is not known")
    elif isinstance(import_string(path), Lifespan):
        yield Finding("PASS", f"ASGI_APPLICATION {path!r} runs workers where the server supports lifespan")
    else:
        yield Finding(
            "NOTE", f"ASGI_APPLICATION {path!r} is not wrapped by lifespan(): workers run in runjobs"
        )
