"""The line of pushes that wait for room in one queue, in this process.

Only the head of the line asks the store, so a thousand waiting pushes cost what one costs, and room that
appears wakes one of them. In a priority queue the line is ordered by priority too: work that must go
first also waits first.

A head that cannot ask (its thread is busy, its event loop is blocked) is passed over until it can, and no
push is refused by what others saw long ago: it looks itself first.
"""

from __future__ import annotations

import bisect
import contextlib
import itertools
import math
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from functools import partial
from typing import Protocol

from jobify_django.bell import OVERDUE, Abandoned, Bell, Call, Pause, Steps
from jobify_django.conf import QueueSettings
from jobify_django.exceptions import QueueFull
from jobify_django.job import JobSpec
from jobify_django.stores.base import Store
from jobify_django.stores.value import Added, Anchor

# The head of a line asks again this often when nothing rings: room made by other processes on a store
# without a way to notice it. In seconds; the pause grows, and is jittered so that processes spread out.
SHORTEST_POLL = 0.02
LONGEST_POLL = 0.25

LOOK_AT_WORKERS = 1.0
"""Seconds after which a push from inside a job looks whether a worker is left to make room."""

A_MOMENT = 0.5
"""Seconds for which a queue that was seen full counts as full; a head that can ask looks more often."""

LONGEST_WATCH = 5.0
"""Seconds after which everybody in the line looks whether its head asks."""


class Inside(Protocol):
    """What a push or a wait needs to know of the pool whose job it is made from."""

    def begin_wait(self, queue: str, *, anyway: bool = False) -> bool:
        """Say that this job is about to wait for the queue.

        Returns ``False`` if no worker of it is left; then the wait counts only if it goes on ``anyway``.
        """

    def may_go_on(self, queue: str) -> bool:
        """Whether a worker is left still: live tuning may have taken the others meanwhile."""

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
    _deadline: float | None = None

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
        patience = None if self._deadline is None else self._deadline - time.monotonic()
        return self.store.add(self.queue, rest, whole=whole, patience=patience)

    def note(self, added: Added) -> bool:
        """Take down what ``add`` did, and return whether that was all."""
        self._added = added
        self._taken += added.taken
        moments = [added.now] * added.taken
        self.moments = [*self.moments, *moments] if self.moments else moments
        self.anchors = [*self.anchors, *added.anchors] if self.anchors else added.anchors
        if self._taken == len(self.specs):
            return True
        self.line.see_full(added)
        return False

    def steps(self, bell: Bell) -> Steps[None]:
        """Add all of the jobs, waiting for room if that is allowed; raises ``QueueFull``."""
        # Before the first look: in async code that may have to wait for its turn on a thread.
        deadline = math.inf
        if self._timeout is not None:
            deadline = self._deadline = time.monotonic() + self._timeout
        if self.overtakes and (yield from self._attempt(self._add_unless_late)):
            return
        if self._timeout == 0:
            return (yield from self._refuse("The push was not to wait."))
        if self._in_transaction is None:
            self._in_transaction = yield Call(self.store.in_transaction)
        if self._in_transaction:
            reason = (
                "A push never waits inside an open transaction: it would hold locks that workers need. "
                "Let the transaction roll back, or push after it."
            )
            return (yield from self._refuse(reason))
        job = inside.get()
        if job is not None and not job.begin_wait(self.queue.name):
            reason = (
                "The push comes from a job, and every other worker of this queue here waits too, so waiting "
                "could not make room."
            )
            return (yield from self._refuse(reason))
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
            reason = f"{most} pushes of this process wait already (MAX_WAITING_PUSHES)."
            return (yield from self._refuse(reason))
        try:
            poll = SHORTEST_POLL
            while True:
                if line.is_turn_of(ticket):
                    before = self._taken
                    if (yield from self._attempt(self._add_in_turn)):
                        return
                    poll = SHORTEST_POLL if self._taken > before else min(poll * 1.5, LONGEST_POLL)
                    seconds = poll * random.uniform(0.5, 1.5)
                else:
                    seconds = line.patience_of(ticket)
                left = deadline - time.monotonic()
                job = inside.get()
                if job is not None:
                    seconds = min(seconds, LOOK_AT_WORKERS)
                    if not job.may_go_on(self.queue.name):
                        reason = (
                            "The push comes from a job, and no worker of this queue is left here that does "
                            "not wait too (workers were tuned down), so waiting on could not make room."
                        )
                        return (yield from self._refuse(reason))
                if left <= 0:
                    return (yield from self._refuse(f"The push waited {self._timeout:g} s for room."))
                yield Pause(min(seconds, left))
        finally:
            line.leave(ticket)

    def _refuse(self, reason: str) -> Steps[None]:
        """Raise ``QueueFull``, but not without a look: who asks for the others may be unable to."""
        if self.line.seen_full or not (yield from self._attempt(self._add_unless_seen)):
            raise self._full(reason)

    def _attempt(self, add: Callable[[], Added | None]) -> Steps[bool]:
        try:
            added = yield Call(add)
        except Abandoned as abandoned:
            if abandoned.result is not None:
                self.note(abandoned.result)
            raise
        return added is not None and self.note(added)

    def _add_unless_late(self) -> Added | None:
        # Of many async pushes at once each waits for its turn on a thread. Once the first of them stand in
        # line, the others need not ask the store too.
        return self.add() if self.overtakes else None

    def _add_unless_seen(self) -> Added | None:
        # Of many that time out together one looks for all.
        return None if self.line.seen_full else self.add()

    def _add_in_turn(self) -> Added:
        with self.line.asking():
            return self.add()

    def _full(self, reason: str) -> QueueFull:
        patience = self.queue.push_timeout
        # What was seen last, by whomever: this push may never have looked, or long ago.
        depth, maxsize = self.line.figures or (self.queue.maxsize, self.queue.maxsize)
        return QueueFull(
            self.queue.name,
            depth=depth,
            maxsize=maxsize,
            retry_after=min(30, max(1, math.ceil(10 if patience is None else patience))),
            reason=reason,
            taken=self._taken,
        )


