"""procrastinate: an event loop that takes one job a statement; ``def`` jobs go to threads.

Its fastest: jobs deleted when they succeed, pushed through its async connector.
"""

from __future__ import annotations

import asyncio
import sys

from benchmarks.peers.sides.base import PostgresSide


class Side(PostgresSide):
    """Its worker, as ``App.run_worker`` runs it."""

    left_sql = "SELECT count(*) FROM procrastinate_jobs WHERE status <> 'succeeded'"

    def prepare(self) -> None:
        from benchmarks.peers.jobs import procrastinate

        self._app, self._name = procrastinate.app, "job" if self.kind == "def" else "async_job"
        self._task = procrastinate.job if self.kind == "def" else procrastinate.async_job
        self._runner = asyncio.Runner()
        self._runner.run(self._connect())
        if not self.fast:
            self._runner.run(self._app.close_async())
            self._app.open()

    async def _connect(self) -> None:
        await self._app.open_async()
        await self._app.schema_manager.apply_schema_async()

    def one_by_one(self, number: int) -> None:
        if self.fast:
            self._runner.run(self._push(number))
            return
        for _ in range(number):
            self._task.defer()

    async def _push(self, number: int) -> None:
        for _ in range(number):
            await self._task.defer_async()

    def bulk(self, number: int) -> None:
        if self.fast:
            self._runner.run(self._push_many(number))
        else:
            self._task.batch_defer(*[{}] * number)

    async def _push_many(self, number: int) -> None:
        await self._task.batch_defer_async(*[{}] * number)

    def worker(self) -> list[str]:
        delete = "successful" if self.fast else "never"
        return [sys.executable, "-m", "benchmarks.peers.jobs.procrastinate", str(self.workers), delete]
