"""The clock that leases and delays are measured on: the database server's, for all machines share it."""

from __future__ import annotations

import time
from typing import NamedTuple

from jobify_django.stores.database.connection import Connection

MEASURE_EVERY = 10.0
"""Seconds between two looks at the server's clock."""

MEASURE_TIMES = 3
CLOSE_LOOK = 0.01
"""A look that took longer, in seconds, is taken again: half of what it took is how wrong it may be."""

DRIFT = 0.0005
"""Seconds that two clocks may drift apart in one, the most by which NTP lets one run faster or slower."""


class ServerClock:
    """How far a server's clock is from this process's monotonic one: a host whose clock is stepped notices
    nothing.

    Args:
        select: a SELECT of the server's clock, in seconds since the epoch.
    """

    def __init__(self, select: str) -> None:
        self._select = select
        self.reading: Reading | None = None
        self._measured = 0.0

    def time(self) -> float:
        """Return the server's time; this host's, as long as the server was never asked."""
        return time.time() if self.reading is None else time.monotonic() + self.reading.ahead

    def measure(self, db: Connection) -> None:
        """Look at the server's clock, if that is due."""
        if self.reading is not None and time.monotonic() - self._measured <= MEASURE_EVERY:
            return
        looks: list[Reading] = []
        while len(looks) < MEASURE_TIMES and not (looks and looks[-1].error < CLOSE_LOOK / 2):
            began = time.monotonic()
            (now,) = db.execute(self._select).fetchone()
            ended = time.monotonic()
            error = (ended - began) / 2
            looks.append(Reading(error, float(now) - began - error, ended))
        self._measured = looks[-1].at
        new = min(looks)
        if self.reading is None or new.replaces(self.reading):
            self.reading = new


class Reading(NamedTuple):
    """How many seconds the server's clock is ahead of this process's monotonic one, give or take ``error``,
    as it was ``at`` that one's time. The better of two is kept as in NTP's clock filter (RFC 5905, 10)."""

    error: float
    ahead: float
    at: float

    def replaces(self, old: Reading) -> bool:
        """Whether it is better than an old one, or shows that the server's clock was set since."""
        error = old.error + DRIFT * (self.at - old.at)
        return self.error <= error or abs(self.ahead - old.ahead) > self.error + error
