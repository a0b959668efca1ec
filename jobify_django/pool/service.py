"""All the pools of one process, as one thing to start and stop."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Collection, Mapping, Sequence

from jobify_django.conf import get_settings
from jobify_django.exceptions import UnknownQueue
from jobify_django.log import get_log
from jobify_django.pool.pool import Budget, Pool
from jobify_django.pool.unserved import Unserved
from jobify_django.pool.workers import Slots
from jobify_django.stores import queues_by_store
from jobify_django.stores.base import QueueStats

logger = get_log("jobify.worker")

RESTART_AFTER = 1.0
"""Seconds until a pool that died is replaced; twice as long each time it dies early again."""

LONGEST_RESTART = 60.0
"""Seconds until a pool that dies again and again is replaced, at most."""

STEADY = 60.0
"""Seconds after which a pool that dies is no sign that the next would die at once."""


class Service:
    """The pools of this process: one for each store that holds queues it serves.

    It installs no signal handlers; whoever starts it decides when to ``drain``.

    Args:
        queues: the queues to serve; all configured ones by default.
        exclude: queues not to serve.
        kind: the door it was started through.
        workers: jobs of each queue to run at once; stands above settings and live tuning.
        max_jobs: stop claiming after so many jobs.
        look_around: say when jobs wait in queues that nobody serves.

    Raises ``UnknownQueue`` for a name that is not configured, or if no queue is left.
    """

    def __init__(
        self,
        queues: Collection[str] | None = None,
        *,
        exclude: Collection[str] = (),
        kind: str = "code",
        workers: int | None = None,
        max_jobs: int | None = None,
        look_around: bool = False,
    ) -> None:
        settings = get_settings()
        for name in (*(queues or ()), *exclude):
            settings.queue(name)
        self.names = [name for name in queues or settings.queues if name not in exclude]
        if not self.names:
            raise UnknownQueue("no queue is left to serve: every one of them is excluded.")
        self._kind = kind
        self._workers = workers
        self._budget = Budget(max_jobs)
        self._closed = False
        self._peers: dict[str, Slots] = {}
        self._supervisors: list[asyncio.Task[None]] = []
        self.pools = [self._pool(store, served) for store, served in queues_by_store(self.names).items()]
        self._unserved = Unserved([pool.store for pool in self.pools]) if look_around else None

    def _pool(self, store: object, queues: Sequence[object]) -> Pool:
        return Pool(
            store,  # type: ignore[arg-type]
            queues,  # type: ignore[arg-type]
            kind=self._kind,
            workers=self._workers,
            peers=self._peers,
            budget=self._budget,
        )

    def survey(self) -> Mapping[str, QueueStats]:
        """Read every store once, and return how the queues stand.

        It may block, so call it off the event loop. Raises ``StoreUnmigrated`` or another ``StoreError``.
        """
        stats: dict[str, QueueStats] = {}
        for pool in self.pools:
            try:
                stats.update(pool.store.stats(list(pool.queues.values())))
            finally:
                pool.store.close()
        return stats

    async def start(self) -> None:
        """Start every pool on the running event loop."""
        try:
            for place, pool in enumerate(self.pools):
                await pool.start()
                self._supervisors.append(asyncio.create_task(self._supervise(place)))
            if self._unserved is not None:
                self._unserved.start()
        except BaseException:
            await self.drain(0)  # or the pools of the other stores would go on
            raise

    def stop_claiming(self) -> None:
        """Start no further job; ``drain`` does the rest. A signal handler may call it at any point."""
        self._closed = True
        for pool in self.pools:
            pool.stop_claiming()

    async def drain(self, grace: float | None = None) -> Sequence[str]:
        """Stop every pool; return the ids of the jobs that were handed back after ``grace`` seconds.

        ``grace`` is ``JOBIFY["GRACE"]`` by default.
        """
        for supervisor in self._supervisors:
            supervisor.cancel()
        if self._unserved is not None:
            self._unserved.stop()
        seconds = get_settings().grace if grace is None else grace
        released = await asyncio.gather(*(pool.drain(seconds) for pool in self.pools))
        if self._unserved is not None:
            self._unserved.join()
        return [id for ids in released for id in ids]

    def hurry(self) -> None:
        """End a ``drain`` in progress now."""
        for pool in self.pools:
            pool.hurry()

    async def until_dry(self) -> None:
        """Return once every queue was found empty while no job of this process ran."""
        await asyncio.gather(*(pool.until_dry() for pool in self.pools))

    async def until_spent(self) -> None:
        """Return once ``max_jobs`` jobs were claimed and have ended."""
        await asyncio.gather(*(pool.until_spent() for pool in self.pools))

    async def _supervise(self, place: int) -> None:
        deaths = 0
        while True:
            pool, began = self.pools[place], time.monotonic()
            error = await pool.died
            deaths = 1 if time.monotonic() - began >= STEADY else deaths + 1
            await self._replace(place, error, deaths)

    async def _replace(self, place: int, error: BaseException, deaths: int) -> None:
        """Put a new pool into the place of one that died; if it cannot start, try another."""
        while True:
            dead = self.pools[place]
            pause = min(LONGEST_RESTART, RESTART_AFTER * 2.0 ** min(deaths - 1, 10))
            logger.critical(
                "event=pool-restart store=%s error=%r deaths=%d restart_in=%g: a pool died and is replaced",
                dead.store.alias,
                error,
                deaths,
                pause,
            )
            with contextlib.suppress(Exception):
                await dead.drain(0)
            await asyncio.sleep(pause)
            pool = self.pools[place] = self._pool(dead.store, list(dead.queues.values()))
            if self._closed:
                pool.stop_claiming()
            try:
                await pool.start()
            except Exception as failure:
                error, deaths = failure, deaths + 1
            else:
                return


@contextlib.asynccontextmanager
async def serving(
    queues: Collection[str] | None = None,
    *,
    workers: int | None = None,
    grace: float | None = None,
    kind: str = "code",
) -> AsyncIterator[Service]:
    """Run the pools of the configured queues on the running event loop while the block runs.

    Args:
        queues: the queues to serve; all by default.
        workers: jobs of each queue to run at once; stands above settings and live tuning.
        grace: seconds that running jobs have to end when the block ends; ``JOBIFY["GRACE"]`` by default.
        kind: how the pools call themselves.
    """
    service = Service(queues, kind=kind, workers=workers, look_around=True)
    await service.start()
    try:
        yield service
    finally:
        await service.drain(grace)
