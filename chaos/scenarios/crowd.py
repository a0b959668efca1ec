"""8 processes push 200 jobs a second to one SQLite file for ten minutes, and two pools run them."""

from __future__ import annotations

from collections.abc import Mapping

from chaos.ground import Ground
from chaos.verdict import Pushes, Runs, percentile
from jobify_django.job import JobRecord

STORES = ("sqlite",)
SETTINGS = {"MAX_RUNNING": None}
SECONDS, RATE, PRODUCERS = 600, 200, 8
LONG = 0.001
P99 = 250


def run(ground: Ground) -> None:
    """Let them push at an even rate."""
    ground.begin(2)
    jobs = ground.jobs(SECONDS) * RATE
    order = {"rate": RATE / PRODUCERS, "shortest": 0.001, "longest": 0.04}
    # Some are longer than the lease, so that their lives hang on renewals.
    ground.produce(jobs, processes=PRODUCERS, long=LONG, long_seconds=1.5 * ground.lease, **order)
    ground.drain()


def judge(ground: Ground, records: Mapping[str, JobRecord], pushes: Pushes, runs: Runs) -> None:
    """Pushes are quick, no renewal was missed, and the file is whole."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("PRAGMA integrity_check")
        whole = cursor.fetchall()
    if whole != [("ok",)]:
        ground.verdict.broken.append(f"integrity_check: {whole[:3]}")
    ground.verdict.none("missed renewals", [id for id, record in records.items() if record.history])
    ground.verdict.hold("push p50 ms", percentile(pushes.seconds, 50) * 1000)
    ground.verdict.hold("push p99 ms", percentile(pushes.seconds, 99) * 1000, at_most=P99)
    ground.verdict.hold("push max ms", max(pushes.seconds) * 1000)
