"""Whether a pool has run all that it can run, and which waiting jobs it cannot run."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from jobify_django.conf import QueueSettings
from jobify_django.job import WAITING
from jobify_django.log import get_log, quoted
from jobify_django.registry import Registry
from jobify_django.stores.base import Store
from jobify_django.stores.value import JobQuery, QueueStats

logger = get_log("jobify.worker")

SAMPLE = 200
"""Waiting jobs of a queue, the first ones, that are looked at for tasks which are not known here."""

UNCLAIMED_FOR = 5.0
"""Seconds for which jobs that wait and cannot be claimed, for no known reason, may still become claimable:
they were pushed just now, or another transaction has their rows locked."""

UNCLAIMED = "no worker here could claim them"


class UnrunnableJobs(NamedTuple):
    """Jobs that wait, and that this process cannot run.

    Attributes:
        queue: the queue's name.
        jobs: how many.
        reason: why.
    """

    queue: str
    jobs: int
    reason: str


class IdleCheck:
    """Finds out, by the turns since the latest request, whether a pool could run no job that waits.

    Args:
        store: the pool's.
        queues: those it serves.
        tasks: those it can run.
    """

    def __init__(self, store: Store, queues: Mapping[str, QueueSettings], tasks: Registry) -> None:
        self._store = store
        self._queues = queues
        self._tasks = tasks
        self._empty: set[str] = set()
        self._empty_for = 0
        self._logged: set[str] = set()
        self._unclaimed_since: float | None = None
        self.requests = 0
        """How many requests for an answer there were; with 0 nothing is checked."""
        self._answer: tuple[int, Sequence[UnrunnableJobs]] = (0, ())

    def ask(self) -> None:
        """Request an answer; it is found anew, for what was found before says nothing of now."""
        self.requests += 1

    @property
    def unrunnable(self) -> Sequence[UnrunnableJobs] | None:
        """The waiting jobs that cannot be run, once that is known: then the pool has run all others."""
        answered, unrunnable = self._answer
        return unrunnable if answered == self.requests else None

    def note(self, requests: int, empty: Collection[str] | None, *, spent: bool) -> None:
        """Note a turn; afterwards ``unrunnable`` may hold the answer.

        Args:
            requests: how many requests there had been when the turn began.
            empty: the queues that had nothing to start; ``None`` if anything runs, or waits for its turn.
            spent: whether the pool may start nothing more.
        """
        if requests != self.requests or self.unrunnable is not None:
            return
        if self._empty_for != requests or empty is None:
            self._empty_for, self._empty = requests, set()
        # A small budget asks for some queues at a time, so finding all of them empty may take turns.
        self._empty |= set(empty or ())
        unrunnable: Sequence[UnrunnableJobs] | None = None
        if spent:
            unrunnable = ()
        elif len(self._empty) == len(self._queues):
            unrunnable = self._find_unrunnable()
        if unrunnable is not None:
            self._answer = (requests, unrunnable)

    def _find_unrunnable(self) -> Sequence[UnrunnableJobs] | None:
        """Return what is left, or ``None`` if some of it may be run soon."""
        try:
            stats = self._store.stats(list(self._queues.values()))
            found = [self._unrunnable_in(one) for one in stats.values() if one.waiting]
        except Exception as error:
            names = ", ".join(self._queues)
            return self._if_unclaimed_for_long(
                [UnrunnableJobs(names, 0, f"how many wait could not be read: {error}")]
            )
        unrunnable = [one for one in found if one is not None]
        if None not in found and any(one.reason == UNCLAIMED for one in unrunnable):
            return self._if_unclaimed_for_long(unrunnable)
        self._unclaimed_since = None
        return None if None in found else unrunnable

    def _unrunnable_in(self, stats: QueueStats) -> UnrunnableJobs | None:
        if stats.paused:
            return UnrunnableJobs(stats.queue, stats.waiting, "the queue is paused")
        first = self._store.query(JobQuery(queue=stats.queue, status=WAITING, limit=SAMPLE, payload=False))
        unknown = {record.task for record in first if self._tasks.get(record.task) is None}
        if unknown and all(record.task in unknown for record in first):
            names = ", ".join(map(repr, sorted(unknown)))
            return UnrunnableJobs(
                stats.queue, stats.waiting, f"no task of this name is registered here: {names}"
            )
        cap = self._queues[stats.queue].max_running
        if cap is not None and stats.running >= cap:
            self._log_that_it_waits(stats, cap)
            return None
        return UnrunnableJobs(stats.queue, stats.waiting, UNCLAIMED)

    def _log_that_it_waits(self, stats: QueueStats, cap: int) -> None:
        if stats.queue not in self._logged:
            self._logged.add(stats.queue)
            logger.info(
                "event=waits-for-others queue=%s jobs=%d max_running=%d: other pools run as many as may run",
                quoted(stats.queue),
                stats.waiting,
                cap,
            )

    def _if_unclaimed_for_long(self, unrunnable: Sequence[UnrunnableJobs]) -> Sequence[UnrunnableJobs] | None:
        now = self._store.runtime.monotonic()
        if self._unclaimed_since is None:
            self._unclaimed_since = now
        return unrunnable if now - self._unclaimed_since >= UNCLAIMED_FOR else None
