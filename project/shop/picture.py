"""What the page shows, as one value. It is read through the store's contract, so any store will do."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from jobify_django import JobStatus, QueueStats, queue
from jobify_django.conf import QueueSettings
from jobify_django.job import JobRecord
from jobify_django.stores.value import JobQuery
from project.shop.till import till

STRIP = 30
"""Started jobs that are shown one by one."""

RECENT = 30.0
"""Seconds that waiting times are taken from."""

LOOKED_AT = 800
"""Newest jobs among which the recently started ones are looked for."""

MOST_WAITING = 2_000


def picture() -> dict[str, Any]:
    """Return the default queue, its jobs and its producers at this moment."""
    line = queue("default")
    stats, now = line.stats(), line.store.clock()
    waiting, running = (
        line.store.query(JobQuery(queue=line.name, status=status, limit=MOST_WAITING, payload=False))
        for status in (JobStatus.WAITING, JobStatus.RUNNING)
    )
    newest = line.store.query(JobQuery(queue=line.name, limit=LOOKED_AT, payload=False))
    started = sorted((job for job in newest if job.started_at), key=_start, reverse=True)
    recent = [job for job in started if _start(job) > now - RECENT]
    name = _BandNames(line.settings)
    return {
        "queue": _queue(stats, line.settings),
        "bands": _bands(line.settings, waiting, recent, now),
        "running": [_brief(job, name) for job in sorted(running, key=_start)],
        "started": [_brief(job, name) for job in started[:STRIP]],
        "per_second": sum(_start(job) > now - 5 for job in recent) / 5,
        "producers": _producers(),
    }


def percentile(values: Sequence[float], share: float) -> float | None:
    """Return the smallest of ``values`` that ``share`` of them do not exceed, or ``None`` without values."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)] if values else None


def waited(job: JobRecord) -> float:
    """Return the seconds from when a job could start to when it did."""
    return max(0.0, _start(job) - job.eligible_at)


def _start(job: JobRecord) -> float:
    return job.started_at or 0.0


def _queue(stats: QueueStats, settings: QueueSettings) -> dict[str, Any]:
    return {
        "waiting": stats.waiting,
        "maxsize": stats.maxsize,
        "running": stats.running,
        "workers": stats.workers,
        "processes": len(stats.pools),
        "order": stats.order,
        "paused": stats.paused,
        "oldest_wait": stats.oldest_wait,
        "tuned": stats.state.applied_to(settings) != settings,
        "settings": {"workers": settings.workers, "maxsize": settings.maxsize, "order": settings.order},
    }


def _bands(
    settings: QueueSettings, waiting: Sequence[JobRecord], recent: Sequence[JobRecord], now: float
) -> list[dict[str, Any]]:
    depth = Counter(job.priority for job in waiting)
    oldest: dict[int, float] = {}
    for job in waiting:
        oldest[job.priority] = max(oldest.get(job.priority, 0.0), now - job.eligible_at)
    waits: dict[int, list[float]] = {}
    for job in recent:
        waits.setdefault(job.priority, []).append(waited(job))
    return [
        {
            "name": band,
            "waiting": depth[priority],
            "oldest": oldest.get(priority),
            "started": len(waits.get(priority, ())),
            "p50": percentile(waits.get(priority, ()), 0.50),
            "p95": percentile(waits.get(priority, ()), 0.95),
        }
        for band, priority in sorted(settings.priorities.items(), key=lambda band: -band[1])
    ]


def _brief(job: JobRecord, name: dict[int, str]) -> dict[str, Any]:
    task = job.task.rpartition(".")[2]
    return {"id": job.id, "task": task, "band": name[job.priority], "waited": waited(job)}


def _producers() -> dict[str, Any]:
    latest = list(till.latest)
    seconds = [checkout.seconds for checkout in latest]
    return {
        "waiting": till.waiting,
        "longest": till.longest,
        "accepted": till.accepted,
        "refused": till.refused,
        "skipped_visits": till.skipped_visits,
        "p50": percentile(seconds, 0.50),
        "p95": percentile(seconds, 0.95),
        "latest": [[one.number, one.seconds, one.refused] for one in latest],
    }


class _BandNames(dict[int, str]):
    def __init__(self, settings: QueueSettings) -> None:
        super().__init__({priority: band for band, priority in settings.priorities.items()})

    def __missing__(self, priority: int) -> str:
        return str(priority)
