"""Jobify for Django with its memory store, serving on the event loop that pushes."""

from __future__ import annotations

from typing import Any

from benchmarks.peers.sides.memory import MemorySide


class Side(MemorySide):
    """Its public API; the bound is the default one."""

    async def start(self) -> None:
        from benchmarks.peers.jobs import counting
        from jobify_django.pool import serving

        self._task, self._runs = counting.job, counting.runs
        self._serving = serving()
        await self._serving.__aenter__()

    async def push(self) -> Any:
        return await self._task.push()

    async def wait(self, job: Any) -> None:
        await job.wait()
        job.result()

    def done(self) -> int:
        return self._runs[0]
