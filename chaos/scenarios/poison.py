"""5 jobs that kill their process among 2,000 that do not."""

from __future__ import annotations

import time
from collections.abc import Mapping

from chaos import process
from chaos.ground import Ground
from chaos.verdict import Pushes, Runs
from jobify_django.job import JobRecord
from jobify_django.outcome import CRASH_LIMIT

SETTINGS = {"LEASE": 2, "MAX_RUNNING": 16}
JOBS, POISONS = 2_000, 5
PATIENCE = 300.0


def run(ground: Ground) -> None:
    """Start a new pool for each that dies, until all jobs have ended."""
    jobs = ground.jobs(JOBS)
    ground.begin(4)
    ground.produce(jobs, longest=0.1)
    ground.produce(POISONS, tasks=("poison",), rate=0.5)
    deadline = time.monotonic() + PATIENCE
    while (ground.producing or ground.unended()) and time.monotonic() < deadline:
        ground.fleet.revive()
        process.wait(0.1)
    ground.fleet.revive()
    ground.drain()


def judge(ground: Ground, records: Mapping[str, JobRecord], pushes: Pushes, runs: Runs) -> None:
    """Each poison killed three processes at most, was failed for it, and cost no other job a second start."""
    poisons = [record for record in records.values() if record.task.endswith("poison")]
    others = [record for record in records.values() if not record.task.endswith("poison")]
    ground.verdict.count("poisons", len(poisons))
    ground.verdict.count("pools killed", len(ground.fleet.deaths))
    deaths = [len(runs.starts[record.id]) for record in poisons]
    ground.verdict.hold("deaths by one poison, max", max(deaths), at_most=CRASH_LIMIT)
    ground.verdict.none("poisons not failed", [r.id for r in poisons if r.status != "failed"])
    ground.verdict.none("others not successful", [r.id for r in others if r.status != "successful"])
    crashes = max(record.crashes for record in others)
    ground.verdict.hold("crashes of another job, max", crashes, at_most=1)
