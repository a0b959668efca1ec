"""taskiq's in-memory broker. A result is asked for until it is there, every 0.2 seconds by default.

Its fastest: no pause between the questions, and no look at the arguments' types.
"""

from __future__ import annotations

from typing import Any

from benchmarks.peers.sides.memory import WORKERS, MemorySide


class Side(MemorySide):
    """``InMemoryBroker``."""

    async def start(self) -> None:
        from taskiq import InMemoryBroker

        options: dict[str, Any] = {"cast_types": False} if self.fast else {}
        broker = InMemoryBroker(max_async_tasks=WORKERS, max_stored_results=-1, **options)

        @broker.task
        async def job() -> None:
            self.mark()

        self._task = job
        await broker.startup()

    async def push(self) -> Any:
        return await self._task.kiq()

    async def wait(self, job: Any) -> None:
        result = await job.wait_result(check_interval=0.0 if self.fast else 0.2)
        result.raise_for_error()