class _Ticket:
    __slots__ = ("bell", "key", "silent")

    def __init__(self, bell: Bell, key: tuple[int, int]) -> None:
        self.bell = bell
        self.key = key
        self.silent = False


class Line:
    """Who waits for room in one queue of one store, in order."""

    def __init__(self, store: Store, queue: str) -> None:
        self.store = store
        self._queue = queue
        self._lock = threading.Lock()
        self._tickets: list[_Ticket] = []
        self._arrivals = itertools.count()
        self._asking = 0
        self._due = math.inf
        self._unsubscribe: Callable[[], None] | None = None
        self.figures: tuple[int, int] | None = None
        """How deep the queue was when somebody saw it full last, and its bound then."""
        self._full_at = -math.inf

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
        """Whose turn it is: the first of those who are able to ask, as far as is known."""
        with self._lock:
            return self._first()

    @property
    def seen_full(self) -> bool:
        """Whether somebody found the queue full a moment ago."""
        return time.monotonic() - self._full_at < A_MOMENT

    def see_full(self, added: Added) -> None:
        """Take down that somebody has found the queue full."""
        self.figures = (added.depth, added.maxsize)
        self._full_at = time.monotonic()

    def join(self, bell: Bell, place: int, most: int) -> _Ticket | None:
        """Take a place in the line, or return ``None`` if ``most`` wait already."""
        with self._lock:
            if len(self._tickets) >= most:
                self._tickets = [ticket for ticket in self._tickets if not ticket.bell.dead]
            if len(self._tickets) >= most:
                return None
            ticket = _Ticket(bell, (place, next(self._arrivals)))
            bisect.insort(self._tickets, ticket, key=_key)
            if self._first() is ticket:
                self._due = time.monotonic() + OVERDUE
            if self._unsubscribe is None:
                self._unsubscribe = self.store.hints.subscribe("room", self._on_room)
            return ticket

    def leave(self, ticket: _Ticket) -> None:
        """Leave the line; the next one takes its turn."""
        with self._lock:
            was_head = self._first() is ticket
            with contextlib.suppress(ValueError):  # one of a closed event loop may be out already
                self._tickets.remove(ticket)
            heir = self._first() if was_head else None
            self._due = time.monotonic() + OVERDUE if was_head else self._due
            unsubscribe = None
            if not self._tickets:
                unsubscribe, self._unsubscribe = self._unsubscribe, None
        if heir is not None:
            heir.bell.ring()
        if unsubscribe is not None:
            unsubscribe()

    def is_turn_of(self, ticket: _Ticket) -> bool:
        """Whether this one is to ask the store; who calls is able to.

        When the head has not begun to ask in its time, all before this one are passed over until they call.
        """
        with self._lock:
            ticket.silent = False
            if self._first() is ticket:
                return True
            if self._asking or time.monotonic() < self._due:
                return False
            before = self._tickets[: bisect.bisect_left(self._tickets, ticket.key, key=_key)]
            for other in before:
                other.silent = True
            self._due = time.monotonic() + OVERDUE
        for other in before:
            other.bell.ring()
        return False  # not yet: those before it who are able to call have a moment for that

    def patience_of(self, ticket: _Ticket) -> float:
        """Seconds until this one must look again whether the head asks: the nearer to it, the sooner."""
        with self._lock:
            if self._first() is ticket:
                return SHORTEST_POLL
            rank = bisect.bisect_left(self._tickets, ticket.key, key=_key)
            return max(0.0, self._due - time.monotonic()) + min(OVERDUE * rank, LONGEST_WATCH)

    @contextlib.contextmanager
    def asking(self) -> Iterator[None]:
        """The head asks while the block runs; it may take long then."""
        with self._lock:
            self._asking += 1
        try:
            yield
        finally:
            with self._lock:
                self._asking -= 1
                self._due = time.monotonic() + 1.5 * LONGEST_POLL + OVERDUE

    def _first(self) -> _Ticket | None:
        while self._tickets and self._tickets[0].bell.dead:
            del self._tickets[0]
        able = (ticket for ticket in self._tickets if not ticket.silent and not ticket.bell.dead)
        return next(able, None)

    def _on_room(self, queue: object) -> None:
        if queue is None or queue == self._queue:
            head = self.head
            if head is not None:
                head.bell.ring()


def _key(ticket: _Ticket) -> tuple[int, int]:
    return ticket.key
