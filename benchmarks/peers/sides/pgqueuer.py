"""pgqueuer: an event loop that takes jobs in batches of 10, over asyncpg.

Its limit of jobs at once must be twice the batch, so 10 workers are batches of 5. Its fastest: batches of
100 with no limit, on a pool of connections; so it holds more jobs than the cell says. No uvloop: the
interpreter's loop is everybody's.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys

from benchmarks.peers.sides.base import PostgresSide

BATCH = 100


class Side(PostgresSide):
    """``pgq run``."""

    left_sql = "SELECT count(*) FROM pgqueuer"

    def prepare(self) -> None:
        subprocess.run(self._pgq("install"), check=True, stdout=subprocess.DEVNULL)
        self._entrypoint = "job" if self.kind == "def" else "async_job"
        self._runner = asyncio.Runner()
        self._runner.run(self._connect())

    async def _connect(self) -> None:
        import asyncpg
        from pgqueuer.db import AsyncpgDriver
        from pgqueuer.queries import Queries

        self._queries = Queries(AsyncpgDriver(await asyncpg.connect(self.dsn)))

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
        options = ["--log-level=WARNING"]
        if self.fast:
            options.append(f"--batch-size={BATCH}")
        else:
            batch = min(10, self.workers // 2)
            options += [f"--batch-size={batch}", f"--max-concurrent-tasks={self.workers}"]
        return self._pgq(
            "run", *options, "benchmarks.peers.jobs.pgqueuer:main", "pool" if self.fast else "connection"
        )

    def _pgq(self, *arguments: str) -> list[str]:
        launcher = "import os; from pgqueuer.adapters.cli.cli import app; os.environ['PGDSN'] = os.environ['PEERS_DSN']; app()"
        return [sys.executable, "-c", launcher, *arguments]
