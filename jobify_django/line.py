"""The line of pushes that wait for room in one queue, in this process.

Only the head of the line asks the store, so a thousand waiting pushes cost what one costs, and room that
appears wakes one of them. In a priority queue the line is ordered by priority too: work that must go
first also waits first.
"""

from __future__ import annotations

import bisect
import itertools
import math
import random
import threading
import time
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from functools import partial
from typing import Protocol

from jobify_django.bell import Abandoned, Bell, Call, Pause, Steps
from jobify_django.conf import QueueSettings
from jobify_django.exceptions import QueueFull
from jobify_django.job import JobSpec
from jobify_django.stores.base import Added, Anchor, Store

# The head of a line asks again this often when nothing rings: room made by other processes on a store
# without a way to notice it. In seconds; the pause grows, and is jittered so that processes spread out.
SHORTEST_POLL = 0.02
LONGEST_POLL = 0.25


class Inside(Protocol):
    """What a push needs to know of the pool whose job it is made from."""

    def begin_wait(self, queue: str) -> bool:
        """Say that this job is about to wait for room; ``False`` if no worker would be left to make it."""

    def end_wait(self) -> None:
        """Say that the wait is over."""


inside: ContextVar[Inside | None] = ContextVar("jobify_inside", default=None)


class Admission:
    """Jobs on their way into a store: those already taken, and the rest."""

    # On the class: most pushes are taken at once and never change these.
    anchors: Sequence[Anchor] = ()
    moments: Sequence[float] = ()
    """When each of them was taken, on the store's clock."""
    _taken = 0
    _added: Added | None = None
    _in_transaction: bool | None = None

    def __init__(
        self, line: Line, queue: QueueSettings, specs: Sequence[JobSpec], timeout: float | None
    ) -> None:
        self.line = line
        self.store = line.store
        self.queue = queue
        self.specs = specs
        self._timeout = timeout

    @property
    def overtakes(self) -> bool:
        """Whether it goes before those who wait, if anyone does."""
        if not self.line.busy:
            return True
        head = self.line.head
        if head is None or self._place < head.key[0]:
            return True
        # A delayed job takes no room yet.
        rest = self.specs[self._taken :]
        if any(spec.delay <= 0 and spec.at is None for spec in rest):
            return False
        now = self.store.clock()
        return all(spec.eligible_at(now) > now for spec in rest)

    @property
    def _place(self) -> int:
        order = self.queue.order if self._added is None else self._added.order
        return -self.specs[self._taken].priority if order == "priority" else 0

    def add(self) -> Added:
        """Add as many of the rest as fit; in the caller's transaction all or none."""
        # Asked here, because only the thread that adds knows its connection.
        self._in_transaction = whole = self.store.in_transaction()
        rest = self.specs[self._taken :] if self._taken else self.specs
        return self.store.add(self.queue, rest, whole=whole)

    def note(self, added: Added) -> bool:
        """Take down what ``add`` did, and return whether that was all."""
        self._added = added
        self._taken += added.taken
        moments = [added.now] * added.taken
        self.moments = [*self.moments, *moments] if self.moments else moments
        self.anchors = [*self.anchors, *added.anchors] if self.anchors else added.anchors
        return self._taken == len(self.specs)

    def steps(self, bell: Bell) -> Steps[None]:
        """Add all of the jobs, waiting for room if that is allowed; raises ``QueueFull``."""
        # Before the first look: in async code that may have to wait for its turn on a thread.
        deadline = math.inf if self._timeout is None else time.monotonic() + self._timeout
        if self.overtakes and (yield from self._attempt(self._add_unless_late)):
            return
        if self._timeout == 0:
            raise self._full("The push was not to wait.")
        if self._in_transaction is None:
            self._in_transaction = yield Call(self.store.in_transaction)
        if self._in_transaction:
            raise self._full(
                "A push never waits inside an open transaction: it would hold locks that workers need. "
                "Let the transaction roll back, or push after it."
            )
        job = inside.get()
        if job is not None and not job.begin_wait(self.queue.name):
            raise self._full(
                "The push comes from a job, and every other worker of this queue here waits too, so waiting "
                "could not make room."
            )
        try:
            yield from self._in_line(bell, deadline)
        finally:
            if job is not None:
                job.end_wait()

    def take_back(self) -> Steps[None]:
        """Cancel what was added for a caller who is gone: it must leave no job behind."""
        if self._taken:
            ids = [spec.id for spec in self.specs[: self._taken]]
            yield Call(partial(self.store.cancel, ids), owed=True)

    def _in_line(self, bell: Bell, deadline: float) -> Steps[None]:
        line = self.line
        ticket = line.join(bell, self._place, self.queue.max_waiting_pushes)
        if ticket is None:
            most = self.queue.max_waiting_pushes
            raise self._full(f"{most} pushes of this process wait already (MAX_WAITING_PUSHES).")
        try:
            poll = SHORTEST_POLL
            while True:
                seconds = math.inf
                if line.head is ticket:
                    before = self._taken
                    if (yield from self._attempt()):
                        return
                    poll = SHORTEST_POLL if self._taken > before else min(poll * 1.5, LONGEST_POLL)
                    seconds = poll * random.uniform(0.5, 1.5)
                left = deadline - time.monotonic()
                if left <= 0:
                    raise self._full(f"The push waited {self._timeout:g} s for room.")
                seconds = min(seconds, left)
                yield Pause(None if seconds == math.inf else seconds)
        finally:
            line.leave(ticket)

    def _attempt(self, add: Callable[[], Added | None] | None = None) -> Steps[bool]:
        try:
            added = yield Call(add or self.add)
        except Abandoned as abandoned:
            if abandoned.result is not None:
                self.note(abandoned.result)
            raise
        return added is not None and self.note(added)

    def _add_unless_late(self) -> Added | None:
        # Of many async pushes at once each waits for its turn on a thread. Once the first of them stand in
        # line, the others need not ask the store too.
        return self.add() if self.overtakes else None

    def _full(self, reason: str) -> QueueFull:
        patience = self.queue.push_timeout
        # A push that is refused unasked met a full queue.
        added = self._added or Added(0, self.queue.maxsize, self.queue.maxsize)
        return QueueFull(
            self.queue.name,
            depth=added.depth,
            maxsize=added.maxsize,
            retry_after=min(30, max(1, math.ceil(10 if patience is None else patience))),
            reason=reason,
            taken=self._taken,
        )


