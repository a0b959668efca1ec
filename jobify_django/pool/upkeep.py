"""What a pool does beside claiming, on a thread and a connection of its own: renew, report, rescue, prune.

Leases must be renewed whatever the jobs do to the event loop, the worker threads or the other connection.
"""

from __future__ import annotations

import contextlib
import logging
from asyncio import AbstractEventLoop
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from jobify_django.conf import QueueSettings, get_settings
from jobify_django.exceptions import StoreError
from jobify_django.log import get_log, quoted
from jobify_django.pool.completer import Completer
from jobify_django.pool.liveness import LoopLagMonitor, TurnMonitor
from jobify_django.pool.reachability import Reachability
from jobify_django.pool.report import report_rescued
from jobify_django.pool.workers import Workers
from jobify_django.repeated_failure import RepeatedFailure
from jobify_django.stores.base import Store
from jobify_django.stores.value import PoolRecord, Synced

logger = get_log("jobify.worker")

HEARTBEAT_EVERY = 2.0
TUNE_EVERY = 1.0
RESCUE_EVERY = 2.5
REPAIR_EVERY = 30.0
PRUNE_EVERY = 60.0
RESCUE_BATCH = 500
PRUNE_BATCH = 500
RETRY_AFTER = 1.0
LEASES_APART = 2
"""A lease that has more than this many times the longest lease left was written by a wrong clock."""

ALONG = 0.25
"""How much of its interval a chore may come early, to be done along with another one."""


