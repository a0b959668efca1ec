"""All the pools of one process, as one thing to start and stop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from functools import partial

from django.apps import apps

from jobify_django.conf import get_settings
from jobify_django.exceptions import StoreError, StoreUnmigrated, UnknownQueue
from jobify_django.log import get_log, quoted
from jobify_django.pool.budget import Budget
from jobify_django.pool.idle_check import UnrunnableJobs
from jobify_django.pool.pool import Pool
from jobify_django.pool.slots import ProcessSlots
from jobify_django.pool.unconfigured_watch import UnconfiguredWatch
from jobify_django.registry import Registry, tasks
from jobify_django.runtime import MACHINE, Runtime
from jobify_django.stores import StoreHandler, queues_by_store, stores
from jobify_django.stores.value import QueueStats
from jobify_django.waiting.loop import as_sync_code, called_through_async_to_sync

APP = "jobify_django"

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
        watch_unconfigured: say when jobs wait in queues that nobody serves.
        tasks: those whose jobs it runs; by default those of this process, as are ``stores``.
        stores: where the stores of the queues are found.
        runtime: the machine it runs on; each pool runs on that of its store.

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
        watch_unconfigured: bool = False,
        tasks: Registry = tasks,
        stores: StoreHandler = stores,
        runtime: Runtime = MACHINE,
    ) -> None:
        settings = get_settings()
        for name in (*(queues or ()), *exclude):
            settings.queue(name)
        self.names = [name for name in queues or settings.queues if name not in exclude]
        if not self.names:
            raise UnknownQueue("no queue is left to serve: every one of them is excluded.")
        self._runtime = runtime
        self._pool = partial(
            Pool,
            kind=kind,
            workers=workers,
            slots=ProcessSlots(runtime),
            budget=Budget(max_jobs, runtime),
            tasks=tasks,
        )
        self._closed = False
        self._supervisors: list[asyncio.Task[None]] = []
        by_store = queues_by_store(self.names, stores)
        self.pools = [self._pool(store, served) for store, served in by_store.items()]
        self._unconfigured = UnconfiguredWatch(list(by_store), runtime) if watch_unconfigured else None

    def stats_of_queues(self) -> Mapping[str, QueueStats]:
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

    async def check_stores(self) -> None:
        """Read every store once before the start, and raise what would keep the pools from ever working.

        A store that is only away is told in the log: pools survive that, at their start too. Raises
        ``StoreUnmigrated``; what ``start`` does; and what Django, or a test, forbids here.
        """
        await self._assert_visible()
        try:
            await asyncio.to_thread(self.stats_of_queues)
        except StoreUnmigrated:
            raise
        except StoreError as error:
            logger.error("event=started-without-store error=%r", str(error))

    async def start(self) -> None:
        """Start every pool on the running event loop.

        Raises ``StoreError`` where a transaction is open on a store's database that its pool could not see
        into: one of this thread, or of the sync code that waits for this coroutine.
        """
        await self._assert_visible()
        if apps.apps_ready and not apps.is_installed(APP):
            logger.warning(
                "event=not-installed: %r is not in INSTALLED_APPS, so no module named tasks is imported by "
                "itself, and no system check looks at settings.JOBIFY",
                APP,
            )
        try:
            for index, pool in enumerate(self.pools):
                await pool.start()
                self._supervisors.append(asyncio.create_task(self._supervise(index)))
            if self._unconfigured is not None:
                self._unconfigured.start()
        except BaseException:
            await self.drain(0)  # or the pools of the other stores would go on
            raise

    async def _assert_visible(self) -> None:
        why_invisible = as_sync_code(self._why_invisible)
        if not why_invisible and called_through_async_to_sync():
            why_invisible = await self._runtime.sync_to_async(self._why_invisible, thread_sensitive=True)()
        if why_invisible:
            raise StoreError(f"workers started here would see no job: {why_invisible}")

    def _why_invisible(self) -> str:
        return next(filter(None, (pool.store.why_invisible() for pool in self.pools)), "")

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
        if self._unconfigured is not None:
            self._unconfigured.stop()
        seconds = get_settings().grace if grace is None else grace
        released = await asyncio.gather(*(pool.drain(seconds) for pool in self.pools))
        if self._unconfigured is not None:
            self._unconfigured.join()
        return [id for ids in released for id in ids]

    def release_now(self) -> None:
        """End a ``drain`` in progress now."""
        for pool in self.pools:
            pool.release_now()

    async def until_idle(self) -> Sequence[UnrunnableJobs]:
        """Return once no job of this process runs and none waits that it could run.

        Returns what is left: the jobs that wait and that it cannot run, because their queue is paused or
        their task is not registered here. Delayed jobs that are not due do not count. For jobs that wait
        because other pools use up a queue's ``MAX_RUNNING`` it waits; once ``max_jobs`` have run, for none.
        """
        while True:
            quiet = all(pool.completer.empty for pool in self.pools)
            before = [pool.workers.started for pool in self.pools]
            found = await asyncio.gather(*(pool.until_idle() for pool in self.pools))
            # A job of one store may have pushed into another one that had been found empty already.
            if len(found) == 1 or (quiet and before == [pool.workers.started for pool in self.pools]):
                return [left for one in found for left in one]

    async def until_budget_spent(self) -> None:
        """Return once ``max_jobs`` jobs were claimed and have ended."""
        await asyncio.gather(*(pool.until_budget_spent() for pool in self.pools))

    async def _supervise(self, index: int) -> None:
        deaths = 0
        while True:
            pool, began = self.pools[index], self._runtime.monotonic()
            error = await pool.died
            deaths = 1 if self._runtime.monotonic() - began >= STEADY else deaths + 1
            await self._replace(index, error, deaths)

    async def _replace(self, index: int, error: BaseException, deaths: int) -> None:
        """Put a new pool into the place of one that died; if it cannot start, try another."""
        while True:
            dead = self.pools[index]
            pause = min(LONGEST_RESTART, RESTART_AFTER * 2.0 ** min(deaths - 1, 10))
            logger.critical(
                "event=pool-restart store=%s error=%s deaths=%d restart_in=%g: a pool died and is replaced",
                quoted(dead.store.alias),
                quoted(error),
                deaths,
                pause,
            )
            with contextlib.suppress(Exception):
                await dead.drain(0)
            await self._runtime.asleep(pause)
            pool = self.pools[index] = self._pool(dead.store, list(dead.queues.values()))
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

    Raises ``StoreUnmigrated`` before anything starts, and ``StoreError`` inside ``TestCase`` or ``atomic()``
    on a store's database: the workers would never see what is pushed there.
    """
    service = Service(queues, kind=kind, workers=workers, watch_unconfigured=True)
    await service.check_stores()
    await service.start()
    try:
        yield service
    finally:
        await service.drain(grace)
