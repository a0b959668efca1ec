"""kill -9 of pools, and of producers, at random moments: 200 kills of 4 pools over 20,000 jobs."""

from __future__ import annotations

from collections.abc import Mapping

from chaos import process
from chaos.ground import Ground
from chaos.verdict import Pushes, Runs, percentile, rescue_delays
from jobify_django.job import JobRecord

JOBS, KILLS, PRODUCERS = 20_000, 200, 4
GAP = 0.65
"""Seconds between two kills, about."""

RESCUE = 5.0
"""Seconds past the lease within which a dead pool's jobs are taken from it."""


def run(ground: Ground) -> None:
    """Kill pools and now and then a producer, evenly over all jobs."""
    jobs, kills = ground.jobs(JOBS), ground.jobs(KILLS)
    ground.begin(4)
    # As many jobs as come in the time that the kills take, with most workers busy.
    rate = jobs / kills / GAP / PRODUCERS
    ground.produce(jobs, processes=PRODUCERS, rate=rate, longest=0.14, long=0.002, long_seconds=2.0)
    for number in range(kills):
        due = jobs * number / kills * 0.95
        while ground.started() < due and ground.producing:
            process.wait(0.05)
        process.wait(ground.chance.uniform(0.3, 2 * GAP - 0.3))
        ground.fleet.kill(ground.fleet.choose(ground.chance))
        if ground.chance.random() < 0.05:
            victim = ground.chance.choice(ground.producers)
            if victim.poll() is None:
                process.end(victim, 9)
                # What it has not pushed, another one does, about.
                ground.produce(max(1, (jobs - int(due)) // PRODUCERS), rate=rate, longest=0.14)
        if number % 20 == 0:
            ground.say(f"{number + 1} kills, {ground.started()} starts")
    ground.drain()


def judge(ground: Ground, records: Mapping[str, JobRecord], pushes: Pushes, runs: Runs) -> None:
    """The dead pools' jobs were taken from them in time."""
    delays = rescue_delays(ground.fleet, runs, records)
    ground.verdict.count("kills", len(ground.fleet.deaths))
    ground.verdict.count("rescues", len(delays))
    ground.verdict.hold("rescue p50 s", percentile(delays, 50))
    ground.verdict.hold("rescue max s", max(delays, default=0.0), at_most=ground.lease + RESCUE)
