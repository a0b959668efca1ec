"""awa: a runtime in Rust that calls Python's coroutines; append-only storage in PostgreSQL.

Its fastest: two claimers of up to 512 jobs, and COPY into its storage for many jobs.
"""

from __future__ import annotations

import asyncio
import sys

from benchmarks.peers.sides.base import PostgresSide


class Side(PostgresSide):
    """Its Python client and worker."""

    left_sql = "SELECT count(*) FROM awa.jobs WHERE state <> 'completed'"

    def prepare(self) -> None:
        import awa

        from benchmarks.peers.jobs.awa import AsyncJob, BlockingJob

        asyncio.run(self._migrate())
        self._client = awa.Client(self.dsn)
        self._job = BlockingJob if self.kind == "def" else AsyncJob

    async def _migrate(self) -> None:
        import awa

        async with awa.AsyncClient(self.dsn) as client:
            await client.migrate()
            # A migrated database starts out with the storage of its older releases.
            await client.install_queue_storage()

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
