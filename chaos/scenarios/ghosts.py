"""500 pushes wait in 4 processes for room in a full queue; half of them are cancelled at random moments."""

from __future__ import annotations

from collections.abc import Mapping

from chaos import ledger, process
from chaos.ground import Ground
from chaos.verdict import Pushes, Runs
from jobify_django.job import JobRecord

SETTINGS = {"MAXSIZE": 20, "WORKERS": 2, "MAX_RUNNING": None}
PUSHES, PROCESSES = 500, 4
LATE = 0.5
"""Seconds after its timeout, or after it was cancelled, that a push may still take."""


def run(ground: Ground) -> None:
    """Let a slow pool make room for some of them."""
    each = ground.jobs(PUSHES) // PROCESSES
    ground.produce(20, shortest=0.3, longest=0.3)
    ground.until(lambda: not ground.producing, "the full queue")
    ground.begin(1)
    waiters = [
        ground.spawn(
            "-m", "chaos.waiter", str(number), str(each), str(ground.chance.getrandbits(32)),
            log=f"waiter-{number}.log",
        )
        for number in range(PROCESSES)
    ]  # fmt: skip
    ground.until(lambda: all(waiter.poll() is not None for waiter in waiters), "the end of all waits")
    for number, waiter in enumerate(waiters):
        if waiter.returncode:
            ground.verdict.broken.append(f"waiter-{number}.log exited with {waiter.returncode}")
        process.end(waiter)
    ground.drain()


def judge(ground: Ground, records: Mapping[str, JobRecord], pushes: Pushes, runs: Runs) -> None:
    """Nobody's job runs, and every wait ends."""
    keys = {start.key: id for id, starts in runs.starts.items() for start in starts}
    waits = [(entry.fields[0], float(entry.fields[1])) for entry in ledger.read("waits")]
    ground.verdict.count("waiting pushes", len(waits))
    ground.verdict.count("cancelled", len(pushes.cancelled))
    ground.verdict.count("timed out", len(pushes.refused))
    ground.verdict.none("ghosts", sorted(key for key in pushes.cancelled if key in keys))
    ground.verdict.hold("a wait's end after it was due, max s", max(late for _, late in waits), at_most=LATE)