class _Ticket:
    __slots__ = ("bell", "key")

    def __init__(self, bell: Bell, key: tuple[int, int]) -> None:
        self.bell = bell
        self.key = key


class Line:
    """Who waits for room in one queue of one store, in order."""

    def __init__(self, store: Store, queue: str) -> None:
        self.store = store
        self._queue = queue
        self._lock = threading.Lock()
        self._tickets: list[_Ticket] = []
        self._arrivals = itertools.count()
        self._unsubscribe: Callable[[], None] | None = None

    @classmethod
    def of(cls, store: Store, queue: str) -> Line:
        """Return the line of a queue."""
        return store.beside(("line", queue), cls, store, queue)

    @property
    def busy(self) -> bool:
        """Whether anyone waits."""
        return bool(self._tickets)

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._tickets)

    @property
    def head(self) -> _Ticket | None:
        """Whose turn it is."""
        with self._lock:
            return self._tickets[0] if self._tickets else None

    def join(self, bell: Bell, place: int, most: int) -> _Ticket | None:
        """Take a place in the line, or return ``None`` if ``most`` wait already."""
        with self._lock:
            if len(self._tickets) >= most:
                return None
            ticket = _Ticket(bell, (place, next(self._arrivals)))
            bisect.insort(self._tickets, ticket, key=lambda ticket: ticket.key)
            if self._unsubscribe is None:
                self._unsubscribe = self.store.hints.subscribe("room", self._on_room)
            return ticket

    def leave(self, ticket: _Ticket) -> None:
        """Leave the line; the next one takes its turn."""
        with self._lock:
            was_head = self._tickets[0] is ticket
            self._tickets.remove(ticket)
            heir = self._tickets[0] if was_head and self._tickets else None
            unsubscribe = None
            if not self._tickets:
                unsubscribe, self._unsubscribe = self._unsubscribe, None
        if heir is not None:
            heir.bell.ring()
        if unsubscribe is not None:
            unsubscribe()

    def _on_room(self, queue: object) -> None:
        if queue is None or queue == self._queue:
            head = self.head
            if head is not None:
                head.bell.ring()
