"""Waiting for jobs to end. One of the waiting callers asks the store for all of them, and no wait times out
without having asked once more itself. (A live job needs nobody to ask: ``jobify_django.waiting.live``.)"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import cast

from jobify_django.current import current
from jobify_django.job import JobRecord
from jobify_django.runtime import Runtime
from jobify_django.stores.base import Store
from jobify_django.stores.value import LiveJob
from jobify_django.waiting.awaited import Awaited, WorkerCheck, timed_out
from jobify_django.waiting.live import live_end
from jobify_django.waiting.waitlist import Ticket, WaitList
from jobify_django.waiting.waker import BlockingCall, Pause, Steps, Waker


def until_ended(
    store: Store, id: str, live: LiveJob | None, timeout: float | None, waker: Waker
) -> Steps[JobRecord]:
    """Return the job's record once it has ended. A ``live`` one is waited for instead of asking the store.

    Raises ``WaitTimeout`` after ``timeout`` seconds, ``JobNotFound`` if the store does not hold the job, and
    ``WaitDeadlock`` if no worker could run it meanwhile: none sees it, or each of them waits.
    """
    awaited = Awaited(store, id, live)
    record = yield from awaited.read_committed(timeout)
    if record.status.ended:
        return record
    job = current.get()
    if job is None or timeout == 0:  # 0 only looks
        return (yield from _end_of(awaited, timeout, waker))
    worker_check = WorkerCheck(awaited, record.queue, job)
    left = job.begin_wait(record.queue, anyway=True)
    try:
        if not left:
            yield from worker_check.assert_others()
        return (yield from _end_of(awaited, timeout, waker, worker_check))
    finally:
        job.end_wait()


def _end_of(
    awaited: Awaited, timeout: float | None, waker: Waker, worker_check: WorkerCheck | None = None
) -> Steps[JobRecord]:
    if awaited.live is None:
        return ResultWait(waker, awaited, timeout, worker_check).steps()
    return live_end(awaited.live, timeout, waker, awaited.store.runtime.monotonic, worker_check)


class ResultWait(Ticket):
    """One wait for one job's end, as its store tells it."""

    __slots__ = (
        "_checked",
        "_monotonic",
        "_poll",
        "_timeout",
        "_until",
        "_worker_check",
        "awaited",
        "done",
        "notified",
        "record",
    )

    def __init__(
        self, waker: Waker, awaited: Awaited, timeout: float | None, worker_check: WorkerCheck | None = None
    ) -> None:
        super().__init__(waker)
        self.awaited = awaited
        self.notified = False
        self.done = False
        self.record: JobRecord | None = None
        self._monotonic = awaited.store.runtime.monotonic
        self._timeout = timeout
        self._until = math.inf if timeout is None else self._monotonic() + timeout
        self._worker_check = worker_check
        self._poll = ResultWaits.shortest_poll
        self._checked = True

    def steps(self) -> Steps[JobRecord]:
        """Wait, and return the job's record."""
        waits = self.awaited.store.process_local(ResultWaits)
        waits.join(self, self.awaited.store.listen)
        try:
            # Once more: the job may have ended before this wait was in the list.
            if (ended := (yield from self.awaited.ended())) is not None:
                return ended
            return (yield from self._until_notified(waits))
        finally:
            waits.leave(self)

    def _until_notified(self, waits: ResultWaits) -> Steps[JobRecord]:
        while True:
            my_turn = waits.may_ask_now(self)
            seconds = (yield from self._ask(waits)) if my_turn else waits.recheck_seconds(self)
            if self.done:
                return self.awaited.found(self.record)
            left = self._until - self._monotonic()
            if left <= 0:
                return (yield from self._check_last())
            seconds = min(seconds, left)
            if self._worker_check is not None:
                yield from self._worker_check.check()
                seconds = max(0.0, min(seconds, self._worker_check.next_check - self._monotonic()))
            yield Pause(seconds)
            self._checked = self.notified
            if self.notified:
                self.notified = False
                if (ended := (yield from self.awaited.ended())) is not None:
                    return ended

    def _ask(self, waits: ResultWaits) -> Steps[float]:
        """Ask for all, unless it is too early to; returns the seconds until the next time."""
        began = self._monotonic()
        if began < waits.not_before:
            return waits.not_before - began
        yield BlockingCall(partial(waits.ask, self.awaited.store))
        # However many wait and however often they are woken, asking takes a third of the time.
        waits.not_before = began + 3 * (self._monotonic() - began)
        self._checked = True
        self._poll = min(self._poll * 1.5, waits.longest_poll)
        return self._poll

    def _check_last(self) -> Steps[JobRecord]:
        # The one that asks for all may be unable to.
        if not self._checked and (ended := (yield from self.awaited.ended())) is not None:
            return ended
        raise timed_out(self.awaited.id, self._timeout)


class ResultWaits(WaitList[ResultWait]):
    """All the waits of this process for jobs of one store."""

    kind = "ended"
    shortest_poll = 0.05
    longest_poll = 1.0
    recheck_after = 15.0
    keeps_order = False

    def __init__(self, runtime: Runtime) -> None:
        super().__init__(runtime)
        self._by_id: dict[str, list[ResultWait]] = {}

    def ask(self, store: Store) -> None:
        """Read the jobs for all, and hand out what was found: ended jobs, and jobs that are gone."""
        with self._lock:
            ids = list(self._by_id)
        with self.asking():
            records = store.get(ids)
        with self._lock:
            for id in ids:
                for wait in self._by_id.get(id, ()):
                    record = records.get(id)
                    if record is None or record.status.ended:
                        wait.done, wait.record = True, record
                        wait.waker.wake()

    def _on_notification(self, ids: object) -> None:
        if ids is None:
            self.wake_first()
            return
        with self._lock:
            waits = [wait for id in cast(Sequence[str], ids) for wait in self._by_id.get(id, ())]
        for wait in waits:
            wait.notified = True
            wait.waker.wake()

    def _longest_pause(self, took: float) -> float:
        return max(self.longest_poll, 3 * took)

    def _insert(self, ticket: ResultWait) -> None:
        super()._insert(ticket)
        self._by_id.setdefault(ticket.awaited.id, []).append(ticket)

    def _remove(self, ticket: ResultWait) -> bool:
        found = super()._remove(ticket)
        if found:
            same = self._by_id[ticket.awaited.id]
            same.remove(ticket)
            if not same:
                del self._by_id[ticket.awaited.id]
        return found
