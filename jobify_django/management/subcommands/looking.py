"""``jobs status``, ``list`` and ``show``."""

from __future__ import annotations

import time
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError, OutputWrapper

from jobify_django.conf import get_settings
from jobify_django.exceptions import JobNotFound, StoreError, UnknownQueue
from jobify_django.handle import get_job
from jobify_django.job import JobStatus
from jobify_django.management.subcommands.output import document, job_values, plain, seconds, table
from jobify_django.queue import survey
from jobify_django.stores import queues_by_store
from jobify_django.stores.base import QueueStats

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
        rows = [_row(name, stats) for name, stats in survey().items()]
        out.write(document(rows) if format == "json" else table(STATUS, rows))
        errors = " ".join(sorted({row["error"] for row in rows if "error" in row}))
        if not watch:
            break
        if errors and format == "table":
            out.write(errors)
        out.flush()
        time.sleep(WATCH_EVERY)
    if errors:
        raise CommandError(errors)


def _row(name: str, stats: QueueStats | Exception) -> dict[str, Any]:
    if isinstance(stats, StoreError):
        return {"queue": name, "error": str(stats), "waiting": "?"}
    if isinstance(stats, Exception):
        raise stats
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


def add_filters(parser: ArgumentParser) -> None:
    parser.add_argument("--status", choices=[str(one) for one in JobStatus])
    parser.add_argument("--queue", help="only jobs of this queue")
    parser.add_argument("--task", help="only jobs of this task, by its name")


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


def found(
    *, status: str | None = None, queue: str | None = None, task: str | None = None, limit: int, **rest: Any
) -> list[Any]:
    """Return the records that the filters name, over all stores."""
    try:
        if queue is not None:
            get_settings().queue(queue)
    except UnknownQueue as error:
        raise CommandError(str(error)) from error
    wanted = None if status is None else JobStatus(status)
    records: list[Any] = []
    for store in queues_by_store(None if queue is None else [queue]):
        records += store.find(queue=queue, status=wanted, task=task, limit=limit)
    return records[:limit]


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
