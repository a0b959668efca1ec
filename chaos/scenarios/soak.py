"""Half an hour of everything: kills, crashes of the server, live tuning five times a second."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping

from chaos import process
from chaos.fleet import Pool
from chaos.ground import Ground
from chaos.verdict import Pushes, Runs
from jobify_django.exceptions import StoreError
from jobify_django.job import JobRecord
from jobify_django.queue import queue

SECONDS, RATE, PRODUCERS = 1800, 60, 2
KILL_EVERY = (10.0, 30.0)
RESTART_EVERY = (60.0, 180.0)
TICK = 0.2
GROWTH, LOG = 1.0, 64.0
ENOUGH = 10_000
"""Jobs of one pool from which a slope says anything; before that it warms up."""

MEGABYTE = 1024 * 1024

sizes: list[tuple[float, int]] = []
logs: list[int] = []
pids: list[int] = []


def run(ground: Ground) -> None:
    """Go on for so long; one pool is spared, so that its memory can be looked at."""
    seconds = ground.jobs(SECONDS)
    ground.begin(4)
    spared = ground.fleet.pools[0]
    pids.append(spared.pid)
    ground.produce(seconds * RATE, processes=PRODUCERS, rate=RATE / PRODUCERS, longest=0.1)
    begin = time.monotonic()
    kill = restart = look = 0.0
    while (now := time.monotonic() - begin) < seconds:
        if now > kill:
            kill = now + ground.chance.uniform(*KILL_EVERY)
            ground.fleet.kill(ground.chance.choice(ground.fleet.pools[1:]))
        if now > restart:
            if restart and ground.database.server:
                ground.database.stop("immediate")
                process.wait(ground.chance.uniform(0.0, 2.0))
                ground.database.start()
            restart = now + ground.chance.uniform(*RESTART_EVERY)
        if now > look:
            look = now + 5.0
            _look(ground, spared)
        _tune(ground)
        process.wait(TICK)
    with contextlib.suppress(StoreError):
        queue().resume()
        queue().reset()
    ground.drain()


def _tune(ground: Ground) -> None:
    chance = ground.chance
    with contextlib.suppress(StoreError):
        if chance.random() < 0.1:
            queue().pause()
            process.wait(TICK)
            queue().resume()
        else:
            queue().tune(workers=chance.randint(1, 6), maxsize=chance.randint(20, ground.jobify["MAXSIZE"]))


def _look(ground: Ground, spared: Pool) -> None:
    with contextlib.suppress(OSError):
        sizes.append((time.monotonic(), process.resident(spared.pid)))
    with contextlib.suppress(RuntimeError):
        logs.append(ground.database.log_bytes())
    ground.say(f"{ground.started()} starts, {sizes[-1][1] / MEGABYTE:.1f} MB")


def judge(ground: Ground, records: Mapping[str, JobRecord], pushes: Pushes, runs: Runs) -> None:
    """Memory does not grow with the jobs, nor the write-ahead log."""
    mine = [start.at for starts in runs.starts.values() for start in starts if start.pid in pids]
    ground.verdict.count("kills", len(ground.fleet.deaths))
    ground.verdict.count("jobs of the pool that was spared", len(mine))
    growth = _slope([(sum(at <= moment for at in mine), size) for moment, size in sizes[len(sizes) // 4 :]])
    limit = GROWTH if len(mine) >= ENOUGH else None
    ground.verdict.hold("growth MB in 10,000 jobs", growth * 10_000 / MEGABYTE, at_most=limit)
    highest = max(logs, default=0) / MEGABYTE
    ground.verdict.hold("write-ahead log, max MB", highest, at_most=None if ground.database.server else LOG)


def _slope(points: list[tuple[int, int]]) -> float:
    """Return the slope of the straight line nearest to the points."""
    count = len(points)
    if count < 2:
        return 0.0
    x, y = sum(x for x, _ in points) / count, sum(y for _, y in points) / count
    spread = sum((at - x) ** 2 for at, _ in points)
    return sum((at - x) * (size - y) for at, size in points) / spread if spread else 0.0
