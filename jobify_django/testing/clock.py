"""Time that stands still until a test moves it."""

from __future__ import annotations


class FakeClock:
    """A clock for a store: call it for the time, in seconds since the epoch.

    Args:
        now: what it shows at first.
    """

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        """Return the time."""
        return self.now

    def advance(self, seconds: float) -> None:
        """Let so many seconds pass."""
        self.now += seconds
