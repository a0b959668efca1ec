"""awa with its defaults: a runtime in Rust that calls the handler, and COPY for many jobs."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.long_run import started
from benchmarks.long_run.sides import side


@dataclass
class Job:
    """The arguments of a job."""

    due: float


def prepare() -> None:
    """Make the tables."""
    import awa

    awa.Client(side.DATABASE).migrate()


class Push:
    """Pushes a job for each moment, with one client."""

    def __init__(self) -> None:
        self._client: Any = None

    def __call__(self, due: Sequence[float]) -> None:
        import awa

        self._client = self._client or awa.Client(side.DATABASE)
        self._client.insert_many_copy([Job(moment) for moment in due], queue="default")


def work() -> None:
    """Run jobs until told to stop."""
    asyncio.run(_work())


async def _work() -> None:
    import awa

    client = awa.AsyncClient(side.DATABASE)

    @client.task(Job, queue="default")
    async def job(job: Any) -> None:
        await started.job(job.args.due)

    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await client.start([("default", side.WORKERS)])
    await stop.wait()
    await client.shutdown()
    await client.close()


if __name__ == "__main__":
    side.main(prepare=prepare, push=Push(), work=work)
