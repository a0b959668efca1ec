"""A pool: what one process runs of the queues of one store."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from contextvars import Context

from jobify_django.conf import QueueSettings
from jobify_django.exceptions import StoreError
from jobify_django.job import SUCCESSFUL, Claim, Outcome, new_id
from jobify_django.log import get_log, listed, quoted
from jobify_django.outage import Outage
from jobify_django.pool.completer import Completer
from jobify_django.pool.driver import Driver, LoopDriver, ThreadDriver
from jobify_django.pool.dryness import Dryness, Left
from jobify_django.pool.execution import Unfinished, Work, arun_job, cancelled, failed
from jobify_django.pool.forking import hook_forks
from jobify_django.pool.loop import tell_loop
from jobify_django.pool.probation import LOOK_AGAIN, Probation
from jobify_django.pool.refusal import refusals
from jobify_django.pool.report import heard, report
from jobify_django.pool.upkeep import Upkeep
from jobify_django.pool.workers import Running, Slots, Threads
from jobify_django.registry import tasks
from jobify_django.stores.base import Claimed, PoolQueue, PoolRecord, QueueState, Store, Suspects

logger = get_log("jobify.worker")

POLL = 1.0
"""Seconds after which a pool looks for jobs although nothing hinted at any."""

LONGEST_BACKOFF = 3.0
"""Seconds between tries at a store that is away, at most."""

LAST_WORDS = 2.0
"""Seconds a stopping pool has, after its grace, to cancel, to hand back, and to say goodbye."""


class Pool:
    """Claims jobs of one store's queues and runs them: ``async def`` on the event loop it was started on,
    ``def`` on threads of its own.

    Claiming happens off the loop where the store may block, so a blocked loop holds up only the jobs on it.

    Args:
        store: where the jobs wait.
        queues: which of its queues to serve.
        kind: the door it was started through, for the operator: ``"runjobs"``, ``"lifespan"``, ``"code"``.
        workers: jobs of each queue to run at once; given, it stands above settings and live tuning.
        peers: the slots of all queues of this process, shared between its pools.
        budget: stop claiming after so many jobs.
        quiet: tell nobody of jobs that end well.
    """

    def __init__(
        self,
        store: Store,
        queues: Sequence[QueueSettings],
        *,
        kind: str = "code",
        workers: int | None = None,
        peers: dict[str, Slots] | None = None,
        budget: Budget | None = None,
        quiet: bool = False,
    ) -> None:
        self.id = new_id()
        self.store = store
        self.queues = {queue.name: queue for queue in queues}
        self._kind = kind
        self._fixed = workers
        self._quiet_jobs = quiet
        self._peers = {} if peers is None else peers
        self.slots = {q.name: Slots(q, workers or q.workers, self._peers) for q in queues}
        self._lease = {queue.name: queue.lease for queue in queues}
        self._caps = {queue.name: queue.max_running for queue in queues if queue.max_running is not None}
        self._unknown: set[str] = set()
        self._probation = Probation(self._peers)
        self._budget = budget or Budget(None)
        self.completer = Completer()
        self._threads = Threads(self._ended, self._go_on)
        self._upkeep = Upkeep(self)
        self._driver: Driver
        self._runs = False
        self._closed = False
        self._draining = False
        self._claims_over = False
        self._grace_over = False
        self._hurried = False
        self._released: Sequence[str] = ()
        self._unsure = False
        self._backoff = 0.0
        self._away = Outage()
        self._dryness = Dryness(store, self.queues, self._caps)
        self.turns = 0
        self.started = 0
        self._opened = False
        self._started = False
        self._started_at: float | None = None
        self._unsubscribe: Callable[[], None] = lambda: None

    # Its life

    async def start(self) -> None:
        """Begin claiming. The running event loop is the one ``async def`` jobs run on."""
        self.loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self._quiet = asyncio.Event()
        hook_forks()
        self.died: asyncio.Future[BaseException] = self.loop.create_future()
        self._started = True
        self._threads.resize(sum(slots.size for slots in self.slots.values()))
        make = ThreadDriver if self.store.blocking else LoopDriver
        self._driver = make(self.step, self._close, self.on_death)
        self._driver.start()
        self._runs = True
        self.store.served.update(list(self.queues))
        try:
            # After the start: a hint may ring at once, from another thread.
            self._unsubscribe = self.store.hints.subscribe("work", self._on_hint)
            self._upkeep.start()
        except BaseException:
            await self.drain(0)  # what it has claimed meanwhile would not be renewed
            raise

    async def drain(self, grace: float) -> Sequence[str]:
        """Stop: claim nothing more, let running jobs end, hand back what runs after ``grace`` seconds.

        Returns the ids of the jobs handed back; they are not charged, and run elsewhere or later.
        """
        if self._draining:
            return ()
        self._draining = self._closed = True
        if not self._runs:
            return ()
        self.wake()
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace):
                    await self._until_empty()
        finally:
            # Cancelled too: gunicorn, in a hurry, cancels every task of the loop and waits a second for them.
            self._grace_over = True
            await self._cancel_all()
            self._unsubscribe()
            self.store.served.subtract(list(self.queues))
            self._upkeep.stop()
            if not await self._driver.stop(LAST_WORDS):
                logger.error(
                    "event=stopped-without-store error='no answer within %g s' jobs=%s",
                    LAST_WORDS,
                    listed(self.completer.held()),
                )
            self._threads.resize(0)
        return self._released

    def stop_claiming(self) -> None:
        """Start no further job. Only sets a flag: a signal handler may call it at any point."""
        self._closed = True

    def hurry(self) -> None:
        """End a ``drain`` in progress now: hand back what still runs."""
        self._hurried = True
        if self._started:
            tell_loop(self.loop, self._quiet.set)

    async def _until_empty(self) -> None:
        # The event is set on this thread only, so none is missed between looking and clearing.
        while not (self._hurried or (self._claims_over and self.completer.empty)):
            self._quiet.clear()
            await self._quiet.wait()

    async def until_dry(self) -> Sequence[Left]:
        """Return once no job of this pool runs and none waits that it could run: what it has to leave.

        It is found out by looking, from now on. For jobs that wait because other pools use up a queue's
        ``MAX_RUNNING`` it waits.
        """
        self._dryness.ask()
        self.wake()
        while (left := self._dryness.left) is None:
            self._quiet.clear()
            if self._dryness.left is None:
                await self._quiet.wait()
        return left

    async def until_spent(self) -> None:
        """Return once the budget is used up and no job of this pool runs."""
        while not (self._budget.spent and self.completer.empty):
            self._quiet.clear()
            if not (self._budget.spent and self.completer.empty):
                await self._quiet.wait()

    async def _cancel_all(self) -> None:
        left = [running for slots in self.slots.values() for running in slots.jobs()]
        for running in left:
            self.end(running, "release")
        waits = [running.task for running in left if running.task is not None]
        if waits:
            await asyncio.wait(waits, timeout=LAST_WORDS / 2)

    def _close(self) -> None:
        """Say the last words; runs where ``step`` runs."""
        self._open()
        outcomes = self.completer.take()
        try:
            self._settle(outcomes, self.store.finish(outcomes))
            held = self.completer.held()
            if self._unsure:
                self.store.release_unknown(self.id, held)
            if held:
                self._released = list(self.store.release(self.id, held, "its pool stopped"))
                logger.warning("event=released jobs=%s", listed(self._released))
            self._upkeep.join(LAST_WORDS / 2)
            self.store.retire(self.id)
        except Exception as error:
            # Nothing is lost: the leases run out and other pools take the jobs.
            known = isinstance(error, StoreError)
            logger.error(
                "event=stopped-without-store error=%r", str(error), exc_info=None if known else error
            )
        finally:
            self.store.close()

    def on_death(self, error: BaseException) -> None:
        """Tell whoever started the pool that one of its threads ended by a bug."""
        self._unsure = True  # it may have died of what it had just claimed

        def tell() -> None:
            if not self.died.done():
                self.died.set_result(error)
            self._claims_over = True
            self._quiet.set()

        # Told before it is logged: nothing may stand between a death and its replacement.
        tell_loop(self.loop, tell)
        logger.critical("event=pool-died pool=%s error=%s", self.id, quoted(error), exc_info=error)

    # One turn: store what ended, claim what fits, start it

    def step(self) -> float:
        """Do one turn, and return the seconds after which the next is due although nothing rings."""
        closed = self._closed
        pause = self._turn()
        if closed and not self._claims_over:
            # A claim was perhaps under way when the pool was told to stop; now none is.
            self._claims_over = True
            self._ring_quiet()
        return pause

    def _turn(self) -> float:
        self._open()
        self.turns += 1
        asked = self._dryness.asked
        outcomes = self.completer.take()
        alone = self._probation.left
        wants = {} if alone else self._wants()
        suspects = self._probation.suspects
        try:
            if self._unsure:
                self.store.release_unknown(self.id, self.completer.held())
                self._unsure = False
            claimed = self._exchange(wants, outcomes, suspects)
        except BaseException as error:
            self.completer.put_back(outcomes)
            if not isinstance(error, Exception):
                raise
            return self._back_off(error)
        if self._backoff:
            self._away.over()
            logger.info("event=store-back store=%s", quoted(self.store.alias))
            self._backoff = 0.0
        self.apply(claimed.states)
        self._start(claimed.claims)
        self._settle(outcomes, claimed.refused)
        self._probation.note(claimed)
        if asked:
            self._note_dry(asked, wants, claimed, suspects)
        # Full hands mean there may be more, but an idle worker rings when there is one.
        pause = POLL if claimed.next_due is None else min(POLL, claimed.next_due)
        return min(pause, LOOK_AGAIN if claimed.held else self._probation.left or pause)

    def _open(self) -> None:
        if not self._opened:
            self._opened = True
            self.store.open()

    def _wants(self) -> Mapping[str, int]:
        if self._closed:
            return {}
        wants: Mapping[str, int] = {n: slots.idle for n, slots in self.slots.items() if slots.idle}
        room = self._threads.room
        if room is not None:
            wants = at_most(wants, room)
        return self._budget.limit(wants)

    def _exchange(self, wants: Mapping[str, int], outcomes: Sequence[Outcome], suspects: Suspects) -> Claimed:
        if wants:
            unknown = {name for name in self._unknown if tasks.get(name) is None}
            return self.store.claim(
                self.id,
                wants,
                self._lease,
                outcomes,
                caps=self._caps,
                unknown=unknown,
                suspects=suspects,
            )
        return Claimed(refused=self.store.finish(outcomes)) if outcomes else Claimed()

    def _back_off(self, error: Exception) -> float:
        # A claim may have been committed although its reply was lost.
        self._unsure = True
        if (word := self._away.fail(error)) is not None:
            unknown = word.new and not isinstance(error, StoreError)
            logger.error(
                "event=store-away store=%s error=%r jobs_held=%d tries=%d: trying again until it is back",
                quoted(self.store.alias),
                str(error),
                len(self.completer.held()),
                word.times,
                exc_info=error if unknown else None,
            )
        with contextlib.suppress(Exception):
            self.store.close()
        # Not for longer than leases can wait: jobs of a lost reply are handed back by the next turn only.
        longest = min(LONGEST_BACKOFF, min(self._lease.values()) / 3)
        self._backoff = min(longest, (self._backoff or 0.1) * 2)
        return self._backoff * random.uniform(0.5, 1.0)

    def _start(self, claims: Sequence[Claim]) -> None:
        strange: list[Claim] = []
        on_loop: list[Running] = []
        refused: list[Running] = []
        for claim in claims:
            task = tasks.get(claim.task)
            if task is None:
                strange.append(claim)
                continue
            running = self.slots[claim.queue].take(claim)
            self.completer.hold(running)
            if self._grace_over:
                running.ending = "release"  # unrun: it would only be interrupted
            elif task.is_async:
                on_loop.append(running)
            elif not self._threads.run(running):
                refused.append(running)
        self.started += len(claims) - len(strange)
        self._budget.spend(len(claims) - len(strange) - len(refused))
        if strange:
            self._hold_back(strange)
        if refused:
            # As under a limit of memory or of processes.
            self._take_back(refused, "no thread could be started for it")
        if not on_loop:
            return
        if threading.get_ident() == self._loop_thread:
            self._start_on_loop(on_loop)
        elif not tell_loop(self.loop, self._start_on_loop, on_loop):
            self._closed = True
            self._take_back(on_loop, "its pool's event loop is closed")

    def _hold_back(self, claims: Sequence[Claim]) -> None:
        """Hand back jobs of tasks that this process does not know, as in a deploy before it has the new code.

        They are passed over from now on, and wait for a pool that knows them.
        """
        for name in sorted({claim.task for claim in claims} - self._unknown):
            logger.warning(
                "event=held task=%s: no such task is registered here; its jobs wait for a pool that has it",
                quoted(name),
            )
        self._unknown.update(claim.task for claim in claims)
        self._hand_back(claims, "its task is not known here")

    def _take_back(self, jobs: Sequence[Running], reason: str) -> None:
        """Hand back jobs that could not be started."""
        for running in jobs:
            running.slots.leave(running)
            self.completer.settle(running.claim.id, running.claim.attempt)
        self._hand_back([running.claim for running in jobs], reason)

    def _hand_back(self, claims: Sequence[Claim], reason: str) -> None:
        try:
            self.store.release(self.id, {claim.id: claim.attempt for claim in claims}, reason)
        except Exception:
            self._unsure = True  # handed back by the next turn

    def _start_on_loop(self, jobs: Sequence[Running]) -> None:
        for running in jobs:
            running.task = self.loop.create_task(self._run(running), name=running.claim.id, context=Context())

    def _go_on(self, running: Running, rest: Unfinished) -> None:
        """Run on the loop what a ``def`` has left: it returned the coroutine of an ``async def``."""
        if tell_loop(self.loop, self._start_rest, running, rest):
            return
        rest.work.close()
        self._closed = True
        running.slots.leave(running)
        self.completer.settle(running.claim.id, running.claim.attempt)
        self._unsure = True  # handed back by the next turn
        self.wake()

    def _start_rest(self, running: Running, rest: Unfinished) -> None:
        work = self._run(running, rest.work)
        running.task = self.loop.create_task(work, name=running.claim.id, context=rest.context)

    async def _run(self, running: Running, work: Work | None = None) -> None:
        try:
            # It may have been told to end before there was a task to cancel.
            if running.ending is not None:
                if work is not None:
                    work.close()
                raise asyncio.CancelledError
            outcome = await arun_job(running.claim, running, work)
        except asyncio.CancelledError as error:
            if running.ending == "cancel":
                outcome = cancelled(running.claim)
            elif running.ending is None and not await self._stops():
                outcome = failed(running.claim, error, running)  # it cancelled its own task
            else:
                self._drop(running)
                return
        self._ended(running, outcome)

    def _drop(self, running: Running) -> None:
        """Free the worker of a job that ended without an outcome."""
        running.slots.leave(running)
        if running.ending == "lost":
            self.completer.settle(running.claim.id, running.claim.attempt)
            if self.completer.empty:
                self._ring_quiet()
        self.wake()

    async def _stops(self) -> bool:
        """Whether a job was cancelled because the whole loop is: then its pool is told to stop, in the same
        breath or in the next, and hands the job back."""
        for _ in range(2):
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0)
        return self._hurried or self._draining

    def _ended(self, running: Running, outcome: Outcome) -> None:
        running.slots.leave(running)
        self.completer.add(outcome)
        # Without a commit to share there is nothing to gather outcomes for.
        if self.store.blocking and any(slots.busy for slots in self.slots.values()):
            self._driver.wake_soon()
        else:
            self._driver.wake()

    def _settle(self, outcomes: Sequence[Outcome], refused: Sequence[Outcome]) -> None:
        why = refusals(self.store, refused)
        everything = bool(refused) or (heard() and not self._quiet_jobs)
        for outcome in outcomes:
            running = self.completer.settle(outcome.id, outcome.attempt)
            if running is not None and (everything or outcome.status is not SUCCESSFUL):
                report(outcome, running, why.get((outcome.id, outcome.attempt), ""))
        if outcomes and self.completer.empty:
            self._ring_quiet()

    def _note_dry(self, asked: int, wants: Mapping[str, int], claimed: Claimed, suspects: Suspects) -> None:
        # A suspect may wait although nothing was found.
        busy = claimed.claims or claimed.held or suspects == "pass" or not self.completer.empty
        spent = self._budget.spent and self.completer.empty
        if self._dryness.note(asked, None if busy else wants, spent=spent):
            self._ring_quiet()

    def _ring_quiet(self) -> None:
        if threading.get_ident() == self._loop_thread:
            self._quiet.set()
        else:
            tell_loop(self.loop, self._quiet.set)

    # What others tell it

    def wake(self) -> None:
        """Make the next turn come at once."""
        self._driver.wake()

    def _on_hint(self, queue: object) -> None:
        if queue is None or queue in self.slots:
            self._driver.wake()

    def apply(self, states: Mapping[str, QueueState]) -> None:
        """Take over live values: more workers start at once, surplus ones end with their job."""
        changed = False
        for name, state in states.items():
            slots = self.slots[name]
            if slots.seen == state:
                continue
            changed = True
            slots.seen = state
            # A changed order is in force only once every job stands where it wants it.
            slots.version = slots.version if state.reordering else state.version
            slots.size = self._fixed or state.workers or self.queues[name].workers
        if changed:
            self._threads.resize(sum(slots.size for slots in self.slots.values()))
            self._upkeep.hurry()
            self.wake()

    def end(self, running: Running, ending: str) -> None:
        """Stop an ``async def`` job: because it was cancelled, handed back, or is no longer ours.

        Once for each of these, however often it is asked: a job that awaits in its ``finally`` is let do so.
        """
        if ending in running.asked:
            return
        running.asked = (*running.asked, ending)
        running.ending = running.ending or ending  # type: ignore[assignment]
        if running.task is not None:
            tell_loop(self.loop, running.task.cancel)

    def lose(self, id: str) -> None:
        """Give up a job whose lease another pool has taken."""
        running = self.completer.running(id)
        # One that has ended here is not lost: its outcome is on its way, or has just been stored.
        if running is not None and "lost" not in running.asked and running.slots.holds(running):
            logger.warning(
                "event=lost id=%s task=%s attempt=%d",
                quoted(id),
                quoted(running.claim.task),
                running.claim.attempt,
            )
            self.end(running, "lost")

    def record(self) -> PoolRecord:
        """Return what the pool says of itself. It may ask the store for the time, once."""
        if self._started_at is None:
            # Here and not at the start: this thread has a connection that requests cannot use up.
            self._started_at = self.store.clock()
        return PoolRecord(
            self.id,
            socket.gethostname(),
            os.getpid(),
            self._kind,
            self._started_at,
            {name: PoolQueue(slots.size, slots.busy, slots.version) for name, slots in self.slots.items()},
        )


def at_most(wants: Mapping[str, int], left: int) -> Mapping[str, int]:
    """Return as much of ``wants`` as is left."""
    limited = {}
    # In any order, or an empty queue would keep what is left from the next one for ever.
    for name, want in random.sample(list(wants.items()), len(wants)):
        if left > 0:
            limited[name] = min(want, left)
            left -= limited[name]
    return limited


class Budget:
    """How many more jobs the pools of a process may claim together; ``None`` is without end."""

    def __init__(self, jobs: int | None) -> None:
        self._left = jobs
        self._lock = threading.Lock()

    @property
    def spent(self) -> bool:
        """Whether no further job may be claimed."""
        return self._left is not None and self._left <= 0

    def limit(self, wants: Mapping[str, int]) -> Mapping[str, int]:
        """Return as much of ``wants`` as is left."""
        return wants if self._left is None else at_most(wants, self._left)

    def spend(self, jobs: int) -> None:
        """Note claimed jobs."""
        if self._left is not None:
            with self._lock:
                self._left -= jobs
