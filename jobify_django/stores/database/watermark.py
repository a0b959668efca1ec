"""A way past the dead entries of PostgreSQL's index of waiting jobs.

While any session holds a snapshot, what a claim took out of the index stays in it, dead, and nothing can
remove it. Claims go by the index in order, so each walks over all of it: 70 ms where 100,000 jobs have ended.

When claims of a queue have become slow, this process keeps a *watermark* for each priority: below that number
no job waited at the last refresh. Jobs of one priority are taken in the order of their numbers, so the dead
ones are there, and a claim enters the index at the watermarks: 0.4 ms.

Some jobs wait *below* their watermark, the late arrivals: they were returned, came due, or were pushed by a
transaction that took longer than most. A full refresh, now and then, finds them, and claims take those it
found in their turn. When claims are fast again, the watermarks are forgotten. Under LIFO they are of no use,
and claims go the usual way.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from jobify_django.ordering import HIGHEST_PRIORITY, LOWEST_PRIORITY
from jobify_django.runtime import Runtime
from jobify_django.stores.database.connection import Connection

SLOW = 0.010
"""Seconds from which on a claim is slow, so that a full refresh is due: it may as well be the load."""

MANY_DEAD = 5_000
"""Dead entries from which on watermarks are worth their cost; a claim walks over so many in 4 ms."""

RAISE_EVERY = 2.0
"""Seconds between two raises of the watermarks. The job of a push that takes longer from taking its number to
its commit may be a late arrival."""

PAUSE_FACTOR = 50
"""A full refresh is followed by a pause this many times as long, so that they take 2 % of the time."""

LONGEST_PAUSE = 10.0
"""Seconds of such a pause, at most: no late arrival waits longer for a full refresh."""

MOST_LATE_ARRIVALS = 1_000
"""Late arrivals that a process remembers, at 2 microseconds each; if there are more, all watermarks are 0
again."""

Part = tuple[int, int, int]
"""An order key, the first and the last number."""

Position = tuple[int, int]
"""An order key and a number."""

KEYS = range(-HIGHEST_PRIORITY, -LOWEST_PRIORITY + 1)
"""All order keys, but for those of LIFO."""

END = 2**63 - 1

# Each part has one key: PostgreSQL 15 would not end a scan over several within the last one. Where no job is,
# a part costs three pages.
PARTS = "unnest(?::bigint[], ?::bigint[], ?::bigint[]) WITH ORDINALITY part (key, low, high, ordinal)"
WITHIN = "order_key = part.key AND sequence >= part.low AND sequence <= part.high"
WAITING = f"""
    SELECT job.order_key, job.sequence FROM {PARTS}
    CROSS JOIN LATERAL (
        SELECT order_key, sequence FROM jobify_job WHERE queue = ? AND status = 'waiting' AND {WITHIN}
        ORDER BY order_key, sequence LIMIT ?) job
    ORDER BY part.ordinal LIMIT ?"""
NUMBER = f"""
    SELECT nextval('jobify_job_number'),
           EXISTS (SELECT 1 FROM jobify_job
                   WHERE queue = :queue AND status = 'waiting' AND order_key < {KEYS.start})
        OR EXISTS (SELECT 1 FROM jobify_job
                   WHERE queue = :queue AND status = 'waiting' AND order_key >= {KEYS.stop})"""
# How many entries of the index this session has read; only the difference of two readings says something.
ENTRIES_READ = "SELECT coalesce(pg_stat_get_xact_tuples_returned('jobify_job_waiting'::regclass), 0)"


class Watermarks:
    """The watermarks of the queues whose claims are slow, as this process knows them.

    Args:
        runtime: the machine this process runs on.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._marks: dict[str, Watermark] = {}
        self._next_try: dict[str, float] = {}

    def __contains__(self, queue: str) -> bool:
        return queue in self._marks

    def of(self, queue: str, db: Connection) -> Watermark | None:
        """Return the queue's watermarks, up to date; ``None`` where claims had better go the usual way."""
        watermark = self._marks.get(queue)
        if watermark is None or watermark.refresh(db):
            return watermark
        self._next_try[queue] = self._runtime.monotonic() + LONGEST_PAUSE
        self._marks.pop(queue, None)
        return None

    def claimed(self, queue: str, seconds: float) -> None:
        """Note how long a claim took that went the usual way."""
        if seconds > SLOW and self._runtime.monotonic() >= self._next_try.get(queue, 0.0):
            self._marks.setdefault(queue, Watermark(queue, self._runtime))

    def note_late_arrivals(self, queue: str, positions: Sequence[Position]) -> None:
        """Note where jobs of a queue have come to wait, above the watermark or below it."""
        if watermark := self._marks.get(queue):
            watermark.note_late_arrivals(positions)


