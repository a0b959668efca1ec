"""How busy workers are kept: ``python -m benchmarks.busy [ROW ...] [--server postgresql://...]``.

Each figure is a rate as a part of the ideal one, at which no worker ever waits for a job. It judges nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import threading
import time
from collections.abc import Callable
from statistics import median
from typing import Any

from benchmarks import harness, project
from benchmarks.growth.site import pools, site

PRODUCERS = 4
"""Threads of one process, beside that of the pool, that push into the full queue."""
WARM_UP = 1.0
"""Seconds before the full queue is measured."""
DATABASE = "jobify_busy"

ENDED = "SELECT count(*) FROM jobify_job WHERE status = 'successful' AND ended_at > %s AND ended_at <= %s"
DRAINED = "SELECT count(*), min(started_at), max(ended_at) FROM jobify_job WHERE status = 'successful'"


def full(server: str, seconds: float) -> dict[str, Any]:
    """Run ``def`` jobs of 20 ms on 10 workers, while producers wait for room in a queue of 20."""
    with site(server, DATABASE, WORKERS=10, MAXSIZE=20, PUSH_TIMEOUT=60), pools(1):
        from benchmarks.growth.app.tasks import sleep

        stop = threading.Event()

        def produce() -> None:
            while not stop.is_set():
                sleep.push(0.02)

        producers = [threading.Thread(target=produce) for _ in range(PRODUCERS)]
        for one in producers:
            one.start()
        time.sleep(WARM_UP)
        began = time.time()
        time.sleep(seconds)
        ended = time.time()
        stop.set()
        for one in producers:
            one.join()
        time.sleep(0.2)  # until the last outcomes are stored
        (count,) = project.query(ENDED, began, ended)
    return _share(count / (ended - began), 10 / 0.02)


def threads(server: str, seconds: float) -> dict[str, Any]:
    """Drain ``def`` jobs of 20 ms with 50 workers."""
    return _drain(server, seconds, "sleep", 50, 0.02)


def tasks(server: str, seconds: float) -> dict[str, Any]:
    """Drain ``async def`` jobs of 50 ms with 500 workers."""
    return _drain(server, seconds, "async_sleep", 500, 0.05)


def _drain(server: str, seconds: float, name: str, workers: int, length: float) -> dict[str, Any]:
    jobs = round(seconds / length) * workers
    with site(server, DATABASE, WORKERS=workers, MAXSIZE=2 * jobs):
        from benchmarks.growth.app import tasks
        from jobify_django import queue

        queue("default").pause()
        getattr(tasks, name).push_many([(length,)] * jobs)
        with pools(1):
            queue("default").resume()
            deadline = time.monotonic() + 5 * seconds + 30
            while (found := project.query(DRAINED))[0] < jobs:
                if time.monotonic() > deadline:
                    raise harness.ContestantFailed(f"{found[0]} of {jobs} jobs were successful")
                time.sleep(0.2)
        count, first, last = found
    return _share(count / (last - first), workers / length)


def tasks_in_memory(server: str, seconds: float) -> dict[str, Any]:
    """Drain ``async def`` jobs of 50 ms with 500 workers, in this process."""
    workers, length = 500, 0.05
    jobs = round(seconds / length) * workers
    with site("", STORE="memory", WORKERS=workers, MAXSIZE=2 * jobs):
        from benchmarks.growth.app.tasks import async_sleep
        from jobify_django.pool import serving

        async def drain() -> float:
            pushed = await async_sleep.apush_many([(length,)] * jobs)
            began = time.perf_counter()
            async with serving():
                for job in pushed:
                    await job
                return time.perf_counter() - began

        return _share(jobs / asyncio.run(drain()), workers / length)


def _share(rate: float, ideal: float) -> dict[str, Any]:
    return {"jobs_per_s": rate, "ideal_percent": rate / ideal * 100}


CONTESTANTS: dict[str, Callable[[str, float], dict[str, Any]]] = {
    "full-sqlite": full,
    "full-postgresql": full,
    "threads-sqlite": threads,
    "tasks-memory": tasks_in_memory,
    "tasks-postgresql": tasks,
}


def main() -> None:
    """Measure the chosen rows in turn, and print them as a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.busy", description=__doc__)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of {', '.join(CONTESTANTS)}; all by default")
    parser.add_argument("--server", default="postgresql://postgres@127.0.0.1:5432/postgres")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="length of each run (default 3)")
    options = parser.parse_args()
    contestants = {
        row: {
            "server": options.server if row.endswith("postgresql") else "",
            "seconds": options.seconds,
        }
        for row in options.rows or CONTESTANTS
    }
    runs = harness.interleave("busy", contestants, options.rounds)
    print("| row | jobs/s | % of ideal, median (range) |\n|---|---|---|")
    for row, found in runs.items():
        rate = median(run["jobs_per_s"] for run in found)
        shares = [run["ideal_percent"] for run in found]
        print(f"| {row} | {rate:,.0f} | {median(shares):.1f} ({min(shares):.1f}-{max(shares):.1f}) |")


if __name__ == "__main__":
    main()
