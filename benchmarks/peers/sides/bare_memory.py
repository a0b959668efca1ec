"""The lower bound in memory: a priority queue, a future and a task for each job."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

from benchmarks.peers.sides.memory import MAXSIZE, WORKERS, MemorySide


class Side(MemorySide):
    """Bare asyncio."""

    async def start(self) -> None:
        self._queue: asyncio.PriorityQueue[Any] = asyncio.PriorityQueue(maxsize=MAXSIZE)
        self._numbers = itertools.count()
        self._workers = [asyncio.create_task(self._work()) for _ in range(WORKERS)]

    async def _work(self) -> None:
        while True:
            _, _, future = await self._queue.get()
            future.set_result(await asyncio.create_task(self._job()))

    async def _job(self) -> None:
        self.mark()

    async def push(self) -> Any:
        future = asyncio.get_running_loop().create_future()
        await self._queue.put((0, next(self._numbers), future))
        return future

    async def wait(self, job: Any) -> None:
        await job
