"""``jobs status``, ``list`` and ``show``."""

from __future__ import annotations

import contextlib
import json
import time
from argparse import ArgumentParser
from collections.abc import Iterator
from typing import Any

from django.core.management.base import CommandError, OutputWrapper

from jobify_django.exceptions import JobNotFound, StoreError
from jobify_django.handle import get_job
from jobify_django.job import JobStatus
from jobify_django.management.subcommands.choosing import found, refuse_mistyped
from jobify_django.management.subcommands.output import clocks, document, job_values, seconds, usage
from jobify_django.management.subcommands.table import plain, plain_lines, table, width_of, words
from jobify_django.queue import stats_of_queues
from jobify_django.stores import every_store
from jobify_django.stores.value import QueueStats
from jobify_django.unconfigured import unconfigured_in

STATUS = (
    *("queue", "waiting", "maxsize", "delayed", "running"),
    *("workers", "pools", "order", "paused", "oldest"),
)
UNCONFIGURED_COLUMNS = ("waiting", "delayed", "running", "pools", "oldest")
"""What of it means something without settings."""
LIST = ("id", "task", "queue", "status", "priority", "attempts", "age", "run")
LONG_LIST = (*LIST, "pushed_at")
WATCH_EVERY = 2.0
SINCE = 10_000
"""Jobs that ``--since`` looks through."""


def add_status(parser: ArgumentParser) -> None:
    add_look(parser)
    parser.add_argument("--watch", action="store_true", help="show it again every two seconds until Ctrl+C")


def add_look(parser: ArgumentParser) -> None:
    parser.add_argument("--format", choices=("table", "json"), default="table")
    parser.add_argument("--wide", action="store_true", help="the whole table, wider than the terminal or not")


def status(out: OutputWrapper, *, err: OutputWrapper, watch: bool, **options: Any) -> None:
    """Show every queue: depth against bound, running, workers of each process, pools alive."""
    errors = _show_status(out, **options)
    if not watch and errors:
        raise CommandError(errors)
    with contextlib.suppress(KeyboardInterrupt):
        while watch:
            if errors:
                err.write(errors)
            out.flush()
            time.sleep(WATCH_EVERY)
            errors = _show_status(out, **options)


def _show_status(out: OutputWrapper, *, format: str, wide: bool, **options: Any) -> str:
    """Write how the queues stand, and return why some of them do not answer."""
    rows = [*(_row(name, stats) for name, stats in stats_of_queues().items()), *_unconfigured_rows()]
    if format == "json":
        out.write(document(rows))
    else:
        columns = (*STATUS, "note") if any("note" in row for row in rows) else STATUS
        width = None if wide else width_of(out)
        out.write(table(columns, map(_status_words, rows), width=width, spare=("order", "delayed", "pools")))
    return plain(" ".join(sorted({row["error"] for row in rows if "error" in row})))


def _status_words(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "waiting": "?"} if "error" in row else {**row, "oldest": words(row["oldest"])}


def _row(name: str, stats: QueueStats | Exception) -> dict[str, Any]:
    if isinstance(stats, StoreError):
        return {"queue": name, "error": str(stats)}
    if isinstance(stats, Exception):
        raise stats
    others = {"queue": name, "pools": len(stats.pools), "oldest": round(stats.oldest_wait, 3)}
    return {column: others[column] if column in others else getattr(stats, column) for column in STATUS}


def _unconfigured_rows() -> Iterator[dict[str, Any]]:
    """Return the queues with jobs that the settings do not look for where they are."""
    for store in every_store():
        with contextlib.suppress(StoreError):  # said by the rows of its queues
            for unconfigured in unconfigured_in(store):
                row = _row(unconfigured.name, unconfigured.stats)
                numbers = {column: row[column] for column in UNCONFIGURED_COLUMNS}
                yield {"queue": unconfigured.name, "store": store.alias, **numbers, "note": unconfigured.note}


def add_filters(parser: ArgumentParser) -> None:
    parser.add_argument("--status", choices=[str(one) for one in JobStatus])
    parser.add_argument("--queue", help="only jobs of this queue")
    parser.add_argument("--task", help="only jobs of this task, by its name")
    parser.add_argument("--store", help="only jobs in this store: database, memory, a dotted path")


def add_list(parser: ArgumentParser) -> None:
    add_filters(parser)
    parser.add_argument("--since", help="only jobs pushed in the last 90s, 15m, 5h, 7d")
    parser.add_argument("--limit", type=int, default=50, help="how many at most (default 50)")
    add_look(parser)


def list_jobs(
    out: OutputWrapper, *, format: str, wide: bool, since: str | None, limit: int, **options: Any
) -> None:
    """List jobs: waiting ones in the order they will start, others newest first."""
    if limit < 1:
        raise usage(f"--limit is {limit}; give 1 or more.")
    if since is None:
        records = found(limit=limit, **options)
    else:
        earliest = time.time() - seconds(since)
        young = [record for record in found(limit=SINCE, **options) if record.pushed_at >= earliest]
        records = young[:limit]
    if not records:
        refuse_mistyped(options["task"])
    now = clocks()
    rows = [job_values(record, now.get(record.queue, time.time())) for record in records]
    if format == "json":
        out.write(document(rows))
        return
    width = None if wide else width_of(out)
    columns = LONG_LIST if width is None else LIST
    spare = ("priority", "attempts", "queue")
    out.write(table(columns, map(_job_words, rows), width=width, spare=spare, dotted="task"))


def _job_words(row: dict[str, Any]) -> dict[str, Any]:
    run = None if row["run"] is None else words(row["run"])
    return {**row, "age": words(int(row["age"])), "run": run}


def add_show(parser: ArgumentParser) -> None:
    parser.add_argument("id", help="the job's id")
    parser.add_argument("--format", choices=("text", "json"), help="by default text on a terminal, or json")


def show(out: OutputWrapper, *, id: str, format: str | None, **options: Any) -> None:
    """Show all of one job, with its traceback: as text on a terminal, otherwise as JSON."""
    try:
        job = get_job(id)
    except JobNotFound as error:
        raise CommandError(str(error)) from error
    values = job_values(job.record(), clocks().get(job.queue, time.time()))
    as_text = out.isatty() if format is None else format == "text"
    out.write(_text(values) if as_text else document(values))


def _text(job: dict[str, Any]) -> str:
    """Return a job for people: a line for each value it has, and the traceback last."""
    error = job["error"] or {}
    values = {**_job_words(job), "error": f"{error['type']}: {error['message']}" if error else None}
    lines = []
    for name, value in values.items():
        several = value if name == "interruptions" else [value]
        for one in several:
            if one not in (None, ""):
                lines.append(f"{name:<13} {plain(one if isinstance(one, str) else json.dumps(one))}")
    return "\n".join([*lines, *([plain_lines(error["traceback"])] if error.get("traceback") else [])])
