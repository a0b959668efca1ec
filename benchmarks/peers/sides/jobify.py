"""jobify with its QueueMiddleware; its fastest is without its SQLite storage."""

from __future__ import annotations

import asyncio
from typing import Any

from benchmarks.peers.sides.memory import MAXSIZE, WORKERS, MemorySide


class Side(MemorySide):
    """A priority queue that push does not wait for."""

    async def start(self) -> None:
        from jobify import Jobify
        from jobify.middleware import QueueMiddleware

        queue = QueueMiddleware(queue=asyncio.PriorityQueue(maxsize=MAXSIZE), workers=WORKERS)
        options: dict[str, Any] = {"storage": False} if self.fast else {}
        app = Jobify(middleware=[queue], **options)

        @app.task
        async def job() -> None:
            self.mark()

        self._app, self._task = app, job
        await app.__aenter__()

    async def push(self) -> Any:
        return await self._task.push()

    async def wait(self, job: Any) -> None:
        await job.wait()
        job.result()
