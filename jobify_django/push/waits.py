"""The pushes of this process that wait for room in one queue."""

from __future__ import annotations

import math

from jobify_django.runtime import Runtime
from jobify_django.stores.value import Added
from jobify_django.waiting.waitlist import Ticket, WaitList

FULL_FOR = 0.5
"""Seconds for which a queue counts as full after a push found it full. The first in the wait list, while it
is able to try, tries more often than that."""


class PushWaits(WaitList[Ticket]):
    """The wait list of pushes that wait for room in one queue, and what a push found there last.

    Attributes:
        last_full: how many jobs waited in the queue when a push last found it full, and its ``maxsize`` then.
    """

    # Values that ``WaitList`` leaves to its subclasses.
    kind = "room"
    shortest_poll = 0.02
    longest_poll = 0.25
    recheck_after = 5.0
    keeps_order = True

    def __init__(self, runtime: Runtime, queue: str) -> None:
        super().__init__(runtime)
        self._queue = queue
        self._full_at = -math.inf
        self.last_full: tuple[int, int] | None = None

    @property
    def recently_full(self) -> bool:
        """Whether a push found the queue full within the last ``FULL_FOR`` seconds."""
        return self._monotonic() - self._full_at < FULL_FOR

    def note_full(self, added: Added) -> None:
        """Record that a push has found the queue full."""
        self.last_full = (added.depth, added.maxsize)
        self._full_at = self._monotonic()

    def _on_notification(self, queue: object) -> None:
        if queue is None or queue == self._queue:
            self.wake_first()

    def _longest_pause(self, took: float) -> float:
        return 1.5 * self.longest_poll  # jittered
