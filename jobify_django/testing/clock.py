"""Time that stands still until a test moves it."""

from __future__ import annotations

from dataclasses import replace

from jobify_django.runtime import MACHINE, Runtime


class FakeClock:
    """A clock for a store, as in ``MyStore("mine", FakeClock().runtime())``: call it for the time, in seconds
    since the epoch.

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

    def runtime(self) -> Runtime:
        """Return the machine, but for its clock, which is this one."""
        return replace(MACHINE, clock=self)
