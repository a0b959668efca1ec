"""The job as an entrypoint of pgqueuer, and its worker, which is this module run with BATCH and LIMIT.

It runs coroutines only; blocking code goes to a thread, as its own error message says. A limit of 0 is none.
"""

import asyncio
import os
import signal
import sys
from contextlib import AsyncExitStack

import asyncpg
from pgqueuer import PgQueuer
from pgqueuer.models import Job

from benchmarks.peers.tally import mark


async def work(batch_size: int, limit: int) -> None:
    """Run the worker on one connection, or on a pool where there is no limit, until it is told to stop."""
    dsn = os.environ["PEERS_DSN"]
    async with AsyncExitStack() as stack:
        if limit:
            connection = await asyncpg.connect(dsn)
            stack.push_async_callback(connection.close)
            queue = PgQueuer.from_asyncpg_connection(connection)
        else:
            pool = await stack.enter_async_context(asyncpg.create_pool(dsn, min_size=2, max_size=8))
            queue = PgQueuer.from_asyncpg_pool(pool)
        _add_entrypoints(queue)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, queue.shutdown.set)
        await queue.run(batch_size=batch_size, max_concurrent_tasks=limit or None)


def _add_entrypoints(queue: PgQueuer) -> None:
    @queue.entrypoint("job")
    async def job(job: Job) -> None:
        await asyncio.to_thread(mark)

    @queue.entrypoint("async_job")
    async def async_job(job: Job) -> None:
        mark()


if __name__ == "__main__":
    asyncio.run(work(int(sys.argv[1]), int(sys.argv[2])))
