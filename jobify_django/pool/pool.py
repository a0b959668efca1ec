"""A pool: what one process runs of the queues of one store."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Sequence

from jobify_django.conf import QueueSettings
from jobify_django.exceptions import StoreError
from jobify_django.job import new_id
from jobify_django.log import get_log, listed, quoted
from jobify_django.outcome import released
from jobify_django.pool.budget import Budget
from jobify_django.pool.claim_loop import AsyncClaimLoop, ThreadClaimLoop
from jobify_django.pool.completer import Completer
from jobify_django.pool.forking import hook_forks
from jobify_django.pool.idle_check import IdleCheck, UnrunnableJobs
from jobify_django.pool.loop import LoopEvent, call_on_loop
from jobify_django.pool.phase import Phase, Phases
from jobify_django.pool.quarantine import QuarantineRule
from jobify_django.pool.slots import ProcessSlots, Slots
from jobify_django.pool.turn import Turn
from jobify_django.pool.upkeep import Upkeep
from jobify_django.pool.workers import Workers
from jobify_django.registry import Registry, tasks
from jobify_django.stores.base import Store
from jobify_django.stores.value import PoolQueue, PoolRecord

logger = get_log("jobify.worker")

RELEASE_TIMEOUT = 2.0
"""Seconds a stopping pool has, after its grace, to cancel its jobs, to hand them back, and to retire."""


class Pool:
    """Claims jobs of one store's queues and runs them: ``async def`` on the event loop it was started on,
    ``def`` on threads of its own.

    Claiming happens off the loop where the store may block, so a blocked loop holds up only the jobs on it.

    Args:
        store: where the jobs wait.
        queues: which of its queues to serve.
        kind: the door it was started through, for the operator: ``"runjobs"``, ``"lifespan"``, ``"code"``.
        workers: jobs of each queue to run at once; given, it stands above settings and live tuning.
        slots: those of all queues of this process, shared between its pools.
        budget: stop claiming after so many jobs.
        quiet: neither log nor signal jobs that end well.
        tasks: those it can run; by default those of this process.
    """

    def __init__(
        self,
        store: Store,
        queues: Sequence[QueueSettings],
        *,
        kind: str = "code",
        workers: int | None = None,
        slots: ProcessSlots | None = None,
        budget: Budget | None = None,
        quiet: bool = False,
        tasks: Registry = tasks,
    ) -> None:
        runtime = store.runtime
        self.id = new_id(runtime)
        self.store = store
        self.queues = {queue.name: queue for queue in queues}
        self._kind = kind
        slots = ProcessSlots(runtime) if slots is None else slots
        self.slots = {q.name: Slots(q, workers or q.workers, slots) for q in queues}
        self._budget = budget or Budget(None, runtime)
        self.completer = Completer()
        self._phases = Phases()
        make = ThreadClaimLoop if store.blocking else AsyncClaimLoop
        self._claim_loop = make(
            store.open, self.step, self._close, self.on_death, lambda: self.workers.gathering, runtime
        )
        self.workers = Workers(
            self.id,
            self.slots,
            fixed=workers,
            completer=self.completer,
            claim_loop=self._claim_loop,
            phases=self._phases,
            changed=self._on_change,
            tasks=tasks,
            runtime=runtime,
        )
        self._idle_check = IdleCheck(store, self.queues, tasks)
        self._turn = Turn(
            self.id,
            store,
            self.queues,
            workers=self.workers,
            completer=self.completer,
            quarantine=QuarantineRule(slots),
            budget=self._budget,
            idle_check=self._idle_check,
            quiet=quiet,
        )
        self.turns = 0
        self._expects_work = True
        self._next_turn = 0.0
        self._turned_in = Phase.CLAIMING
        self._upkeep = Upkeep(
            self.id,
            store,
            self.queues,
            self.workers,
            self.completer,
            turns=lambda: self.turns,
            record=self.record,
            died=self.on_death,
        )
        self._released: Sequence[str] | None = None
        self._started_at: float | None = None
        self._unsubscribe: Callable[[], None] = lambda: None

    @property
    def phase(self) -> Phase:
        """What it does."""
        return self._phases.now

    # Its life

    async def start(self) -> None:
        """Begin claiming. The running event loop is the one ``async def`` jobs run on."""
        self.loop = asyncio.get_running_loop()
        self._progress = LoopEvent(self.store.runtime)
        hook_forks()
        self.died: asyncio.Future[BaseException] = self.loop.create_future()
        self.workers.open()
        self._claim_loop.start()
        self.store.queues_here.update(list(self.queues))
        try:
            # After the start: a notification may come at once, from another thread.
            self._unsubscribe = self.store.listen("work", self._on_notification)
            self._upkeep.start(self.loop)
        except BaseException:
            await self.drain(0)  # what it has claimed meanwhile would not be renewed
            raise

    async def drain(self, grace: float) -> Sequence[str]:
        """Stop: claim nothing more, let running jobs end, hand back what runs after ``grace`` seconds.

        Returns the ids of the jobs handed back; they are not charged, and run elsewhere or later.
        """
        if self._released is not None:
            return ()
        self._released = ()
        self._phases.enter(Phase.DRAINING)
        if not self._claim_loop.running:
            return ()
        self.wake()
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace):
                    await self._progress.until(self._drained)
        finally:
            # Cancelled too: gunicorn, in a hurry, cancels every task of the loop and waits a second for them.
            self._phases.enter(Phase.RELEASING)
            await self._cancel_all()
            await self._end()
        return self._released

    def stop_claiming(self) -> None:
        """Start no further job. Only sets a flag: a signal handler may call it at any point."""
        self._phases.enter(Phase.STOPPING)

    def release_now(self) -> None:
        """End a ``drain`` in progress now: hand back what still runs."""
        self._phases.enter(Phase.RELEASING)
        if self._claim_loop.running:
            self._progress.set_threadsafe()

    async def until_idle(self) -> Sequence[UnrunnableJobs]:
        """Return the waiting jobs that it cannot run, once no job of this pool runs and no other one waits.

        The store is read for that, from now on. For jobs that wait because other pools use up a queue's
        ``MAX_RUNNING`` it waits.
        """
        self._idle_check.ask()
        self.wake()
        await self._progress.until(lambda: self._idle_check.unrunnable is not None)
        return self._idle_check.unrunnable or []

    async def until_budget_spent(self) -> None:
        """Return once the budget is used up and no job of this pool runs."""
        await self._progress.until(lambda: self._budget.spent and self.completer.empty)

    def _drained(self) -> bool:
        # A claim was perhaps under way when the pool was told to stop: a whole turn must have come since.
        done = self._turned_in > Phase.CLAIMING and self.completer.empty
        return done or self.phase >= Phase.RELEASING

    async def _cancel_all(self) -> None:
        left = [running for slots in self.slots.values() for running in slots.jobs()]
        for running in left:
            running.stop("release")
        waits = [running.task for running in left if running.task is not None]
        if waits:
            await asyncio.wait(waits, timeout=RELEASE_TIMEOUT / 2)

    async def _end(self) -> None:
        self._unsubscribe()
        self.store.queues_here.subtract(list(self.queues))
        self._upkeep.stop()
        if not await self._claim_loop.stop(RELEASE_TIMEOUT):
            logger.error(
                "event=stopped-without-store error='no answer within %g s' jobs=%s",
                RELEASE_TIMEOUT,
                listed(self.completer.held()),
            )
        self.workers.threads.resize(0)
        self._phases.enter(Phase.CLOSED)

    def _close(self) -> None:
        """Store the last outcomes, hand back what is left, and retire; runs where the turns run."""
        try:
            self._turn.end()
            if not self.completer.empty:
                self._released = self.hand_back("its pool stopped")
                logger.warning("event=released jobs=%s", listed(self._released))
            self._upkeep.join(RELEASE_TIMEOUT / 2)
            self.store.retire(self.id)
        except Exception as error:
            # Nothing is lost: the leases run out and other pools take the jobs.
            known = isinstance(error, StoreError)
            logger.error(
                "event=stopped-without-store error=%r", str(error), exc_info=None if known else error
            )
        finally:
            self.store.close()

    def hand_back(self, reason: str) -> Sequence[str]:
        """Hand back all jobs that it holds, uncharged; return the ids of those that were still its own."""
        outcomes = [released(running.claim, reason, pool=self.id) for running in self.completer.jobs()]
        refused = {outcome.id for outcome in self.store.settle(outcomes)}
        return [outcome.id for outcome in outcomes if outcome.id not in refused]

    def on_death(self, error: BaseException) -> None:
        """Resolve ``died``: one of the pool's threads ended by a bug."""

        def report_death() -> None:
            if not self.died.done():
                self.died.set_result(error)
            self._turned_in = Phase.CLOSED  # no turn follows
            self._progress.set()

        # Before it is logged: no handler of the project may delay the pool's replacement.
        call_on_loop(self.loop, report_death)
        logger.critical("event=pool-died pool=%s error=%s", self.id, quoted(error), exc_info=error)

    # Its turns

    def step(self) -> float:
        """Run one turn, and return the seconds after which the next is due unless something wakes the
        loop."""
        self.turns += 1
        self._next_turn = 0.0
        phase = self._phases.now
        expected, self._expects_work = self._expects_work, False
        pause = self._turn.run(phase, expected=expected)
        self._turned_in = max(phase, self._turned_in)
        if self.completer.empty:
            self._progress.set()
        self._next_turn = self.store.runtime.monotonic() + pause
        return pause

    @property
    def rests(self) -> bool:
        """Whether its last turn has ended, and the next one is not due yet."""
        return self.store.runtime.monotonic() < self._next_turn

    def wake(self) -> None:
        """Make the next turn come at once."""
        self._claim_loop.wake()

    def _on_notification(self, queue: object) -> None:
        # Of a queue whose workers are all busy nothing can start: one that becomes idle wakes the loop.
        if queue is None:  # anything may have changed
            if any(slots.idle for slots in self.slots.values()):
                self._claim_loop.wake()
        elif (slots := self.slots.get(queue)) is not None and slots.idle:  # type: ignore[call-overload]
            self._expects_work = True
            self._claim_loop.wake()

    def _on_change(self) -> None:
        self._upkeep.report_soon()
        self._claim_loop.wake()

    # Its record

    def record(self) -> PoolRecord:
        """Return the pool as the store keeps it. The first call asks the store for the time."""
        if self._started_at is None:
            # Here and not at the start: this thread has a connection that requests cannot use up.
            self._started_at = self.store.clock()
        return PoolRecord(
            self.id,
            socket.gethostname(),
            self.store.runtime.process_id(),
            self._kind,
            self._started_at,
            {name: PoolQueue(slots.size, slots.busy, slots.version) for name, slots in self.slots.items()},
        )
