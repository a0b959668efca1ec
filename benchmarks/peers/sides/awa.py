"""awa: a runtime in Rust that calls Python's coroutines; append-only storage in PostgreSQL.

Its fastest: two claimers of up to 512 jobs, and COPY into its storage for many jobs.
"""

from __future__ import annotations

import sys

from benchmarks.peers.sides.base import PostgresSide


class Side(PostgresSide):
    """Its Python client and worker."""

    def prepare(self) -> None:
        import awa

        from benchmarks.peers.jobs.awa import AsyncJob, BlockingJob

        self._client = awa.Client(self.dsn)
        self._client.migrate()
        self._job = BlockingJob if self.kind == "def" else AsyncJob

    def one_by_one(self, number: int) -> None:
        for _ in range(number):
            self._client.insert(self._job(), queue="peers")

    def bulk(self, number: int) -> None:
        jobs = [self._job() for _ in range(number)]
        if self.fast:
            self._client.enqueue_many_copy(jobs, queue="peers")
        else:
            self._client.insert_many_copy(jobs, queue="peers")

    def worker(self) -> list[str]:
        setup = "fastest" if self.fast else "recommended"
        return [sys.executable, "-m", "benchmarks.peers.jobs.awa", str(self.workers), setup]

    def left(self) -> int:
        return sum(
            stat.available + stat.running + stat.retryable + stat.failed + stat.scheduled
            for stat in self._client.queue_stats()
        )
