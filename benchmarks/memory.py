"""Async jobs in one process: from the first push to the last result, and whether memory stays flat."""

from __future__ import annotations

import asyncio
import gc
import itertools
import time
from typing import Any

from benchmarks import harness, project

WORKERS = 100
MAXSIZE = 1024
FLAT_MIB = 8.0


def measure(options: harness.Options) -> list[harness.Target]:
    """Compare 20,000 async jobs with jobify's and with a bare asyncio queue, and measure memory growth."""
    jobs = options.jobs(20_000)
    runs = harness.interleave(
        "memory", {name: {"jobs": jobs} for name in ("ours", "jobify", "bare")}, options.repeats
    )
    rates = {name: [run["jobs_per_s"] for run in results] for name, results in runs.items()}
    growth = harness.run("memory", "growth", first=jobs, last=10 * jobs)
    harness.say(f"  memory growth: {harness.describe(growth)}")
    return [
        harness.compare(
            "A1 memory store", rates["ours"], rates["jobify"], against="jobify", unit="jobs/s", at_least=3
        ),
        harness.compare(
            "A2 memory store",
            rates["ours"],
            rates["bare"],
            against="bare asyncio",
            unit="jobs/s",
            at_least=0.25,
        ),
        harness.limit(
            f"A3 growth, {jobs:,} to {10 * jobs:,} jobs", growth["growth_mib"], unit="MiB", below=FLAT_MIB
        ),
    ]


def ours(jobs: int) -> dict[str, Any]:
    """Push to our memory store with the pool on the same event loop, and wait for every result."""
    _set_up()
    from benchmarks.tasks.tasks import async_noop
    from jobify_django.pool import serving

    async def push_and_wait() -> float:
        async with serving():
            began = time.perf_counter()
            pushed = [await async_noop.push() for _ in range(jobs)]
            for job in pushed:
                await job.wait()
                job.result()
            return time.perf_counter() - began

    return _rate(jobs, asyncio.run(push_and_wait()))


def jobify(jobs: int) -> dict[str, Any]:
    """Push through jobify's QueueMiddleware, without its SQLite storage, and wait for every result."""
    _set_up()
    from jobify import Jobify
    from jobify.middleware import QueueMiddleware

    async def push_and_wait() -> float:
        queue = QueueMiddleware(queue=asyncio.PriorityQueue(maxsize=MAXSIZE), workers=WORKERS)
        app = Jobify(storage=False, middleware=[queue])

        @app.task
        async def noop() -> None:
            """Do nothing."""

        async with app:
            began = time.perf_counter()
            pushed = [await noop.push() for _ in range(jobs)]
            for job in pushed:
                await job.wait()
                job.result()
            return time.perf_counter() - began

    return _rate(jobs, asyncio.run(push_and_wait()))


def bare(jobs: int) -> dict[str, Any]:
    """Do the least that could pass for it: a priority queue, coroutines, a task and a future for each job."""
    _set_up()

    async def noop() -> None:
        """Do nothing."""

    async def work(queue: asyncio.PriorityQueue[Any]) -> None:
        while True:
            _, _, future = await queue.get()
            future.set_result(await asyncio.create_task(noop()))

    async def push_and_wait() -> float:
        queue: asyncio.PriorityQueue[Any] = asyncio.PriorityQueue(maxsize=MAXSIZE)
        workers = [asyncio.create_task(work(queue)) for _ in range(WORKERS)]
        loop, numbers = asyncio.get_running_loop(), itertools.count()
        began = time.perf_counter()
        pushed = []
        for _ in range(jobs):
            pushed.append(loop.create_future())
            await queue.put((0, next(numbers), pushed[-1]))
        for future in pushed:
            await future
        seconds = time.perf_counter() - began
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        return seconds

    return _rate(jobs, asyncio.run(push_and_wait()))


def growth(first: int, last: int) -> dict[str, Any]:
    """Push ``last`` jobs, drop every handle; return how much memory grew after the first ``first``."""
    _set_up()
    from benchmarks.tasks.tasks import async_noop
    from jobify_django.pool import serving

    async def push(number: int) -> int:
        for _ in range(number - 1):
            await async_noop.push()
        await (await async_noop.push()).wait()
        gc.collect()
        return project.resident_bytes()

    async def push_twice() -> tuple[int, int]:
        async with serving():
            return await push(first), await push(last - first)

    before, after = asyncio.run(push_twice())
    return {"growth_mib": (after - before) / 2**20, "resident_mib": after / 2**20}


def _set_up() -> None:
    """Load Django and the app, as every contestant's process does here.

    A rival's jobs would run in a Django site as well. Without this, only ours would pay for the garbage
    collector's looks at Django's 47,000 objects.
    """
    project.set_up(STORE="memory", WORKERS=WORKERS, MAXSIZE=MAXSIZE, PUSH_TIMEOUT=None, migrate=False)


def _rate(jobs: int, seconds: float) -> dict[str, Any]:
    return {"jobs_per_s": jobs / seconds, "us_per_job": seconds / jobs * 1e6}


CONTESTANTS = {"ours": ours, "jobify": jobify, "bare": bare, "growth": growth}
