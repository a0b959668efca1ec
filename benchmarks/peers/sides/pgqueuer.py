"""pgqueuer: an event loop that takes jobs in batches of 10, over asyncpg.

Its limit of jobs at once must be twice the batch, so 10 workers are batches of 5. Its fastest: batches of
100 with no limit, on a pool of connections; so it holds more jobs than the cell says. No uvloop: the
interpreter's loop is everybody's.
"""

from __future__ import annotations

import asyncio
import sys

from benchmarks.peers.sides.base import PostgresSide

BATCH = 100


class Side(PostgresSide):
    """``PgQueuer.run``, which ``pgq run`` calls."""

    left_sql = "SELECT count(*) FROM pgqueuer"

    def prepare(self) -> None:
        self._entrypoint = "job" if self.kind == "def" else "async_job"
        self._runner = asyncio.Runner()
        self._runner.run(self._connect())

    async def _connect(self) -> None:
        import asyncpg
        from pgqueuer.db import AsyncpgDriver
        from pgqueuer.queries import Queries

        self._queries = Queries(AsyncpgDriver(await asyncpg.connect(self.dsn)))
        await self._queries.install()

    def one_by_one(self, number: int) -> None:
        self._runner.run(self._push(number))

    async def _push(self, number: int) -> None:
        for _ in range(number):
            await self._queries.enqueue(self._entrypoint, None)

    def bulk(self, number: int) -> None:
        self._runner.run(self._push_many(number))

    async def _push_many(self, number: int) -> None:
        await self._queries.enqueue([self._entrypoint] * number, [None] * number, [0] * number)

    def worker(self) -> list[str]:
        batch, limit = (BATCH, 0) if self.fast else (min(10, self.workers // 2), self.workers)
        return [sys.executable, "-m", "benchmarks.peers.jobs.pgqueuer", str(batch), str(limit)]
