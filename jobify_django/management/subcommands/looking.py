"""``jobs status``, ``list`` and ``show``."""

from __future__ import annotations

import contextlib
import time
from argparse import ArgumentParser
from collections.abc import Iterator
from typing import Any

from django.core.management.base import CommandError, OutputWrapper

from jobify_django.conf import get_settings
from jobify_django.exceptions import JobNotFound, StoreError
from jobify_django.handle import get_job
from jobify_django.job import JobStatus
from jobify_django.management.subcommands.choosing import found
from jobify_django.management.subcommands.output import document, job_values, plain, seconds, table
from jobify_django.queue import queue
from jobify_django.stores import every_store
from jobify_django.strays import strays_in

STATUS = (
    "queue",
    "waiting",
    "maxsize",
    "delayed",
    "running",
    "workers",
    "pools",
    "order",
    "paused",
    "oldest",
)
LIST = ("id", "task", "queue", "status", "priority", "attempts", "pushed_at")
WATCH_EVERY = 2.0
SINCE = 10_000
"""Jobs that ``--since`` looks through."""


def add_status(parser: ArgumentParser) -> None:
    parser.add_argument("--format", choices=("table", "json"), default="table")
    parser.add_argument("--watch", action="store_true", help="show it again every two seconds until Ctrl+C")


def status(out: OutputWrapper, *, format: str, watch: bool, **options: Any) -> None:
    """Show every queue: depth against bound, running, workers of each process, pools alive."""
    while True:
        rows = [*(_row(name) for name in get_settings().queues), *_stray_rows()]
        columns = (*STATUS, "note") if any("note" in row for row in rows) else STATUS
        out.write(document(rows) if format == "json" else table(columns, rows))
        errors = " ".join(sorted({row["error"] for row in rows if "error" in row}))
        if not watch:
            break
        if errors and format == "table":
            out.write(errors)
        out.flush()
        time.sleep(WATCH_EVERY)
    if errors:
        raise CommandError(errors)


def _row(name: str) -> dict[str, Any]:
    try:
        stats = queue(name).stats()
    except StoreError as error:
        return {"queue": name, "error": str(error), "waiting": "?"}
    return {
        "queue": name,
        "waiting": stats.waiting,
        "maxsize": stats.maxsize,
        "delayed": stats.delayed,
        "running": stats.running,
        "workers": stats.workers,
        "pools": len(stats.pools),
        "order": stats.order,
        "paused": stats.paused,
        "oldest": round(stats.oldest_wait, 3),
    }


def _stray_rows() -> Iterator[dict[str, Any]]:
    """Return the queues with jobs that the settings do not look for where they are."""
    for store in every_store():
        with contextlib.suppress(StoreError):  # said by the rows of its queues
            for stray in strays_in(store):
                yield {
                    "queue": stray.name,
                    "store": store.alias,
                    "waiting": stray.stats.waiting,
                    "delayed": stray.stats.delayed,
                    "running": stray.stats.running,
                    "pools": len(stray.stats.pools),
                    "oldest": round(stray.stats.oldest_wait, 3),
                    "note": stray.note,
                }


def add_filters(parser: ArgumentParser) -> None:
    parser.add_argument("--status", choices=[str(one) for one in JobStatus])
    parser.add_argument("--queue", help="only jobs of this queue")
    parser.add_argument("--task", help="only jobs of this task, by its name")
    parser.add_argument("--store", help="only jobs in this store: database, memory, a dotted path")


def add_list(parser: ArgumentParser) -> None:
    add_filters(parser)
    parser.add_argument("--since", help="only jobs pushed in the last 90s, 15m, 5h, 7d")
    parser.add_argument("--limit", type=int, default=50, help="how many at most (default 50)")
    parser.add_argument("--format", choices=("table", "json"), default="table")


def list_jobs(out: OutputWrapper, *, format: str, since: str | None, limit: int, **options: Any) -> None:
    """List jobs: waiting ones in the order they will start, others newest first."""
    if limit < 1:
        raise CommandError(f"--limit is {limit}; give 1 or more.")
    if since is None:
        records = found(limit=limit, **options)
    else:
        earliest = time.time() - seconds(since)
        young = [record for record in found(limit=SINCE, **options) if record.pushed_at >= earliest]
        records = young[:limit]
    rows = [job_values(record) for record in records]
    out.write(document(rows) if format == "json" else table(LIST, rows))


def add_show(parser: ArgumentParser) -> None:
    parser.add_argument("id", help="the job's id")


def show(out: OutputWrapper, *, id: str, **options: Any) -> None:
    """Show all of one job, as JSON, and its traceback."""
    try:
        job = get_job(id)
    except JobNotFound as error:
        raise CommandError(str(error)) from error
    record = job.record()
    out.write(document(job_values(record)))
    if record.error is not None and record.error.traceback:
        out.write("\n".join(plain(line) for line in record.error.traceback.splitlines()))
