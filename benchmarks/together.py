"""Pushing and running at once: one process pushes sync jobs to SQLite while another one runs them."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import Any

from benchmarks import harness, project

WORKERS = 10


def measure(options: harness.Options) -> list[harness.Target]:
    """Compare the time from the first push to the last end of 10,000 jobs with Huey's."""
    jobs = options.jobs(10_000)
    runs = harness.interleave("together", {"ours": {"jobs": jobs}, "huey": {"jobs": jobs}}, options.repeats)
    rates = {name: [run["jobs_per_s"] for run in results] for name, results in runs.items()}
    return [
        harness.compare(
            "B3 push and run", rates["ours"], rates["huey"], against="Huey", unit="jobs/s", at_least=1
        )
    ]


def ours(jobs: int) -> dict[str, Any]:
    """Push while ``runjobs``, known to be up, runs the jobs."""
    project.set_up(STORE="database", WORKERS=WORKERS, MAXSIZE=10 * jobs)
    from benchmarks.tasks.tasks import clock, noop

    with project.command("runjobs", "--verbosity=0"):
        clock.push().wait(timeout=60)
        began = time.time()
        for _ in range(jobs):
            noop.push()
        pushed = time.time()
        ended = project.ended(jobs + 1)
    return _rate(jobs, began, pushed, ended)


def huey(jobs: int) -> dict[str, Any]:
    """Push while Huey's consumer, known to be up, runs the jobs."""
    from benchmarks.rivals import huey_sqlite

    consumer = [sys.executable, "-m", "benchmarks.rivals.huey_sqlite", str(jobs)]
    with harness.running(consumer, stdout=subprocess.PIPE, text=True) as process:
        huey_sqlite.hello().get(blocking=True, timeout=60)
        began = time.time()
        for _ in range(jobs):
            huey_sqlite.noop()
        pushed = time.time()
        output, _ = process.communicate(timeout=300)
    _, ended = json.loads(output)
    return _rate(jobs, began, pushed, ended)


def _rate(jobs: int, began: float, pushed: float, ended: float) -> dict[str, Any]:
    seconds = ended - began
    return {
        "jobs_per_s": jobs / seconds,
        "us_per_job": seconds / jobs * 1e6,
        "us_per_push": (pushed - began) / jobs * 1e6,
    }


CONTESTANTS = {"ours": ours, "huey": huey}
