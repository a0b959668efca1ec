"""Admission: adding jobs to a queue, waiting for room while the queue is full, and refusing the push.

The pushes that wait are in a wait list; in a priority queue they stand in the order of their jobs' priority.
Only the first in the list tries to add; once its jobs are accepted, the next one is the first. No push is
refused for what another one found more than ``FULL_FOR`` seconds ago: it tries once more itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

from jobify_django.current import CHECK_WORKERS_EVERY, current
from jobify_django.exceptions import QueueFull
from jobify_django.job import JobSpec
from jobify_django.push.plan import PushPlan
from jobify_django.stores.value import Added, LiveJob
from jobify_django.waiting.waitlist import Ticket
from jobify_django.waiting.waker import BlockingCall, CancelledDuringCall, Pause, Steps, Waker

# Why a push is refused: a sentence of the error ``QueueFull``.
REFUSED_IN_TRANSACTION = (
    "A push never waits inside an open transaction on the store's database: it would hold locks that workers "
    "need. Let the transaction roll back, or push after it."
)
REFUSED_ALL_WAIT = (
    "The push comes from a job, and every other worker of this queue here waits too, so waiting could not "
    "make room."
)
REFUSED_NONE_LEFT = (
    "The push comes from a job, and no worker of this queue is left here that does not wait too (workers "
    "were tuned down), so waiting on could not make room."
)


class Admission:
    """One push on its way into a queue: which of its jobs the store has accepted, and how the rest is added.

    Attributes:
        accepted: how many jobs the store has accepted so far: always the first ones.
        jobs: the accepted jobs, from a store that lets them be read without a call; otherwise empty.
        pushed_at: when each of the accepted jobs was added, on the store's clock.
    """

    # The values before the first try.
    accepted = 0
    jobs: Sequence[LiveJob] = ()
    pushed_at: Sequence[float] = ()
    _added: Added | None = None
    _in_transaction: bool | None = None
    _deadline = math.inf

    def __init__(self, plan: PushPlan, specs: Sequence[JobSpec]) -> None:
        self._plan = plan
        self._waits = plan.waits
        self._runtime = plan.store.runtime
        self._specs = specs

    def steps(self, waker: Waker) -> Steps[None]:
        """Add all of the jobs, waiting for room if that is allowed; raises ``QueueFull``."""
        plan = self._plan
        # The time runs from before the first try: in async code the try waits for Django's thread, which may
        # be busy.
        if plan.timeout is not None:
            self._deadline = self._runtime.monotonic() + plan.timeout
        if self._may_try_now and (yield from self._try_to_add(self._add_if_may_try_now)):
            return
        if plan.timeout == 0:
            return (yield from self._add_or_refuse("The push was not to wait."))
        if self._in_transaction is None:
            self._in_transaction = yield BlockingCall(plan.store.in_transaction)
        if self._in_transaction:
            return (yield from self._add_or_refuse(REFUSED_IN_TRANSACTION))
        pushing_job = current.get()
        if pushing_job is not None and not pushing_job.begin_wait(plan.queue.name):
            return (yield from self._add_or_refuse(REFUSED_ALL_WAIT))
        try:
            yield from self._wait(waker)
        finally:
            if pushing_job is not None:
                pushing_job.end_wait()

    def cancel_added(self) -> Steps[None]:
        """Cancel the accepted jobs, because the caller was cancelled and gets no handles of them."""
        if self.accepted:
            ids = [spec.id for spec in self._specs[: self.accepted]]
            yield BlockingCall(partial(self._plan.store.cancel, ids), even_if_cancelled=True)

    def _wait(self, waker: Waker) -> Steps[None]:
        """Be in the wait list until the jobs are added."""
        ticket = Ticket(waker, self._rank)
        limit = self._plan.queue.max_waiting_pushes
        if not self._waits.join(ticket, self._plan.store.listen, limit):
            reason = f"{limit} pushes of this process wait already (MAX_WAITING_PUSHES)."
            return (yield from self._add_or_refuse(reason))
        try:
            yield from self._until_added(ticket)
        finally:
            self._waits.leave(ticket)

    def _until_added(self, ticket: Ticket) -> Steps[None]:
        """Try whenever this push is the first in the wait list, and pause in between, until all jobs are
        accepted."""
        waits = self._waits
        poll = waits.shortest_poll
        while True:
            if waits.may_ask_now(ticket):
                before = self.accepted
                if (yield from self._try_to_add(self._add_as_first)):
                    return
                poll = waits.shortest_poll if self.accepted > before else min(poll * 1.5, waits.longest_poll)
                seconds = poll * self._runtime.uniform(0.5, 1.5)  # so that processes spread out
            else:
                seconds = waits.recheck_seconds(ticket)
            left = self._deadline - self._runtime.monotonic()
            if (pushing_job := current.get()) is not None:
                seconds = min(seconds, CHECK_WORKERS_EVERY)
                if not pushing_job.may_keep_waiting(self._plan.queue.name):
                    return (yield from self._add_or_refuse(REFUSED_NONE_LEFT))
            if left <= 0:
                reason = f"The push waited {self._plan.timeout:g} s for room."
                return (yield from self._add_or_refuse(reason))
            yield Pause(min(seconds, left))

    # Trying to add

    def _try_to_add(self, add: Callable[[], Added | None]) -> Steps[bool]:
        """Add jobs by one of the functions below; return whether all are accepted now."""
        try:
            added = yield BlockingCall(add)
        except CancelledDuringCall as cancelled:  # the call ran on, and this is what it did
            if cancelled.result is not None:
                self._record(cancelled.result)
            raise
        return added is not None and self._record(added)

    def _add_if_may_try_now(self) -> Added | None:
        # Each of many async pushes waits for Django's thread. Once the first of them are in the wait list,
        # the others need not try.
        return self._add() if self._may_try_now else None

    def _add_unless_recently_full(self) -> Added | None:
        # Of many pushes that time out together, one try is enough for all of them.
        return None if self._waits.recently_full else self._add()

    def _add_as_first(self) -> Added:
        # So that the others know that the first is trying, and do not skip it if the store takes long.
        with self._waits.asking():
            return self._add()

    def _add(self) -> Added:
        """Add as many of the rest as fit; in a transaction on the store's database all of them or none."""
        store, queue, timeout = self._plan.store, self._plan.queue, self._plan.timeout
        # Asked here, because only the thread that adds knows its connection.
        self._in_transaction = all_or_nothing = store.in_transaction()
        rest = self._specs[self.accepted :] if self.accepted else self._specs
        # Seconds the store may wait for locks of other transactions: what is left of the push's timeout.
        lock_timeout = None if timeout is None else self._deadline - self._runtime.monotonic()
        return store.add(queue, rest, all_or_nothing=all_or_nothing, lock_timeout=lock_timeout)

    def _record(self, added: Added) -> bool:
        """Record what ``_add`` did; return whether all of the jobs are accepted now."""
        self._added = added
        self.accepted += added.taken
        pushed_at = [added.now] * added.taken
        self.pushed_at = [*self.pushed_at, *pushed_at] if self.pushed_at else pushed_at
        self.jobs = [*self.jobs, *added.jobs] if self.jobs else added.jobs
        if self.accepted == len(self._specs):
            return True
        self._waits.note_full(added)
        return False

    # The order of those who wait

    @property
    def _may_try_now(self) -> bool:
        """Whether this push may try at once: no other waits, it would be the first, or it needs no room."""
        if not self._waits.busy:
            return True
        first = self._waits.first
        if first is None or self._rank < first.rank:
            return True
        # A delayed job needs no room yet.
        rest = self._specs[self.accepted :]
        if any(spec.delay <= 0 and spec.at is None for spec in rest):
            return False
        now = self._plan.store.clock()
        return all(spec.eligible_at(now) > now for spec in rest)

    @property
    def _rank(self) -> int:
        """Its rank in the wait list: the lower, the further in front. Its jobs have one priority."""
        order = self._plan.queue.order if self._added is None else self._added.order
        return -self._specs[self.accepted].priority if order == "priority" else 0

    # Being refused

    def _add_or_refuse(self, reason: str) -> Steps[None]:
        """Try to add once more; raise ``QueueFull`` for this reason unless all jobs are accepted then."""
        if not (yield from self._try_once_more()):
            raise self._queue_full(reason)

    def _try_once_more(self) -> Steps[bool]:
        """Try to add, unless a push of this process has just found the queue full.

        A push that has waited may never have tried: the first in the wait list tries for all, and it may be
        unable to, because its thread is busy or its event loop is blocked.
        """
        if self._waits.recently_full:
            return False
        return (yield from self._try_to_add(self._add_unless_recently_full))

    def _queue_full(self, reason: str) -> QueueFull:
        queue = self._plan.queue
        # The queue's timeout, also if this push has its own; 10 s if pushes wait for ever. Within 1 to 30 s.
        seconds = 10 if queue.push_timeout is None else queue.push_timeout
        # What a push of this process found last: this one may never have tried, or earlier.
        depth, maxsize = self._waits.last_full or (queue.maxsize, queue.maxsize)
        return QueueFull(
            queue.name,
            depth=depth,
            maxsize=maxsize,
            retry_after=min(30, max(1, math.ceil(seconds))),
            reason=reason,
            taken=self.accepted,
        )