@dataclass(eq=False)
class Upkeep:
    """A thread that does each chore of a pool when it is due. A chore that fails is tried again soon."""

    pool: str
    store: Store
    queues: Mapping[str, QueueSettings]
    workers: Workers
    completer: Completer
    turns: Callable[[], int]
    """How many turns the claim loop has begun."""
    record: Callable[[], PoolRecord]
    """Returns the pool as the store keeps it; may ask the store."""
    died: Callable[[BaseException], None]
    """Called if the thread ends by a bug."""

    def __post_init__(self) -> None:
        runtime = self.store.runtime
        self._monotonic = runtime.monotonic
        self._stop = runtime.event()
        self._alarm = runtime.event()
        lease = min(queue.lease for queue in self.queues.values())
        self._heartbeat = Chore(self._report, HEARTBEAT_EVERY)
        self._rescuing = Chore(self._rescue, RESCUE_EVERY)
        gap = max(lease / 3, 2 * TUNE_EVERY)
        self._reachability = Reachability(gap, longest_lease(self.queues) / 3)
        # Else heartbeats alone would not tell of an outage that leases run out in.
        self._told_for = 1.5 * HEARTBEAT_EVERY if gap >= 1.5 * HEARTBEAT_EVERY else 0.0
        self._told_until = 0.0
        self._chores = [
            # First: once the store is back, other pools soon rescue jobs whose leases have run out.
            Chore(self._renew, lease / 3, first=lease / 3),
            self._heartbeat,
            Chore(self._follow_tuning, TUNE_EVERY),
            Chore(lambda: self._lag.check(), TUNE_EVERY),
            self._rescuing,
            Chore(self._reorder, TUNE_EVERY),
            Chore(self._repair, REPAIR_EVERY, first=REPAIR_EVERY),
            Chore(self._prune, PRUNE_EVERY, first=RESCUE_EVERY),
        ]
        now = self._monotonic()
        for chore in self._chores:
            chore.due = now + chore.first
        self._failures = RepeatedFailure(runtime)
        self._turn_monitor = TurnMonitor(self.pool, self.store.alias, HEARTBEAT_EVERY, runtime)
        self._thread: Any = None

    def start(self, loop: AbstractEventLoop) -> None:
        """Begin, on a thread of its own, and watch the event loop that jobs run on."""
        self._lag = LoopLagMonitor(loop, self.workers.slots, TUNE_EVERY, self.store.runtime)
        thread = self.store.runtime.thread(target=self._run, name="jobify-upkeep", daemon=True)
        thread.start()
        self._thread = thread

    def stop(self) -> None:
        """End soon."""
        self._stop.set()
        self._alarm.set()

    def join(self, timeout: float) -> None:
        """Wait for the end, so that no heartbeat of a pool follows after it has retired."""
        if self._thread is not None:
            self._thread.join(timeout)

    def report_soon(self) -> None:
        """Report the pool's state now, instead of at the next heartbeat."""
        self._heartbeat.due = 0.0
        self._alarm.set()

    def _run(self) -> None:
        self.store.open()
        try:
            while not self._stop.is_set():
                now = self._monotonic()
                for chore in self._chores:
                    # What is due soon is done along: waking up costs an idle process more than the work.
                    due = chore.due <= now + chore.every * ALONG and not self._stop.is_set()
                    if due and not self._do(chore):
                        break  # a store that is silent takes its time to fail: leases are due first
                soonest = min(chore.due for chore in self._chores)
                self._alarm.wait(max(0.0, soonest - self._monotonic()))
                self._alarm.clear()
        except BaseException as error:
            self.died(error)
        finally:
            self.store.close()

    def _do(self, chore: Chore) -> bool:
        # Before the work: who hurries a chore while it is done wants it done once more.
        chore.due = self._monotonic() + chore.every * self.store.runtime.uniform(0.8, 1.0)
        try:
            again = chore.work()
        except Exception as error:
            self._complain(error)
            chore.failing = True
            self.store.close()
            # Twice in a lease's third: so that one who is back in time renews in time.
            chore.due = self._monotonic() + min(RETRY_AFTER, chore.every / 2)
            return False
        chore.failing = False
        if again is not None:
            chore.due = self._monotonic() + again
        # On a full disk those that only read work all the time.
        if not any(chore.failing for chore in self._chores) and (times := self._failures.recovered()):
            logger.info("event=upkeep-back failures=%d: every chore works again", times)
        return True

    def _complain(self, error: Exception) -> None:
        # The claim loop says at ERROR that the store is away.
        report = self._failures.fail(error)
        unknown = report is not None and report.new and not isinstance(error, StoreError)
        logger.log(
            logging.DEBUG if report is None else logging.WARNING,
            "event=upkeep-failed error=%r",
            str(error),
            exc_info=error if unknown else None,
        )

    # The chores: some return in how many seconds they are due again; 0 stands for "after the others that are
    # due": leases must not wait for a million jobs

    def _renew(self) -> None:
        by_lease: dict[float, dict[str, int]] = {}
        for running in self.completer.jobs():
            held = by_lease.setdefault(running.slots.settings.lease, {})
            held[running.claim.id] = running.claim.attempt
        for lease, held in by_lease.items():
            with self._noting_reachability():
                renewed = self.store.renew(self.pool, held, lease)
            if self._stop.is_set():
                return  # the pool has perhaps handed them back meanwhile
            for id in renewed.lost:
                self._lose(id, held[id])
            self._cancel(renewed.cancel_requested)

    def _lose(self, id: str, attempt: int) -> None:
        """Give up a job whose lease another pool has taken."""
        running = self.completer.running(id)
        # It may have gone meanwhile. And one that has ended here is not lost: its outcome is on its way, or
        # has just been stored.
        if running is None or running.claim.attempt != attempt or not running.slots.holds(running):
            return
        if "lost" not in running.stop_reasons:
            logger.warning(
                "event=lost id=%s task=%s attempt=%d", quoted(id), quoted(running.claim.task), attempt
            )
            running.stop("lost")

    def _cancel(self, ids: Collection[str]) -> None:
        for running in filter(None, map(self.completer.running, ids)):
            running.stop("cancel")

    def _report(self) -> None:
        # This thread goes on while the claim loop hangs; it must not report the pool as alive then.
        if not self._turn_monitor.check(self.turns()):
            return
        synced = self.store.heartbeat(self.record())
        # If it fails, that may be for a full disk: the next chore tells whether the store can be reached.
        self._reachability.reached(self.store.clock())
        self._take_over(synced)
        now = self._monotonic()
        self._told_until = now + self._told_for
        if synced.leases is not None:
            self._note_leases(*synced.leases, now)

    def _note_leases(self, first: float | None, last: float | None, now: float) -> None:
        """Look for jobs to rescue only if there is a lease that ``rescue`` would do something about."""
        time = self.store.clock()
        if (first is not None and first < time) or (last is not None and last > time + self._max_lease_left):
            self._rescuing.due = min(self._rescuing.due, now)
        elif not self._reachability.wait(time):
            self._reachability.rescued_all()
            self._rescuing.due = now + self._rescuing.every

    def _follow_tuning(self) -> None:
        # Heartbeats, and the looks of the claim loop, tell a pool without jobs all that this would.
        if self.completer.empty and self._monotonic() < self._told_until:
            return
        with self._noting_reachability():
            synced = self.store.sync("" if self.completer.empty else self.pool, list(self.queues))
        self._take_over(synced)

    def _take_over(self, synced: Synced) -> None:
        self.workers.apply(synced.states)
        self._cancel(synced.cancel_requested)

    @contextlib.contextmanager
    def _noting_reachability(self) -> Iterator[None]:
        """Note whether the store could be reached. Not for chores that may fail although it can be."""
        try:
            yield
        except StoreError:
            self._reachability.fail()
            raise
        self._reachability.reached(self.store.clock())

    @property
    def _max_lease_left(self) -> float:
        return LEASES_APART * longest_lease(self.queues)

    def _rescue(self) -> float | None:
        if wait := self._reachability.wait(self.store.clock()):
            return wait
        batch = self.store.rescue(
            limit=RESCUE_BATCH,
            outage=self._reachability.outage,
            max_lease_left=self._max_lease_left,
        )
        for rescued in batch:
            report_rescued(rescued)
        if not batch:
            self._reachability.rescued_all()
        # A short batch is no sign of the end: a claim that passed some of the jobs may have had them locked.
        return 0.0 if batch else None

    def _reorder(self) -> float | None:
        again = None
        for name, slots in self.workers.slots.items():
            if slots.state.reordering:
                began = self._monotonic()
                moved = self.store.reorder(self.queues[name])
                # Somebody may hold the rest for long: looking takes one part in twenty.
                again = 0.0 if moved else max(TUNE_EVERY, 20 * (self._monotonic() - began))
        return again

    def _repair(self) -> None:
        if self.store.repair():
            logger.warning(
                "event=repaired store=%s: the count of waiting jobs was wrong", quoted(self.store.alias)
            )

    def _prune(self) -> float | None:
        settings = get_settings()
        pruned = self.store.prune(
            older_than=settings.retention, failed_older_than=settings.failed_retention, limit=PRUNE_BATCH
        )
        return 0.0 if pruned >= PRUNE_BATCH else None


def longest_lease(queues: Mapping[str, QueueSettings]) -> float:
    """Return the longest lease, in seconds, that this process knows of: a pool rescues from all queues."""
    return max(queue.lease for queue in (*queues.values(), *get_settings().queues.values()))


class Chore:
    """Something to do every so many seconds, or when it returns that it is due again.

    Args:
        work: does it; may return in how many seconds it is due again.
        every: seconds between two times.
        first: seconds until the first time.
    """

    def __init__(self, work: Callable[[], float | None], every: float, *, first: float = 0.0) -> None:
        self.work = work
        self.every = every
        self.first = first
        self.due = 0.0
        self.failing = False
