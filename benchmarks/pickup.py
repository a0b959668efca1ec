"""Pick-up latency from another process through SQLite, and what an idle pool costs."""

from __future__ import annotations

import random
import time
from typing import Any

from benchmarks import harness, project

IDLE_SECONDS = 20.0


def measure(options: harness.Options) -> list[harness.Target]:
    """Measure the time from a push's return to the job's first line, and the idle pool's processor time."""
    figures = harness.run(
        "pickup", "ours", samples=options.jobs(500), idle=min(IDLE_SECONDS, options.seconds)
    )
    harness.say(f"  pickup: {harness.describe(figures)}")
    return [
        harness.limit("B4 pick-up p50", figures["p50_ms"], unit="ms", below=5),
        harness.limit("B4 pick-up p99", figures["p99_ms"], unit="ms", below=25),
        harness.limit("B4 idle pool", figures["idle_percent"], unit="% of a core", below=1),
    ]


def ours(samples: int, idle: float) -> dict[str, Any]:
    """Push into an idle queue, with random gaps, while ``runjobs`` waits in another process.

    Both processes read the same machine's wall clock; the job's own code tells when it began.
    """
    project.set_up(STORE="database", WORKERS=10, MAXSIZE=1024)
    from benchmarks.tasks.tasks import clock

    gaps = random.Random(20)
    waits: list[float] = []
    with project.command("runjobs", "--verbosity=0") as worker:
        clock.push().wait(timeout=60)
        for _ in range(samples):
            time.sleep(gaps.uniform(0.020, 0.060))
            job = clock.push()
            pushed = time.time()
            job.wait(timeout=60)
            waits.append(max(0.0, job.result() - pushed) * 1e3)
        used = project.cpu_seconds(worker.pid)
        began = time.perf_counter()
        time.sleep(idle)
        seconds = time.perf_counter() - began
        used = project.cpu_seconds(worker.pid) - used
    return {
        "p50_ms": harness.percentile(waits, 50),
        "p90_ms": harness.percentile(waits, 90),
        "p99_ms": harness.percentile(waits, 99),
        "max_ms": max(waits),
        "idle_percent": used / seconds * 100,
    }


CONTESTANTS = {"ours": ours}
