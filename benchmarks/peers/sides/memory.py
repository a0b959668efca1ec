"""What the contestants in memory share: push and await in one event loop."""

from __future__ import annotations

import asyncio
from typing import Any

from benchmarks import project

MAXSIZE = 1024
WORKERS = 100


class MemorySide:
    """A contestant whose jobs wait in the process that pushes them."""

    def __init__(self, *, fast: bool, kind: str, workers: int, jobs: int) -> None:
        self.fast, self.kind, self.workers, self.jobs = fast, kind, workers, jobs
        self._done = 0
        self._runner = asyncio.Runner()

    def prepare(self) -> None:
        """Load Django, as a site has it loaded, so that all pay for the same heap; start what serves."""
        project.set_up(
            apps=["jobify_django"],
            migrate=False,
            STORE="memory",
            WORKERS=WORKERS,
            MAXSIZE=MAXSIZE,
            PUSH_TIMEOUT=None,
        )
        self._runner.run(self.start())

    async def start(self) -> None:
        """Start what serves."""

    async def push(self) -> Any:
        """Push one job and return what is awaited by ``wait``."""
        raise NotImplementedError

    async def wait(self, job: Any) -> None:
        """Wait for the job's result."""
        raise NotImplementedError

    def mark(self) -> None:
        """Do the job."""
        self._done += 1

    def done(self) -> int:
        """Return how many jobs have run."""
        return self._done

    def run(self, jobs: int, together: int) -> None:
        """Push and await ``together`` jobs at once; none: push all of them, then await them in turn."""
        self._runner.run(self._run(jobs, together))

    async def _run(self, jobs: int, together: int) -> None:
        if together == 1:
            for _ in range(jobs):
                await self.wait(await self.push())
        elif together:
            for _ in range(jobs // together):
                await asyncio.gather(*(self._one() for _ in range(together)))
        else:
            for job in [await self.push() for _ in range(jobs)]:
                await self.wait(job)

    async def _one(self) -> None:
        await self.wait(await self.push())
