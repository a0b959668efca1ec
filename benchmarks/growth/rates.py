"""Rates beside more and more pools, queues, workers, and producers that wait for room."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from benchmarks import harness, project
from benchmarks.growth.curve import Chart, Curve
from benchmarks.growth.site import left, milliseconds, pools, site

CLAIMS = "SELECT min(started_at), max(ended_at), count(*) FROM jobify_job WHERE status = 'successful'"


def pool(x: int, server: str, scale: float) -> dict[str, Any]:
    """Drain jobs that wait with so many ``runjobs`` of 10 workers."""
    jobs = max(200, round(20_000 * scale))
    with site(server, WORKERS=10, MAXSIZE=10 * jobs):
        from benchmarks.growth.app.tasks import noop
        from jobify_django import queue

        queue("default").pause()
        noop.push_many([()] * jobs)
        with pools(x):
            queue("default").resume()
            return {"jobs_per_s": _drained(jobs)}


def queues(x: int, server: str, scale: float) -> dict[str, Any]:
    """Drain jobs that wait in so many queues, with one pool of 2 workers a queue."""
    jobs = max(200, round(10_000 * scale))
    names = [f"queue-{number}" for number in range(x)]
    with site(server, WORKERS=2, MAXSIZE=10 * jobs, QUEUES={name: {} for name in names}):
        from benchmarks.growth.app.tasks import noop
        from jobify_django.conf import get_settings
        from jobify_django.stores import stores

        for name in names:
            noop.using(queue=name).push_many([()] * (jobs // x))
        with pools(1):
            rate = _drained(jobs // x * x)
        settings = get_settings()
        asked = [settings.queue(name) for name in names]
        times = []
        for _ in range(5):
            began = time.perf_counter()
            stores.of(asked[0]).stats(asked)
            times.append(time.perf_counter() - began)
        return {"jobs_per_s": rate, "stats_ms": milliseconds(times)}


def async_workers(x: int, server: str, scale: float) -> dict[str, Any]:
    """Run ``async def`` jobs of 50 ms on so many workers; return the part of the ideal rate."""
    return _workers(x, server, scale, "async_sleep", 0.05)


def threads(x: int, server: str, scale: float) -> dict[str, Any]:
    """Run ``def`` jobs of 50 ms on so many workers, each on a thread."""
    return _workers(x, server, scale, "sleep", 0.05)


def _workers(x: int, server: str, scale: float, name: str, seconds: float) -> dict[str, Any]:
    each = max(10, round(100 * scale))
    jobs = min(x * each, 20_000)
    with site(server, WORKERS=x, MAXSIZE=10 * jobs):
        from benchmarks.growth.app import tasks
        from jobify_django import queue

        queue("default").pause()
        getattr(tasks, name).push_many([(seconds,)] * jobs)
        with pools(1):
            queue("default").resume()
            rate = _drained(jobs)
    return {"jobs_per_s": rate, "ideal_percent": rate / (x / seconds) * 100}


def producers(x: int, server: str, scale: float) -> dict[str, Any]:
    """Let so many coroutines push into a queue of 20 for a while, beside a pool of 10 jobs of 5 ms."""
    seconds = max(2.0, 10 * scale)
    with site(server, WORKERS=10, MAXSIZE=20, PUSH_TIMEOUT=120, MAX_WAITING_PUSHES=2_000), pools(1):
        waits, cpu = asyncio.run(_push(x, seconds))
    return {
        "pushes_per_s": len(waits) / seconds,
        "wait_p50_ms": harness.percentile(waits, 50) * 1000,
        "wait_p99_ms": harness.percentile(waits, 99) * 1000,
        "cpu_us_a_push": cpu / len(waits) * 1e6,
    }


async def _push(producers: int, seconds: float) -> tuple[list[float], float]:
    from benchmarks.growth.app.tasks import async_sleep

    waits: list[float] = []

    async def produce() -> None:
        while True:
            began = time.perf_counter()
            await async_sleep.apush(0.005)
            waits.append(time.perf_counter() - began)

    running = [asyncio.create_task(produce()) for _ in range(producers)]
    cpu = time.process_time()
    await asyncio.sleep(seconds)
    cpu = time.process_time() - cpu
    done = list(waits)
    for one in running:
        one.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    if not done:
        raise harness.ContestantFailed("nobody could push")
    return done, cpu


def _drained(jobs: int) -> float:
    """Wait until all have ended; return the rate from the first start to the last end."""
    deadline = time.monotonic() + 300
    while left():
        if time.monotonic() > deadline:
            raise harness.ContestantFailed(f"{left()} jobs were left")
        time.sleep(0.2)
    first, last, count = project.query(CLAIMS)
    if count != jobs:
        raise harness.ContestantFailed(f"{count} of {jobs} jobs were successful")
    return count / (last - first)


CONTESTANTS = {
    "pool": pool,
    "queues": queues,
    "async_workers": async_workers,
    "threads": threads,
    "producers": producers,
}
PART = "% of ideal"
CURVES = {
    "pools": Curve(
        pool,
        (1, 2, 4, 8, 16),
        [
            Chart(
                "pools", "Pools of 10 workers on one server", "pools", "jobs/s", {"jobs_per_s": "def no-ops"}
            )
        ],
    ),
    "queues": Curve(
        queues,
        (1, 10, 50, 200),
        [
            Chart(
                "queues", "Queues of one pool", "queues", "jobs/s", {"jobs_per_s": "def no-ops, all queues"}
            ),
            Chart("queues-stats", "Measuring queues", "queues", "milliseconds", {"stats_ms": "store.stats"}),
        ],
    ),
    "async-workers": Curve(
        async_workers,
        (1, 10, 50, 100, 500),
        [
            Chart(
                "async-workers",
                "Workers of async jobs of 50 ms",
                "workers",
                PART,
                {"ideal_percent": "async def, 50 ms"},
            )
        ],
    ),
    "threads": Curve(
        threads,
        (1, 10, 50, 100, 500),
        [Chart("threads", "Threads of jobs of 50 ms", "workers", PART, {"ideal_percent": "def, 50 ms"})],
    ),
    "producers": Curve(
        producers,
        (1, 10, 100, 1_000),
        [
            Chart(
                "producers",
                "Producers that wait for room in a queue of 20",
                "coroutines that push",
                "pushes/s",
                {"pushes_per_s": "pushes"},
            ),
            Chart(
                "producers-wait",
                "How long a push waits for room in a queue of 20",
                "coroutines that push",
                "milliseconds",
                {"wait_p50_ms": "p50", "wait_p99_ms": "p99"},
                log_y=True,
            ),
        ],
    ),
}
