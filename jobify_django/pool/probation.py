"""Probation: after a process died, the jobs that it ran are tried one at a time.

Nobody knows which of them was to blame. So each of them is a *suspect*, and spends its first seconds alone:
whatever kills a process soon after its start takes nobody along then, and is failed at its third time.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

from jobify_django.outcome import CRASH_LIMIT
from jobify_django.pool.workers import Running, Slots
from jobify_django.stores.value import Claimed

PROBATION = 5.0
"""Seconds from a job's start in which it may show that it kills. A suspect spends them alone."""

LOOK_AGAIN = 0.1
"""Seconds after which a pool that holds back for a suspect looks whether another pool has taken it."""


class Probation:
    """Says when this process may start a suspect, and when it may start nothing else.

    Args:
        peers: the slots of all queues of this process.
    """

    def __init__(self, peers: Mapping[str, Slots]) -> None:
        self._peers = peers
        self._held_since = self._held_at = float("-inf")

    @property
    def left(self) -> float:
        """Seconds for which nothing may start, because a suspect has just started."""
        began = max((job.began for job in self._suspects()), default=float("-inf"))
        return max(0.0, began + PROBATION - time.monotonic())

    @property
    def suspects(self) -> Suspects:
        """What a claim is to do with the next suspect."""
        if any(job.claim.crashes >= CRASH_LIMIT - 1 for job in self._suspects()):
            # The next crash fails that one, whoever is to blame; and it may run for long.
            return "pass"
        now = time.monotonic()
        if self._held_lately(now) and now - self._held_since >= PROBATION:
            # Jobs before it in its line keep starting, or those of another store.
            return "start"
        youngest = (slots.youngest() for slots in self._peers.values())
        return "wait" if any(job and now - job.began < PROBATION for job in youngest) else "start"

    def note(self, claimed: Claimed) -> None:
        """Take down whether a claim was held up by a suspect."""
        if claimed.held:
            now = time.monotonic()
            if not self._held_lately(now):
                self._held_since = now
            self._held_at = now

    def _held_lately(self, now: float) -> bool:
        return now - self._held_at < PROBATION / 2

    def _suspects(self) -> Iterable[Running]:
        return (job for slots in self._peers.values() for job in slots.suspects())
