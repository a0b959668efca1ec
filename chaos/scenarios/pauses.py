"""100 times a pool is frozen for longer than its lease, and wakes up with jobs that others have."""

from __future__ import annotations

import signal
from collections.abc import Mapping

from chaos import process
from chaos.ground import Ground
from chaos.verdict import Pushes, Runs
from jobify_django.job import JobRecord

SETTINGS = {"LEASE": 2, "MAX_RUNNING": 16}
JOBS, PAUSES = 8_000, 100
AT_ONCE = 3
ROUND = 7.0
"""Seconds from one freeze to the next, about."""

ENOUGH = 10
"""Pauses of which at least one meets a pool that holds a job."""


def run(ground: Ground) -> None:
    """Freeze three of the four pools at a time."""
    jobs, pauses = ground.jobs(JOBS), ground.jobs(PAUSES)
    ground.begin(4)
    rate = jobs / (pauses / AT_ONCE) / ROUND
    ground.produce(jobs, rate=rate, shortest=0.02, longest=0.3)
    ground.until(lambda: ground.started(), "the first job")
    frozen = 0
    while frozen < pauses:
        process.wait(ground.chance.uniform(0.5, 2.0))
        victims = ground.chance.sample(ground.fleet.pools, min(AT_ONCE, pauses - frozen))
        for victim in victims:
            victim.process.send_signal(signal.SIGSTOP)
        # The lease, the time until somebody looks for dead pools' jobs, and a little.
        process.wait(ground.lease + 2.5 + ground.chance.uniform(0.0, 1.0))
        for victim in victims:
            victim.process.send_signal(signal.SIGCONT)
        frozen += len(victims)
        ground.say(f"{frozen} pauses, {ground.started()} starts")
    ground.verdict.count("pauses", frozen)
    ground.drain()


def judge(ground: Ground, records: Mapping[str, JobRecord], pushes: Pushes, runs: Runs) -> None:
    """Without a stale write that was refused, nothing was tested; a few pauses may all meet idle moments."""
    counts = ground.verdict.counts
    expected = 1 if counts["pauses"] >= ENOUGH else 0
    ground.verdict.hold("stale writes tried", counts["stale writes refused"], at_least=expected)
