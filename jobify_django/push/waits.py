"""The pushes of this process that wait for room in one queue."""

from __future__ import annotations

import math

from jobify_django.runtime import Runtime
from jobify_django.stores.value import Added
from jobify_django.waiting.waitlist import Ticket, WaitList

A_MOMENT = 0.5
"""Seconds for which a queue that was seen full counts as full; a first that can ask looks more often."""


class PushWaits(WaitList[Ticket]):
    """Who waits for room in one queue, and what was seen of it.

    Attributes:
        figures: how deep the queue was when somebody saw it full last, and its bound then.
    """

    kind = "room"
    shortest_poll = 0.02
    longest_poll = 0.25
    patience = 5.0
    keeps_places = True

    def __init__(self, runtime: Runtime, queue: str) -> None:
        super().__init__(runtime)
        self._queue = queue
        self._full_at = -math.inf
        self.figures: tuple[int, int] | None = None

    @property
    def seen_full(self) -> bool:
        """Whether somebody found the queue full a moment ago."""
        return self._monotonic() - self._full_at < A_MOMENT

    def see_full(self, added: Added) -> None:
        """Take down that somebody has found the queue full."""
        self.figures = (added.depth, added.maxsize)
        self._full_at = self._monotonic()

    def _on_hint(self, queue: object) -> None:
        if queue is None or queue == self._queue:
            self.wake_first()

    def _longest_rest(self, took: float) -> float:
        return 1.5 * self.longest_poll  # jittered
