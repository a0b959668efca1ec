"""The job as a handler of awa, and its worker: ``python -m benchmarks.peers.jobs.awa WORKERS SETUP``.

Its runtime is in Rust and calls coroutines; blocking code goes to a thread from there.
"""

import asyncio
import os
import signal
import sys
from dataclasses import dataclass
from typing import Any

import awa

from benchmarks.peers.tally import mark


@dataclass
class BlockingJob:
    """A job without arguments whose code blocks."""


@dataclass
class AsyncJob:
    """A job without arguments."""


async def work(workers: int, fast: bool) -> None:
    """Run the worker until it is told to stop."""
    client = awa.AsyncClient(os.environ["PEERS_DSN"])

    @client.task(BlockingJob, queue="peers")
    async def blocking_job(job: Any) -> None:
        await asyncio.to_thread(mark)

    @client.task(AsyncJob, queue="peers")
    async def async_job(job: Any) -> None:
        mark()

    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    if fast:
        queue = {"name": "peers", "max_workers": workers, "claimers": 2, "claim_batch_size": 512}
        await client.start([queue])
    else:
        await client.start([("peers", workers)])
    await stop.wait()
    await client.shutdown()
    await client.close()


if __name__ == "__main__":
    asyncio.run(work(int(sys.argv[1]), sys.argv[2] == "fastest"))
