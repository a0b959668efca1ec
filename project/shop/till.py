"""What this process remembers of its producers: how long their pushes took, and whom it turned away."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from jobify_django import QueueFull

REMEMBERED = 80


@dataclass(frozen=True, slots=True)
class Checkout:
    """One checkout: its number, the seconds its pushes took, and whether it was refused."""

    number: int
    seconds: float
    refused: bool


@dataclass
class Till:
    """The checkouts of this process: those under way, how many there were, and the latest."""

    accepted: int = 0
    refused: int = 0
    skipped_visits: int = 0
    latest: deque[Checkout] = field(default_factory=lambda: deque(maxlen=REMEMBERED))
    _began: dict[object, float] = field(default_factory=dict)

    @property
    def waiting(self) -> int:
        """How many checkouts are under way."""
        return len(self._began)

    @property
    def longest(self) -> float | None:
        """The seconds that the oldest checkout under way has waited, or ``None`` without one."""
        began = min(list(self._began.values()), default=None)
        return None if began is None else time.perf_counter() - began

    @contextmanager
    def checkout(self) -> Iterator[None]:
        """Note how long a checkout waited for its pushes, and whether the queue refused it."""
        checkout, began = object(), time.perf_counter()
        self._began[checkout] = began
        try:
            yield
        except QueueFull:
            self.refused += 1
            self._note(time.perf_counter() - began, refused=True)
            raise
        else:
            self.accepted += 1
            self._note(time.perf_counter() - began, refused=False)
        finally:
            del self._began[checkout]

    def _note(self, seconds: float, *, refused: bool) -> None:
        self.latest.append(Checkout(self.accepted + self.refused, seconds, refused))


till = Till()
