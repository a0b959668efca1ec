"""``jobs bench``: how fast this machine pushes and runs, on a store that is thrown away."""

from __future__ import annotations

import asyncio
import time
from argparse import ArgumentParser
from dataclasses import replace
from typing import Any

from django.core.management.base import OutputWrapper

from jobify_django.conf import get_settings
from jobify_django.job import Ids, JobSpec
from jobify_django.management.subcommands.output import usage
from jobify_django.payload import NO_ARGUMENTS
from jobify_django.pool.pool import Pool
from jobify_django.registry import tasks
from jobify_django.stores.memory import MemoryStore
from jobify_django.task import Task


def noop() -> None:
    """Do nothing."""


async def anoop() -> None:
    """Do nothing, on the event loop."""


def add_bench(parser: ArgumentParser) -> None:
    parser.add_argument("--jobs", type=int, default=10_000, help="how many (default 10000)")
    parser.add_argument("--workers", type=int, default=10, help="how many run at once (default 10)")


def bench(out: OutputWrapper, *, jobs: int, workers: int, **options: Any) -> None:
    """Add and run jobs that do nothing in a memory store of its own; no queue of yours is touched."""
    if not (1 <= jobs <= 1_000_000 and 1 <= workers <= 1_000):
        raise usage("give --jobs from 1 to 1000000 and --workers from 1 to 1000.")
    for function in (anoop, noop):
        name = f"{__name__}.{function.__name__}"
        tasks.register(Task(function, name))
        try:
            added, ran = asyncio.run(_measure(name, jobs, workers))
        finally:
            tasks.forget(name)
        kind = "async def" if function is anoop else "def"
        out.write(f"{kind}: {jobs / added:,.0f} adds/s, {jobs / ran:,.0f} runs/s (memory, {workers} workers)")


async def _measure(task: str, jobs: int, workers: int) -> tuple[float, float]:
    settings = replace(
        next(iter(get_settings().queues.values())),
        name="bench",
        maxsize=jobs,
        workers=workers,
        max_running=None,
    )
    store = MemoryStore("bench")
    new_id = Ids(store.runtime).new
    began = time.perf_counter()
    for _ in range(jobs):
        store.add(settings, [JobSpec(new_id(), task, NO_ARGUMENTS)])
    added = time.perf_counter() - began
    # Quiet, or it would measure the project's log, and tell receivers of jobs that are not theirs.
    pool = Pool(store, [settings], kind="bench", quiet=True)
    began = time.perf_counter()
    await pool.start()
    await pool.until_idle()
    ran = time.perf_counter() - began
    await pool.drain(1)
    return added, ran