class Watermark:
    """Where the waiting jobs of one queue begin, for each priority.

    Args:
        queue: the queue's name.
        runtime: the machine this process runs on.
    """

    def __init__(self, queue: str, runtime: Runtime) -> None:
        self._queue = queue
        self._runtime = runtime
        self._begin()

    def _begin(self) -> None:
        """Let all watermarks be 0."""
        self._firsts: Mapping[int, int] = {}
        self._others = 0
        self._given_out = 0
        self._late_arrivals: frozenset[Position] = frozenset()
        self._raise_at = self._sweep_at = 0.0
        self._make_parts()

    def refresh(self, db: Connection) -> bool:
        """Do what is due; return whether it is worthwhile to go by the watermarks."""
        now = self._runtime.monotonic()
        raising = now >= self._raise_at
        sweeping = self._others > 0 and now >= self._sweep_at
        full = sweeping or (raising and not self._others)  # a raise from 0 walks over all there is
        if not raising and not sweeping:
            return True
        read = _entries_read(db)
        if raising and not self._raise(db):
            return False
        if sweeping:
            self._sweep(db)
        if not full:
            return True
        ended = self._runtime.monotonic()
        self._sweep_at = ended + min(PAUSE_FACTOR * (ended - now), LONGEST_PAUSE)
        return _entries_read(db) - read > MANY_DEAD

    def _raise(self, db: Connection) -> bool:
        number, lifo = db.execute(NUMBER, {"queue": self._queue}).fetchone()
        self._raise_at = self._runtime.monotonic() + RAISE_EVERY
        found = self._find(db, [(key, self._mark(key), END) for key in KEYS], each=1)
        # Whoever took a number before the last time, and has not committed since, is late.
        self._others, self._given_out = self._given_out, number
        self._firsts = {key: min(first, self._others) for key, first in found}
        self._make_parts()
        return not lifo

    def _sweep(self, db: Connection) -> None:
        below = [(key, 0, self._mark(key) - 1) for key in KEYS]
        self._late_arrivals = frozenset()
        self.note_late_arrivals(self._find(db, below, each=MOST_LATE_ARRIVALS))

    def note_late_arrivals(self, positions: Iterable[Position]) -> None:
        """Note jobs that wait, perhaps below a watermark."""
        self._late_arrivals = self._late_arrivals.union(positions)
        if len(self._late_arrivals) >= MOST_LATE_ARRIVALS:
            self._begin()
        self._make_parts()

    def started(self, positions: Iterable[Position]) -> None:
        """Note which jobs do not wait any more."""
        if not self._late_arrivals.isdisjoint(positions := set(positions)):
            self._late_arrivals -= positions
            self._make_parts()

    def _find(self, db: Connection, parts: Iterable[Part], each: int) -> list[Position]:
        values = (*_columns(parts), self._queue, each, max(each, len(KEYS)))
        return db.execute(WAITING, values).fetchall()

    def _mark(self, key: int) -> int:
        return self._firsts.get(key, self._others)

    def _make_parts(self) -> None:
        below = [(key, number, number) for key, number in self._late_arrivals if number < self._mark(key)]
        self.parts = _columns(sorted([*below, *((key, self._mark(key), END) for key in KEYS)]))
        """The parts of the index that jobs may wait in, in order, as values for ``PARTS``."""


def _entries_read(db: Connection) -> int:
    return int(db.execute(ENTRIES_READ).fetchone()[0])


def _columns(parts: Iterable[Part]) -> Sequence[str]:
    """Return the parts as arrays, in PostgreSQL's spelling."""
    return ["{" + ",".join(map(str, column)) + "}" for column in zip(*parts, strict=True)]
