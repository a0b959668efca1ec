"""The server crashes and comes back 20 times, each time sooner than the lease; no pool is killed."""

from __future__ import annotations

import bisect
import math
import time
from collections.abc import Mapping

from chaos import process
from chaos.ground import Ground
from chaos.verdict import Pushes, Runs
from jobify_django.job import JobRecord

STORES = ("postgresql", "mariadb")
SETTINGS = {"LEASE": 10, "MAX_RUNNING": 16}
JOBS, RESTARTS, PRODUCERS = 20_000, 20, 4
CYCLE = 7.0
"""Seconds from one crash to the next, about."""

CUTS = 0.4
"""How often all connections are cut shortly before a crash."""

CLAIM_WITHIN = 5.0
"""Seconds after the server's return until the next job starts, at most."""

away: list[float] = []
back: list[float] = []


def run(ground: Ground) -> None:
    """Crash the server, leave it away for up to three seconds, and let the pools work in between."""
    jobs, restarts = ground.jobs(JOBS), ground.jobs(RESTARTS)
    ground.begin(4)
    rate = jobs / restarts / CYCLE / PRODUCERS
    ground.produce(jobs, processes=PRODUCERS, rate=rate, longest=0.12)
    cut = 0
    for number in range(restarts):
        process.wait(ground.chance.uniform(1.0, 7.0))
        if ground.chance.random() < CUTS:
            cut += ground.database.terminate_all()
            process.wait(ground.chance.uniform(0.1, 1.0))
        away.append(time.monotonic())
        ground.database.stop("immediate")
        process.wait(ground.chance.uniform(0.0, 3.0))
        ground.database.start()
        back.append(time.monotonic())
        ground.say(f"restart {number + 1}, {ground.started()} starts")
    # And an orderly one.
    process.wait(CLAIM_WITHIN)
    ground.verdict.count("connections cut", cut + ground.database.terminate_all())
    process.wait(1.0)
    away.append(time.monotonic())
    ground.database.stop("fast")
    ground.database.start()
    back.append(time.monotonic())
    ground.drain()


def judge(ground: Ground, records: Mapping[str, JobRecord], pushes: Pushes, runs: Runs) -> None:
    """Nothing ran twice, and work began again soon."""
    twice = [id for id, starts in runs.starts.items() if len(starts) > 1]
    ground.verdict.none("run twice although no pool died", twice)
    times = runs.times
    waits = []
    for at, until in zip(back, [*away[1:], math.inf], strict=False):
        place = bisect.bisect(times, at)
        # It may have gone again before anybody noticed that it was there.
        if place < len(times) and (times[place] < until or until - at > CLAIM_WITHIN):
            waits.append(times[place] - at)
    ground.verdict.count("restarts", len(back))
    ground.verdict.hold("first start after the server's return, max s", max(waits), at_most=CLAIM_WITHIN)
