"""The clock of one host jumps by two hours, forwards and back, while its pool and its producer work."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from chaos import process
from chaos.ground import Ground
from chaos.verdict import Pushes, Runs
from jobify_django.job import JobRecord

STORES = ("postgresql", "mariadb")
SETTINGS = {"MAX_RUNNING": None}
JOBS, STEPS = 3_000, 20
ROUND = 3.0
DELAY = 2.0
EARLY, LATE = 1.0, 1.5
"""Seconds by which a job may miss its delay: nobody knows the clock of a server better than it answers."""


def run(ground: Ground) -> None:
    """Step the clock of one of three pools, and of one of two producers."""
    libraries = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    if not libraries:
        raise RuntimeError("libfaketime is not installed: apt-get install faketime")
    clock = ground.directory / "clock"
    clock.write_text("+0\n")
    host = {
        "LD_PRELOAD": str(libraries[0]),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    jobs, steps = ground.jobs(JOBS), ground.jobs(STEPS)
    rate = jobs / steps / ROUND / 2
    ground.begin(2)
    ground.begin(1, **host)
    ground.produce(jobs // 2, rate=rate, longest=0.05, delay=DELAY)
    ground.produce(jobs // 2, rate=rate, longest=0.05, delay=DELAY, environment=host)
    for number in range(steps):
        step = ground.chance.choice(["+2h", "-2h", "+0", "+1h", "-1h", "+40d"])
        # In one write, so that nobody reads half of it.
        clock.write_text(f"{step}\n")
        process.wait(ground.chance.uniform(1.0, 2 * ROUND - 1.0))
        ground.say(f"step {number + 1}: {step}, {ground.started()} starts")
    ground.drain()
    ground.verdict.count("steps", steps)


def judge(ground: Ground, records: Mapping[str, JobRecord], pushes: Pushes, runs: Runs) -> None:
    """No job was taken from a pool that lives, and delays are of the server's seconds."""
    ground.verdict.none("false rescues", [id for id, record in records.items() if record.history])
    begun = [
        (runs.starts[id][0].at - pushes.tried[key], took)
        for (key, id), took in zip(pushes.acknowledged.items(), pushes.seconds, strict=True)
        if runs.starts.get(id)
    ]
    # Under libfaketime a look at the clock is slow: a push takes up to seconds, and chooses the time in them.
    soonest, latest = min(after for after, _ in begun), max(after - took for after, took in begun)
    ground.verdict.hold("from before the push to the start, min s", soonest, at_least=DELAY - EARLY)
    ground.verdict.hold("from after the push to the start, max s", latest, at_most=DELAY + LATE)
