"""How PostgreSQL keeps the bound: by announcements.

Jobs that other transactions have added and not committed cannot be counted by anybody but
them. A lock for each queue, or a counter in a row, would make every transaction that has pushed hold up all
other pushes until it commits, however long that takes. So a push *announces* instead how many jobs it may
add, by a shared advisory lock whose key holds the number: it blocks nobody, everybody sees it in
``pg_locks``, and it is gone when the transaction ends, however it ends. A push

1. announces, 2. adds up what others have announced, 3. counts the jobs that wait, in a new snapshot,

and goes through if all of it fits. Of two that push at once, the one that checks later sees the other's
announcement, or its jobs. Transaction poolers are safe: nothing lives longer than the transaction.

Returned jobs are never refused, but they are announced too: until their transaction ends, nobody else can
count them. A push in a caller's transaction checks before it announces whether the queue is full, for the
announcement of a refused push would stand until that transaction ends. The keys are made from the table as
the connection finds it, so tables of one name in several schemas have bounds of their own.

**Counting.** A count takes longer the more jobs wait, and the more dead rows a held snapshot keeps. Whatever
makes a job takes a number from one sequence first, so what was counted, and the numbers taken since, is a
ceiling; as long as that fits, a queue whose count took long need not be counted again.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Sequence

from django.db import transaction

from jobify_django.conf import MAX_MAXSIZE, QueueSettings
from jobify_django.stores.database.add import Adding, Room
from jobify_django.stores.database.columns import INTO_JOB, NEW_JOB, NewJob
from jobify_django.stores.database.connection import Connection, Row, by_rows
from jobify_django.stores.database.reading import within
from jobify_django.stores.database.settle import Settling

MOST_ANNOUNCED = 4095
"""Jobs that one announcement can speak for: twelve bits of its key."""

COUNT_FREELY = 2_000
"""A queue with at most so many waiting jobs has them counted at every push: that takes half a millisecond."""

SLOW_COUNT, SLOW_COUNTS = 0.002, 3
"""After so many counts in a row that took longer than so many seconds, a queue is not counted at every push
any more. Dead rows make a count slow, too: see ``watermark``."""

# The table that the connection's search_path leads to now: found anew by each statement.
TABLE = "'jobify_job'::regclass::oid"
CLASS = f"{TABLE}::int4 # ?"
# Shared, so it blocks nobody; the key's number tells two announcements of one transaction apart. The jobs'
# numbers are taken after the announcement is made (they depend on it), which the ceiling relies on.
# Always empty. Its transaction has a number from then on, before it reads the queue's order: see ``LATE``.
BEGUN = "left(pg_current_xact_id()::text, 0)"
ANNOUNCE = f"""
    SELECT {TABLE}::bigint,
           ARRAY(SELECT nextval('jobify_job_number') FROM generate_series(1, ? + length(a.made)))
    FROM (SELECT pg_advisory_xact_lock_shared({CLASS}, ?)::text || {BEGUN} AS made %s OFFSET 0) a"""
NUMBERS = f"""
    SELECT {TABLE}::bigint,
           ARRAY(SELECT nextval('jobify_job_number') FROM generate_series(1, ? + length({BEGUN})))"""
ANNOUNCED = f"""(
        SELECT coalesce(sum(l.objid::bigint & 4095), 0) FROM pg_locks l
        WHERE l.locktype = 'advisory' AND l.classid = ({CLASS})::oid AND l.objsubid = 2 AND l.granted
          AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
          AND l.pid <> pg_backend_pid())"""
OTHERS = f"""
    SELECT {TABLE}::bigint, q.maxsize, q."order",
           current_setting('transaction_isolation') <> 'read committed', {ANNOUNCED}
    FROM (SELECT 1) one LEFT JOIN jobify_queue q ON q.name = ?"""
# A check before the announcement, in its statement: by the ceiling if that is low enough, otherwise by a
# count. Only what follows the announcement keeps the bound.
IF_THERE_IS_ROOM = f"""
    WHERE CASE WHEN ? + coalesce(pg_sequence_last_value('jobify_job_number'), 0) + ? <= ? THEN TRUE
          ELSE (SELECT count(*) FROM jobify_job WHERE queue = ? AND status = 'waiting')
             + (SELECT count(*) FROM jobify_job WHERE queue = ? AND status = 'delayed' AND eligible_at <= ?)
             + {ANNOUNCED} + ?
             <= coalesce((SELECT maxsize FROM jobify_queue
                          WHERE name = ? AND maxsize BETWEEN 1 AND {MAX_MAXSIZE}), ?) END"""
COUNT = """
    SELECT (SELECT count(*) FROM jobify_job WHERE queue = :queue AND status = 'waiting'),
           (SELECT count(*) FROM jobify_job
            WHERE queue = :queue AND status = 'delayed' AND eligible_at <= :now),
           (SELECT count(*) FROM jobify_job WHERE queue = :queue AND status = 'delayed')"""

INSERT = f"INSERT {INTO_JOB} VALUES %s ON CONFLICT (id) DO NOTHING RETURNING id"


class Announcing(Adding, Settling):
    """The bound, kept by announcements."""

    def _set_up(self) -> None:
        super()._set_up()
        self._numbers = itertools.count()
        self._counted: dict[tuple[int, str], tuple[int, int, int]] = {}
        self._tables: dict[str, int] = {}

    def _room(self, db: Connection, queue: QueueSettings, jobs: int, now: float, least: int) -> Room:
        numbers = self._announce(db, queue, jobs, now, least if self.in_transaction() else 0)
        if full := not numbers:
            _, numbers = db.execute(NUMBERS, (jobs,)).fetchone()
        # A caller's transaction of another level counts what was committed when it began, instead of now.
        table, live, order, old, others = db.execute(OTHERS, (_class(queue.name), queue.name)).fetchone()
        where = self._tables[queue.name], _ = table, queue.name
        maxsize = within(live, MAX_MAXSIZE) or queue.maxsize
        depth = None if old or full else self._ceiling(where, numbers)
        if depth is None or depth + others + jobs > maxsize:
            depth = self._count(db, where, now, int(others), numbers, keep=not old)
        # What is not announced must not be added, whatever room there is by now.
        reserved = max(int(others), maxsize - depth) if full else int(others)
        return Room(live, order or None, depth, numbers, reserved)

    def _announce(
        self, db: Connection, queue: QueueSettings, jobs: int, now: float, least: int
    ) -> Sequence[int]:
        """Announce the jobs and return their numbers; none where there is no room for ``least`` of them."""
        announced = jobs
        if inside := self._wrapper.in_atomic_block:
            # In a long transaction with many pushes each announcement speaks for as many jobs as all before
            # it: a thousand pushes take ten locks.
            mine = self._announced(queue.name)
            used = sum(one.used for one in mine)
            if used + jobs <= sum(one.jobs for one in mine):
                table, numbers = db.execute(NUMBERS, (jobs,)).fetchone()
                if table == mine[-1].table:
                    return numbers  # type: ignore[no-any-return]
                used = 0  # the search_path has changed since
            announced = max(jobs, used)
        check = self._values_of_check(queue, now, least) if least else ()
        table, numbers = self._lock_keys(db, queue.name, announced, jobs, check)
        if inside and numbers:
            transaction.on_commit(_Announcement(queue.name, table, announced), using=self._database)
        return numbers

    def _lock_keys(
        self, db: Connection, queue: str, announced: int, jobs: int, check: Row = ()
    ) -> tuple[int, Sequence[int]]:
        """Announce so many jobs, and return the table's number and those of the jobs that are pushed now."""
        table, numbers = 0, list[int]()
        for start in range(0, announced, MOST_ANNOUNCED):
            part = min(MOST_ANNOUNCED, announced - start)
            wanted = max(0, min(jobs - start, part))
            statement = ANNOUNCE % (IF_THERE_IS_ROOM if check else "")
            made = db.execute(statement, (wanted, _class(queue), self._key(part), *check)).fetchone()
            if made is None:
                return 0, ()
            table, some = made
            numbers += some
            check = ()
        return table, numbers

    def _values_of_check(self, queue: QueueSettings, now: float, least: int) -> Row:
        name = queue.name
        counted, first, _ = self._counted.get((self._tables.get(name, 0), name), (0, 0, 0))
        # Where a count is cheap, nothing is left to the ceiling, which may be another table's.
        ceiling = counted - first if counted > COUNT_FREELY else 1 << 60
        return (ceiling, least, queue.maxsize, name, name, now, _class(name), least, name, queue.maxsize)

    def _key(self, jobs: int) -> int:
        return (next(self._numbers) & 0x7FFFF) << 12 | jobs

    def _ceiling(self, where: tuple[int, str], numbers: Sequence[int]) -> int | None:
        """The most jobs that can wait, by the last count and the numbers taken since."""
        counted, first, slow = self._counted.get(where, (0, 0, 0))
        cheap = counted <= COUNT_FREELY and slow < SLOW_COUNTS
        if cheap or numbers[0] <= first:
            return None
        return counted + numbers[-1] - first

    def _count(
        self,
        db: Connection,
        where: tuple[int, str],
        now: float,
        others: int,
        numbers: Sequence[int],
        *,
        keep: bool,
    ) -> int:
        began = self.runtime.monotonic()
        waiting, due, delayed = db.execute(COUNT, {"queue": where[1], "now": now}).fetchone()
        if keep:
            # Those announced may have taken smaller numbers; delayed jobs come due without taking another.
            _, _, slow = self._counted.get(where, (0, 0, 0))
            slow = slow + 1 if self.runtime.monotonic() - began > SLOW_COUNT else 0
            self._counted[where] = (waiting + delayed + others, numbers[0] - 1, slow)
        return int(waiting + due)

    def _note_waiting(self, db: Connection, queue: str, waiting: int, delayed: int = 0) -> None:
        # Announced and not used up by pushes; the numbers come after it, as a push's do. Delayed jobs take
        # theirs now, for they come due without.
        jobs = waiting + delayed
        self._lock_keys(db, queue, jobs, jobs)

    def _announced(self, queue: str) -> list[_Announcement]:
        """What this transaction has announced, for the table of the last one. As long as its lock is held it
        is found among the callbacks, for Django drops it from there where a savepoint is rolled back."""
        callbacks = (callback for _, callback, *_ in self._wrapper.run_on_commit)
        mine = [one for one in callbacks if isinstance(one, _Announcement) and one.queue == queue]
        return [one for one in mine if one.table == mine[-1].table]

    def _insert(self, db: Connection, queue: str, jobs: Sequence[NewJob]) -> set[str]:
        fresh = {id for (id,) in by_rows(db, INSERT, NEW_JOB, jobs)}
        if announced := self._announced(queue):
            announced[-1].used += len(fresh)
        return fresh

    def _lock_claims(self, db: Connection, queue: str) -> None:
        db.execute(f"SELECT pg_advisory_xact_lock({CLASS}, 0)", (_class(f"turn.{queue}"),)).fetchone()


class _Announcement:
    """How many jobs of a queue the open transaction has announced, and how many of them it has pushed."""

    def __init__(self, queue: str, table: int, jobs: int) -> None:
        self.queue = queue
        self.table = table
        self.jobs = jobs
        self.used = 0

    def __call__(self) -> None:
        """Do nothing at the commit."""


def _class(queue: str) -> int:
    """Return what makes the first half of the keys of a queue's announcements, together with its table's
    number: a signed 32 bit number.

    Two queues of one number only see more jobs announced than there are.
    """
    number = zlib.crc32(f"jobify.{queue}".encode())
    return number - (1 << 32) if number >= 1 << 31 else number
