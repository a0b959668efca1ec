"""Adding jobs, as far as there is room for them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import NamedTuple

from jobify_django.conf import MAX_MAXSIZE, QueueSettings
from jobify_django.job import JobSpec
from jobify_django.ordering import Order, order_key
from jobify_django.stores.database.columns import NewJob
from jobify_django.stores.database.connection import Connection, by_ids
from jobify_django.stores.database.reading import order_from, within
from jobify_django.stores.database.transaction import Contended, Transactions
from jobify_django.stores.value import Added


class Room(NamedTuple):
    """A queue as a push finds it.

    Attributes:
        maxsize: the tuned bound; ``None`` leaves it to the settings.
        order: the tuned order; ``None`` leaves it to the settings.
        depth: jobs that wait, due ones among them; where there is plenty of room it may be a little high.
        numbers: the sequence numbers that the push may give out, in order.
        reserved: jobs that other open transactions may have added, or may be about to.
    """

    maxsize: int | None
    order: Order | None
    depth: int
    numbers: Iterable[int]
    reserved: int = 0


class Adding(Transactions):
    """The verb ``add``."""

    def add(
        self,
        queue: QueueSettings,
        specs: Sequence[JobSpec],
        *,
        all_or_nothing: bool = False,
        lock_timeout: float | None = None,
    ) -> Added:
        try:
            # It may be repeated: the ids are the producer's, so adding twice adds once.
            added = self._write(
                partial(self._add, queue, specs, all_or_nothing), may_repeat=True, lock_timeout=lock_timeout
            )
        except Contended as contended:
            added = contended.args[0]
        if added.taken:
            self._after_commit(partial(self._notify_added, queue.name, specs))
        return added

    def _add(
        self, queue: QueueSettings, specs: Sequence[JobSpec], all_or_nothing: bool, db: Connection
    ) -> Added:
        now = self.clock()
        due = [spec.eligible_at(now) for spec in specs]
        # Delayed jobs find room in a full queue too.
        least = 0 if max(due, default=now) > now else len(specs) if all_or_nothing else 1
        room = self._room(db, queue, len(specs), now, least)
        maxsize = within(room.maxsize, MAX_MAXSIZE) or queue.maxsize
        order = order_from(room.order) or queue.order
        fitting = len(specs)
        if room.depth + room.reserved + fitting > maxsize:
            fitting = _fitting(db, maxsize - room.depth - room.reserved, specs, now)
            if not fitting or (all_or_nothing and fitting < len(specs)):
                if room.depth + len(specs) <= maxsize:
                    raise Contended(Added(0, room.depth, maxsize, (), order, now))
                return Added(0, room.depth, maxsize, (), order, now)
        jobs = [
            new_job(queue.name, order, spec, number, now, at)
            for spec, at, number in zip(specs[:fitting], due, room.numbers, strict=False)
        ]
        fresh = self._insert(db, queue.name, jobs)
        waiting = sum(job.status == "waiting" for job in jobs if job.id in fresh)
        return Added(fitting, room.depth + waiting, maxsize, (), order, now)

    # What databases do in their own ways

    def _room(self, db: Connection, queue: QueueSettings, jobs: int, now: float, least: int) -> Room:
        """Return how a queue stands, for a push of so many jobs that goes through only if they fit, of which
        nothing is added unless there is room for at least so many.

        Until the transaction ends, no push of another one can take the room that was found.
        """
        raise NotImplementedError

    def _insert(self, db: Connection, queue: str, jobs: Sequence[NewJob]) -> set[str]:
        """Insert at least one job, and return the ids of those that were not there."""
        raise NotImplementedError


def known_ids(db: Connection, ids: Sequence[str]) -> set[str]:
    """Return those of the ids that jobs have."""
    return {id for (id,) in by_ids(db, "SELECT id FROM jobify_job WHERE id IN ", ids)}


def _fitting(db: Connection, room: int, specs: Sequence[JobSpec], now: float) -> int:
    """Return how many of the jobs, in order, there is room for."""
    known = known_ids(db, [spec.id for spec in specs])
    for fitting, spec in enumerate(specs):
        if spec.eligible_at(now) > now or spec.id in known:
            continue
        if room <= 0:
            return fitting
        room -= 1
    return len(specs)


def new_job(queue: str, order: Order, spec: JobSpec, number: int, now: float, at: float) -> NewJob:
    """Return the row of a job that is pushed ``now``, eligible ``at`` a moment, under this number."""
    s = spec
    status = "delayed" if at > now else "waiting"
    key = order_key(order, s.priority, number)
    return NewJob(
        s.id, queue, s.task, s.arguments, s.priority, status, number, key, now, at, s.flags, s.extra
    )
