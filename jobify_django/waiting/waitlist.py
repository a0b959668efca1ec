"""The wait list: who waits in this process for the same thing, for room in a queue or for jobs to end.

Only the first asks the store, so that ten thousand who wait cost one query a poll, and what happens wakes as
few of them as it can. A first that cannot ask (its thread is busy, its event loop is blocked) is skipped.
"""

from __future__ import annotations

import bisect
import contextlib
import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from operator import attrgetter
from typing import ClassVar, Generic, TypeVar

from jobify_django.runtime import Runtime
from jobify_django.stores.notifier import Kind, Listener
from jobify_django.waiting.waker import Waker

OVERDUE = 1.0
"""Seconds after which the first, if it was to ask for all and has not begun to, is taken to be unable to: its
thread is busy with something else, or its event loop is blocked. Another one asks then."""

by_key = attrgetter("key")


class Ticket:
    """One waiting caller. The lower the ``rank`` it is made with, the further in front; among equals the
    first to come is the first."""

    __slots__ = ("key", "skipped", "waker")

    def __init__(self, waker: Waker, rank: int = 0) -> None:
        self.waker = waker
        self.key = (rank, 0)  # the rank, then the number of arrival in the list
        self.skipped = False

    @property
    def rank(self) -> int:
        """The rank it was made with, or that of the ticket it was put in front of."""
        return self.key[0]


Listen = Callable[[Kind, Listener], Callable[[], None]]
T = TypeVar("T", bound=Ticket)


class WaitList(ABC, Generic[T]):
    """The waiting callers, in order.

    Attributes:
        kind: the notifications that may end a wait; they are listened for while anyone waits.
        shortest_poll: seconds after which the first asks again when nothing wakes it: other processes may
            have changed something on a store without a way to notice it. The pause grows.
        longest_poll: what it grows to.
        recheck_after: seconds after which every ticket checks whether the first still asks.
        keeps_order: whether tickets that are skipped keep their places, and are woken so that they can
            ask before another one does; otherwise the ticket that finds the first overdue is put in front of
            it, and asks at once.
        not_before: when the first may ask again, at the earliest.
    """

    kind: ClassVar[Kind]
    shortest_poll: ClassVar[float]
    longest_poll: ClassVar[float]
    recheck_after: ClassVar[float]
    keeps_order: ClassVar[bool]

    def __init__(self, runtime: Runtime) -> None:
        self._monotonic = runtime.monotonic
        self._lock = runtime.lock()
        self._tickets: list[T] = []
        self._arrivals = itertools.count()
        self._asking = 0
        self._due = math.inf
        self._unsubscribe: Callable[[], None] | None = None
        self.not_before = 0.0

    @property
    def busy(self) -> bool:
        """Whether anyone waits."""
        return bool(self._tickets)

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._tickets)

    @property
    def first(self) -> T | None:
        """Who asks for all: the first of those who are able to, as far as is known."""
        with self._lock:
            return self._first()

    def join(self, ticket: T, listen: Listen, limit: float = math.inf) -> bool:
        """Take a place in the list; returns ``False`` if ``limit`` wait already.

        Args:
            ticket: who waits.
            listen: the store's; a notification lets the first ask again.
            limit: how many may wait.
        """
        with self._lock:
            if len(self._tickets) >= limit:
                for gone in [one for one in self._tickets if one.waker.dead]:
                    self._remove(gone)
                if len(self._tickets) >= limit:
                    return False
            ticket.key = (ticket.rank, next(self._arrivals))
            self._insert(ticket)
            if self._first() is ticket:
                self._due = self._monotonic() + OVERDUE
            if self._unsubscribe is None:
                self._unsubscribe = listen(self.kind, self._on_notification)
        return True

    def leave(self, ticket: T) -> None:
        """Leave the list. If this was the first, the one that is the first now is woken, to ask."""
        successor = unsubscribe = None
        with self._lock:
            was_first = self._first() is ticket
            self._remove(ticket)
            if was_first:
                successor = self._first()
                self._due = max(self._monotonic(), self.not_before) + OVERDUE
            if not self._tickets:
                unsubscribe, self._unsubscribe = self._unsubscribe, None
        if successor is not None:
            successor.waker.wake()
        if unsubscribe is not None:
            unsubscribe()

    def may_ask_now(self, ticket: T) -> bool:
        """Return whether this ticket is to ask the store now; calling this shows that it is able to.

        If the first has not begun to ask in its time: with ``keeps_order``, all before this one are skipped
        from now on, and woken, and the answer is ``False``; otherwise this one is put first and may ask.
        """
        with self._lock:
            ticket.skipped = False
            if self._first() is ticket:
                return True
            if self._asking or self._monotonic() < self._due:
                return False
            self._due = self._monotonic() + OVERDUE
            if not self.keeps_order:
                self._put_first(ticket)
                return True
            before = self._tickets[: self._index_of(ticket)]
            for other in before:
                other.skipped = True
        for other in before:
            other.waker.wake()
        return False

    def recheck_seconds(self, ticket: T) -> float:
        """Return in how many seconds this ticket must check again whether the first asks: the nearer it is
        to the first, the sooner."""
        with self._lock:
            if self._first() is ticket:
                return 0.0
            rest = max(0.0, self._due - self._monotonic())
            return rest + min(OVERDUE * self._index_of(ticket), self.recheck_after)

    @contextlib.contextmanager
    def asking(self) -> Iterator[None]:
        """Note that the first asks while the block runs: it is not skipped, however long that takes."""
        began = self._monotonic()
        with self._lock:
            self._asking += 1
        try:
            yield
        finally:
            now = self._monotonic()
            with self._lock:
                self._asking -= 1
                self._due = now + self._longest_pause(now - began) + OVERDUE

    def wake_first(self) -> None:
        """Let the first ask now."""
        first = self.first
        if first is not None:
            first.waker.wake()

    @abstractmethod
    def _on_notification(self, about: object) -> None:
        """Wake the tickets that a notification is about; ``None`` may be about any of them."""

    @abstractmethod
    def _longest_pause(self, took: float) -> float:
        """Seconds after which the first asks again at the latest, if asking took so long."""

    # All of this with the lock held

    def _first(self) -> T | None:
        while self._tickets and self._tickets[0].waker.dead:
            self._remove(self._tickets[0])
        return next((one for one in self._tickets if not (one.skipped or one.waker.dead)), None)

    def _index_of(self, ticket: T) -> int:
        return bisect.bisect_left(self._tickets, ticket.key, key=by_key)

    def _insert(self, ticket: T) -> None:
        bisect.insort(self._tickets, ticket, key=by_key)

    def _remove(self, ticket: T) -> bool:
        """Take one out; returns ``False`` if it is out already, as one of a closed event loop may be."""
        index = self._index_of(ticket)
        found = self._tickets[index : index + 1] == [ticket]
        if found:
            del self._tickets[index]
        return found

    def _put_first(self, ticket: T) -> None:
        self._remove(ticket)
        rank, number = self._tickets[0].key
        ticket.key = (rank, number - 1)
        self._insert(ticket)
