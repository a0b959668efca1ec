"""Whether a pool could reach the store all along: only then an old lease tells of a pool that died."""

from __future__ import annotations


class Reachability:
    """When a pool could reach the store, on the store's clock.

    While the store could not be reached, or this process stood still, or the clock was set, nobody (as far as
    this pool can tell) renewed. So leases that ran out say nothing about their pools until each had time for
    one renewal.

    A pool that has just started does not know what was before, and waits as long.

    Args:
        gap: seconds without a call that went through which count as an outage.
        wait: seconds in which every pool that can reach the store has renewed its leases.
    """

    def __init__(self, gap: float, wait: float) -> None:
        self._gap = gap
        self._wait = wait
        self._reached_at: float | None = None
        self._back_at = 0.0
        self._outage_since: float | None = None
        self._failed = False
        self._rescued_all = False

    @property
    def outage(self) -> tuple[float, float] | None:
        """The times between which a lease may have run out because its pool was kept from renewing it."""
        return None if self._outage_since is None else (self._outage_since, self._back_at + self._wait)

    def fail(self) -> None:
        """Note that a call failed."""
        self._failed = True

    def reached(self, now: float) -> None:
        """Note that a call went through."""
        if self._reached_at is None:
            self._back_at = now
        elif self._failed or abs(now - self._reached_at) > self._gap:
            # Of two outages with no complete rescue between, the second goes on with the first.
            if self._outage_since is None or self._rescued_all:
                self._outage_since = self._reached_at
            self._rescued_all = False
            self._back_at = now
        self._reached_at = now
        self._failed = False

    def rescued_all(self) -> None:
        """Note that a rescue found nothing more: no lease is left that ran out before now."""
        self._rescued_all = True

    def wait(self, now: float) -> float:
        """Return for how many seconds more nothing may be rescued."""
        if self._reached_at is None or self._failed:
            return self._wait
        # Not for as long as the clock was set back, where it was.
        return max(0.0, self._wait - abs(now - self._back_at))
