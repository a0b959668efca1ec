"""Telling once what goes wrong again and again: a loop that tries each second must not fill a disk."""

from __future__ import annotations

import re
from typing import NamedTuple

from jobify_django.runtime import MACHINE, Runtime

SAY_AGAIN = 60.0
"""Seconds until a trouble that lasts is told again; twice as long each time."""

LONGEST_SILENCE = 3600.0
"""Seconds between two words about it, at most."""

FORGOTTEN = 600.0
"""Seconds without a failure after which the next one is a new trouble, also if nobody said it was over."""

MOST_KINDS = 10
"""Different errors of one trouble that are told at once; more are perhaps one that never reads the same."""


class Word(NamedTuple):
    """What is to be told now.

    Attributes:
        new: whether this error was not told yet, so that its traceback is news.
        times: how many failures there were by now, this one included.
    """

    new: bool
    times: int


class Outage:
    """A trouble that may last: told at once, told again when the error changes, otherwise at a falling rate,
    and once when it is over.

    Threads may share one; at worst two of them tell the same.

    Args:
        runtime: the machine it reads the time of.
        again: seconds until it is told again; twice as long each time.
        longest: seconds between two words about it, at most.
    """

    def __init__(
        self, runtime: Runtime = MACHINE, *, again: float = SAY_AGAIN, longest: float = LONGEST_SILENCE
    ) -> None:
        self._monotonic = runtime.monotonic
        self._again = again
        self._longest = longest
        self._begin()

    def _begin(self) -> None:
        self._told: set[str] = set()
        self._times = 0
        self._pause = self._again
        self._due = self._last = 0.0

    def fail(self, what: object) -> Word | None:
        """Note a failure (an exception, or its name); return what to tell of it, or ``None`` for nothing."""
        now = self._monotonic()
        if self._times and now - self._last > max(FORGOTTEN, 2 * self._pause):
            self._begin()
        self._last = now
        self._times += 1
        kind = _kind(what)
        new = kind not in self._told and len(self._told) < MOST_KINDS
        if new:
            self._told.add(kind)
        elif now < self._due:
            return None
        else:
            self._pause = min(2 * self._pause, self._longest)
        self._due = now + self._pause
        return Word(new, self._times)

    def over(self, quiet: float = 0.0) -> int:
        """Note that it works; return how many failures there were since it last did.

        With ``quiet``, the last of them must be so many seconds ago: where several look, one may still fail
        at what another one does not ask for.
        """
        times = self._times
        if not times or self._monotonic() - self._last < quiet:
            return 0
        self._begin()
        return times


def _kind(what: object) -> str:
    """Return what two errors of one kind have in common: not the ports and process ids in them."""
    try:
        text = str(what)
    except Exception:
        text = ""
    return f"{type(what).__qualname__} {re.sub(r'[0-9]+', '#', text)}"
