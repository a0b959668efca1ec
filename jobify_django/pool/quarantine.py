"""Quarantine: after a process died, the jobs that it ran are tried one at a time.

Nobody knows which of them was to blame. So each of them is in quarantine, and runs alone for its first
seconds: a job that kills its process soon after its start interrupts no other job then, and is failed after
its third crash.
"""

from __future__ import annotations

from jobify_django.outcome import CRASH_LIMIT
from jobify_django.pool.slots import ProcessSlots
from jobify_django.stores.value import Quarantine

QUARANTINE = 5.0
"""Seconds after its start in which a job is most likely to kill its process. In quarantine it runs alone for
so long."""

CHECK_AGAIN = 0.1
"""Seconds after which a pool that starts nothing because of a job in quarantine checks whether another pool
has started that one."""


class QuarantineRule:
    """Decides when this process may start a job in quarantine, and when it may start nothing else.

    Args:
        slots: those of all queues of this process.
    """

    def __init__(self, slots: ProcessSlots) -> None:
        self._slots = slots
        self._monotonic = slots.runtime.monotonic
        self._deferred_since = self._deferred_at = float("-inf")

    @property
    def seconds_alone(self) -> float:
        """Seconds for which nothing may start, because a job in quarantine has just started."""
        if not (quarantined := self._slots.quarantined):
            return 0.0
        began = [job.began for job in list(quarantined)]
        return max(0.0, max(began) + QUARANTINE - self._monotonic()) if began else 0.0

    @property
    def choice(self) -> Quarantine:
        """What a claim is to do with the next job in quarantine."""
        quarantined = self._slots.quarantined
        if quarantined and any(job.claim.crashes >= CRASH_LIMIT - 1 for job in list(quarantined)):
            # The next crash fails that one, whoever is to blame; and it may run for long.
            return "skip"
        now = self._monotonic()
        if self._deferred_lately(now) and now - self._deferred_since >= QUARANTINE:
            # Jobs before it in its queue keep starting, or those of another store.
            return "alone"
        for slots in self._slots.values():
            youngest = slots.youngest()
            if youngest is not None and now - youngest.began < QUARANTINE:
                return "defer"
        return "alone"

    def note_deferred(self) -> None:
        """Note that a claim was deferred because of a job in quarantine."""
        now = self._monotonic()
        if not self._deferred_lately(now):
            self._deferred_since = now
        self._deferred_at = now

    def _deferred_lately(self, now: float) -> bool:
        return now - self._deferred_at < QUARANTINE / 2
