"""Reporting a failure that repeats: at once, then less and less often, so that no loop fills a disk."""

from __future__ import annotations

import re
from typing import NamedTuple

from jobify_django.runtime import MACHINE, Runtime

REPORT_AGAIN = 60.0
"""Seconds until a failure that lasts is reported again; twice as long each time."""

LONGEST_SILENCE = 3600.0
"""Seconds between two reports of it, at most."""

FORGOTTEN = 600.0
"""Seconds without a failure after which the next one is a new one, also if no success was noted between."""

MOST_KINDS = 10
"""Different errors of one failure that are reported at once; more may be one error whose text always
differs."""


class FailureReport(NamedTuple):
    """What is to be logged now.

    Attributes:
        new: whether this error was not reported yet, so that its traceback is worth logging.
        times: how many failures there were by now, this one included.
    """

    new: bool
    times: int


class RepeatedFailure:
    """A failure that may last. It is reported at once, again when the error changes, and otherwise less and
    less often; ``recovered`` tells whether its end is to be reported.

    Threads may share one; at worst two of them report the same.

    Args:
        runtime: the machine it reads the time of.
        again: seconds until it is reported again; twice as long each time.
        longest: seconds between two reports of it, at most.
    """

    def __init__(
        self, runtime: Runtime = MACHINE, *, again: float = REPORT_AGAIN, longest: float = LONGEST_SILENCE
    ) -> None:
        self._monotonic = runtime.monotonic
        self._again = again
        self._longest = longest
        self._begin()

    def _begin(self) -> None:
        self._reported: set[str] = set()
        self._times = 0
        self._pause = self._again
        self._due = self._last = 0.0

    def fail(self, what: object) -> FailureReport | None:
        """Note a failure (an exception, or its name); return what to log of it, or ``None`` for nothing."""
        now = self._monotonic()
        if self._times and now - self._last > max(FORGOTTEN, 2 * self._pause):
            self._begin()
        self._last = now
        self._times += 1
        kind = _kind(what)
        new = kind not in self._reported and len(self._reported) < MOST_KINDS
        if new:
            self._reported.add(kind)
        elif now < self._due:
            return None
        else:
            self._pause = min(2 * self._pause, self._longest)
        self._due = now + self._pause
        return FailureReport(new, self._times)

    def recovered(self, quiet: float = 0.0) -> int:
        """Note a success; return how many failures there were since the last one.

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
