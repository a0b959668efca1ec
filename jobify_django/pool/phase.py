"""The phases of a pool's life."""

from __future__ import annotations

from enum import IntEnum


class Phase(IntEnum):
    """What a pool does. It goes through these in order, and may leave some out."""

    CLAIMING = 0
    """It starts as many jobs as it has idle workers."""
    STOPPING = 1
    """It was told to claim nothing more; a claim may still be under way."""
    DRAINING = 2
    """Its running jobs have a grace to end."""
    RELEASING = 3
    """The grace is over, or was cut short: what still runs is handed back, and nothing starts."""
    CLOSED = 4
    """It holds no job any more."""


class Phases:
    """Which phase a pool is in. Any thread may ask for a later one, and so may a signal handler."""

    def __init__(self) -> None:
        # Only ever appended to: no step of any thread takes back that of another, and no lock is needed,
        # which a signal handler might find taken by what it interrupts.
        self._entered = [Phase.CLAIMING]

    @property
    def now(self) -> Phase:
        """The latest phase that was entered."""
        return max(self._entered)

    def enter(self, phase: Phase) -> None:
        """Go on to a phase; nothing happens if the pool is further already."""
        self._entered.append(phase)
