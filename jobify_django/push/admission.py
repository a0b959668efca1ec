"""The way of jobs into a full queue: waiting for room, in order, and being refused.

In a priority queue the pushes that wait are ordered by priority too: work that must go first also waits
first. No push is refused by what others saw long ago: it looks itself first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

from jobify_django.current import LOOK_AT_WORKERS, inside
from jobify_django.exceptions import QueueFull
from jobify_django.job import JobSpec
from jobify_django.push.route import Route
from jobify_django.stores.value import Added, LiveJob
from jobify_django.waiting.waitlist import Ticket
from jobify_django.waiting.waker import Abandoned, Call, Pause, Steps, Waker

IN_TRANSACTION = (
    "A push never waits inside an open transaction: it would hold locks that workers need. Let the "
    "transaction roll back, or push after it."
)
ALL_WAIT = (
    "The push comes from a job, and every other worker of this queue here waits too, so waiting could not "
    "make room."
)
NONE_LEFT = (
    "The push comes from a job, and no worker of this queue is left here that does not wait too (workers "
    "were tuned down), so waiting on could not make room."
)


class Admission:
    """Jobs on their way into a store: those already taken, and the rest."""

    # On the class: most pushes are taken at once and never change these.
    jobs: Sequence[LiveJob] = ()
    moments: Sequence[float] = ()
    """When each of them was taken, on the store's clock."""
    _taken = 0
    _added: Added | None = None
    _in_transaction: bool | None = None
    _deadline = math.inf

    def __init__(self, route: Route, specs: Sequence[JobSpec]) -> None:
        self._route = route
        self._waits = route.waits
        self._runtime = route.store.runtime
        self._specs = specs

    def steps(self, waker: Waker) -> Steps[None]:
        """Add all of the jobs, waiting for room if that is allowed; raises ``QueueFull``."""
        route = self._route
        # Before the first look: in async code that may have to wait for its turn on a thread.
        if route.timeout is not None:
            self._deadline = self._runtime.monotonic() + route.timeout
        if self._overtakes and (yield from self._attempt(self._add_unless_late)):
            return
        if route.timeout == 0:
            return (yield from self._refuse("The push was not to wait."))
        if self._in_transaction is None:
            self._in_transaction = yield Call(route.store.in_transaction)
        if self._in_transaction:
            return (yield from self._refuse(IN_TRANSACTION))
        job = inside.get()
        if job is not None and not job.begin_wait(route.queue.name):
            return (yield from self._refuse(ALL_WAIT))
        try:
            yield from self._wait(waker)
        finally:
            if job is not None:
                job.end_wait()

    def take_back(self) -> Steps[None]:
        """Cancel what was added for a caller who is gone: it must leave no job behind."""
        if self._taken:
            ids = [spec.id for spec in self._specs[: self._taken]]
            yield Call(partial(self._route.store.cancel, ids), owed=True)

    def _wait(self, waker: Waker) -> Steps[None]:
        ticket = Ticket(waker, self._place)
        most = self._route.queue.max_waiting_pushes
        if not self._waits.join(ticket, self._route.store.listen, most):
            reason = f"{most} pushes of this process wait already (MAX_WAITING_PUSHES)."
            return (yield from self._refuse(reason))
        try:
            yield from self._until_added(ticket)
        finally:
            self._waits.leave(ticket)

    def _until_added(self, ticket: Ticket) -> Steps[None]:
        waits = self._waits
        poll = waits.shortest_poll
        while True:
            if waits.is_turn_of(ticket):
                before = self._taken
                if (yield from self._attempt(self._add_in_turn)):
                    return
                poll = waits.shortest_poll if self._taken > before else min(poll * 1.5, waits.longest_poll)
                seconds = poll * self._runtime.uniform(0.5, 1.5)  # so that processes spread out
            else:
                seconds = waits.patience_of(ticket)
            left = self._deadline - self._runtime.monotonic()
            if (job := inside.get()) is not None:
                seconds = min(seconds, LOOK_AT_WORKERS)
                if not job.may_go_on(self._route.queue.name):
                    return (yield from self._refuse(NONE_LEFT))
            if left <= 0:
                return (yield from self._refuse(f"The push waited {self._route.timeout:g} s for room."))
            yield Pause(min(seconds, left))

    def _refuse(self, reason: str) -> Steps[None]:
        """Raise ``QueueFull``, but not without a look: who asks for the others may be unable to."""
        if self._waits.seen_full or not (yield from self._attempt(self._add_unless_seen)):
            raise self._full(reason)

    def _full(self, reason: str) -> QueueFull:
        queue = self._route.queue
        patience = queue.push_timeout
        # What was seen last, by whomever: this push may never have looked, or long ago.
        depth, maxsize = self._waits.figures or (queue.maxsize, queue.maxsize)
        return QueueFull(
            queue.name,
            depth=depth,
            maxsize=maxsize,
            retry_after=min(30, max(1, math.ceil(10 if patience is None else patience))),
            reason=reason,
            taken=self._taken,
        )

    @property
    def _overtakes(self) -> bool:
        """Whether it goes before those who wait, if anyone does."""
        if not self._waits.busy:
            return True
        first = self._waits.first
        if first is None or self._place < first.key[0]:
            return True
        # A delayed job takes no room yet.
        rest = self._specs[self._taken :]
        if any(spec.delay <= 0 and spec.at is None for spec in rest):
            return False
        now = self._route.store.clock()
        return all(spec.eligible_at(now) > now for spec in rest)

    @property
    def _place(self) -> int:
        order = self._route.queue.order if self._added is None else self._added.order
        return -self._specs[self._taken].priority if order == "priority" else 0

    # Adding

    def _attempt(self, add: Callable[[], Added | None]) -> Steps[bool]:
        try:
            added = yield Call(add)
        except Abandoned as abandoned:
            if abandoned.result is not None:
                self._note(abandoned.result)
            raise
        return added is not None and self._note(added)

    def _add_unless_late(self) -> Added | None:
        # Of many async pushes at once each waits for its turn on a thread. Once the first of them stand in
        # line, the others need not ask the store too.
        return self._add() if self._overtakes else None

    def _add_unless_seen(self) -> Added | None:
        # Of many that time out together one looks for all.
        return None if self._waits.seen_full else self._add()

    def _add_in_turn(self) -> Added:
        with self._waits.asking():
            return self._add()

    def _add(self) -> Added:
        """Add as many of the rest as fit; in the caller's transaction all or none."""
        store, queue, timeout = self._route.store, self._route.queue, self._route.timeout
        # Asked here, because only the thread that adds knows its connection.
        self._in_transaction = whole = store.in_transaction()
        rest = self._specs[self._taken :] if self._taken else self._specs
        patience = None if timeout is None else self._deadline - self._runtime.monotonic()
        return store.add(queue, rest, whole=whole, patience=patience)

    def _note(self, added: Added) -> bool:
        """Take down what ``_add`` did, and return whether that was all."""
        self._added = added
        self._taken += added.taken
        moments = [added.now] * added.taken
        self.moments = [*self.moments, *moments] if self.moments else moments
        self.jobs = [*self.jobs, *added.jobs] if self.jobs else added.jobs
        if self._taken == len(self._specs):
            return True
        self._waits.see_full(added)
        return False
