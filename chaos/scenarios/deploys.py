"""Rolling deploys under load: TERM and replace, 30 times, with one pool that does not know a task."""

from __future__ import annotations

from collections.abc import Mapping

from chaos import process
from chaos.ground import Ground
from chaos.verdict import Pushes, Runs
from jobify_django.job import JobRecord

JOBS, DEPLOYS = 6_000, 30
ROUND = 2.0


def run(ground: Ground) -> None:
    """Replace one pool after the other; one in four starts with the old code."""
    jobs, deploys = ground.jobs(JOBS), ground.jobs(DEPLOYS)
    ground.begin(3)
    ground.begin(1, CHAOS_OLD_CODE="1")
    ground.produce(jobs, rate=jobs / deploys / ROUND, longest=0.14, tasks=("work", "awork", "newcomer"))
    for number in range(deploys):
        process.wait(ground.chance.uniform(0.2, 1.0))
        old = {"CHAOS_OLD_CODE": "1"} if number % 4 == 3 else {}
        newer = ground.fleet.replace(ground.fleet.pools[number % 4], **old)
        ground.until(lambda newer=newer: newer.ready, "the start of a pool")
    # The last of the old code goes, so that every pool knows every task.
    for pool in list(ground.fleet.pools):
        if "CHAOS_OLD_CODE" in pool.environment:
            ground.fleet.replace(pool)
    ground.drain()
    ground.verdict.count("deploys", deploys)


def judge(ground: Ground, records: Mapping[str, JobRecord], pushes: Pushes, runs: Runs) -> None:
    """No deploy costs a job anything but time."""
    charged = [id for id, record in records.items() if record.crashes]
    ground.verdict.none("charged for a deploy", charged)
    held = sum("not known" in one.reason for record in records.values() for one in record.history)
    ground.verdict.hold("jobs handed back by the old code", held, at_least=1)
