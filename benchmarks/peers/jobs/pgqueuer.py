"""The job as an entrypoint of pgqueuer, for ``pgq run benchmarks.peers.jobs.pgqueuer:main``.

It runs coroutines only; blocking code goes to a thread, as its own error message says.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
from pgqueuer import PgQueuer
from pgqueuer.models import Job

from benchmarks.peers.tally import mark


@asynccontextmanager
async def main(driver: str = "connection") -> AsyncIterator[PgQueuer]:
    """Build the worker on one connection, or on a pool."""
    dsn = os.environ["PEERS_DSN"]
    if driver == "pool":
        async with asyncpg.create_pool(dsn, min_size=2, max_size=8) as pool:
            yield _with_entrypoints(PgQueuer.from_asyncpg_pool(pool))
        return
    connection = await asyncpg.connect(dsn)
    try:
        yield _with_entrypoints(PgQueuer.from_asyncpg_connection(connection))
    finally:
        await connection.close()


def _with_entrypoints(queue: PgQueuer) -> PgQueuer:
    @queue.entrypoint("job")
    async def job(job: Job) -> None:
        await asyncio.to_thread(mark)

    @queue.entrypoint("async_job")
    async def async_job(job: Job) -> None:
        mark()

    return queue
