"""Jobify for Django with its memory store, serving on the event loop that pushes."""

from __future__ import annotations

from typing import Any

from benchmarks.peers.sides.memory import MemorySide


class Side(MemorySide):
    """Its public API; the bound is the default one."""

    async def start(self) -> None:
        from jobify_django import task
        from jobify_django.pool import serving

        async def job() -> None:
            self.mark()

        self._task = task(job)
        self._serving = serving()
        await self._serving.__aenter__()

    async def push(self) -> Any:
        return await self._task.push()

    async def wait(self, job: Any) -> None:
        await job.wait()
        job.result()
