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
makes a job takes a number from one sequence *after* it is announced, so what was counted, and the numbers
taken since, is a ceiling; as long as that fits, nobody need count again: see ``ticket``. ``ticketing``
says the same in one message, where the driver can.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Sequence

from django.db import transaction

from jobify_django.conf import MAX_MAXSIZE, QueueSettings
from jobify_django.stores.database.add import Adding, Room
from jobify_django.stores.database.columns import INTO_JOB, JOB, NewJob
from jobify_django.stores.database.connection import Connection, Row, array, chunks
from jobify_django.stores.database.reading import within
from jobify_django.stores.database.settle import Settling
from jobify_django.stores.database.ticket import Book, good_for

MOST_ANNOUNCED = 4095
"""Jobs that one announcement can speak for: twelve bits of its key."""

MOST_INSERTED = 5_000
"""Jobs that one statement inserts."""

TYPES = {
    **dict.fromkeys(("priority", "flags"), "integer"),
    **dict.fromkeys(("sequence", "order_key"), "bigint"),
    **dict.fromkeys(("pushed_at", "eligible_at"), "double precision"),
}
"""The types of a new job's columns that are no text."""

# The table that the connection's search_path leads to now: found anew by each statement.
TABLE = "'jobify_job'::regclass::oid"
CLASS = f"{TABLE}::int4 # ?"
# Always empty. Its transaction has a number from then on, before it reads the queue's order: see ``LATE``.
BEGUN = "left(pg_current_xact_id()::text, 0)"
# Shared, so it blocks nobody; the key's number tells two announcements of one transaction apart. The jobs'
# numbers are taken after the announcement is made (they depend on it), which the ceiling relies on.
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
          AND l.pid IS DISTINCT FROM pg_backend_pid())"""
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
# Whether this transaction may have changed or removed jobs, which it alone sees so until its end. The server
# may still hold such numbers of transactions of the session that ended in the last second.
CHANGED = f"""
           current_setting('track_counts') = 'off'
           OR pg_stat_get_xact_tuples_updated({TABLE}) + pg_stat_get_xact_tuples_deleted({TABLE}) > 0"""
COUNT = f"""
    SELECT (SELECT count(*) FROM jobify_job WHERE queue = :queue AND status = 'waiting'),
           (SELECT count(*) FROM jobify_job
            WHERE queue = :queue AND status = 'delayed' AND eligible_at <= :now),
           (SELECT count(*) FROM jobify_job WHERE queue = :queue AND status = 'delayed'),
{CHANGED}"""

# One text for however many jobs, and one value a column.
INSERT = """
    INSERT {} SELECT {} FROM unnest({}) AS new ({}) ON CONFLICT (id) DO NOTHING RETURNING id""".format(
    INTO_JOB,
    ", ".join(column.new.replace("?", name) for name, column in JOB.items() if column.new),
    ", ".join(f"?::{TYPES.get(name, 'text')}[]" for name in NewJob._fields),
    ", ".join(NewJob._fields),
)


class Announcing(Adding, Settling):
    """The bound, kept by announcements."""

    def _set_up(self) -> None:
        super()._set_up()
        self._numbers = itertools.count()
        self._books: dict[tuple[int, str], Book] = {}
        self._tables: dict[str, int] = {}

    def close(self) -> None:
        # A server that comes back from a copy may give numbers out again.
        self._books.clear()
        super().close()

    def _room(self, db: Connection, queue: QueueSettings, jobs: int, now: float, least: int) -> Room:
        numbers = self._announce(db, queue, jobs, now, least if self.in_transaction() else 0)
        if full := not numbers:
            _, numbers = db.execute(NUMBERS, (jobs,)).fetchone()
        # A caller's transaction of another level counts what was committed when it began, instead of now.
        table, live, order, old, others = db.execute(OTHERS, (class_of(queue.name), queue.name)).fetchone()
        self._tables[queue.name] = table
        maxsize = within(live, MAX_MAXSIZE) or queue.maxsize
        # By this table, not by the last one: other threads may be in other schemas.
        book = None if old or full else self._in_force(self._books.get((table, queue.name)))
        if book is not None and numbers[0] > book.first:
            ceiling = book.counted + numbers[-1] - book.first
            if ceiling <= maxsize:  # and the others are in it
                return Room(live, order or None, ceiling - jobs, numbers)
        began = self.runtime.monotonic()
        values = {"queue": queue.name, "now": now}
        waiting, due, delayed, changed = db.execute(COUNT, values).fetchone()
        # A caller's transaction that has ended jobs sees fewer than others do, and may be rolled back.
        if not old and not (changed and self.in_transaction()):
            # Those announced may have taken smaller numbers; delayed jobs come due without taking another.
            counted = waiting + delayed + int(others)
            self._keep_book(queue.name, Book(table, numbers[0] - 1, counted, live, order or ""), began)
        # What is not announced must not be added, whatever room there is by now.
        depth = int(waiting + due)
        reserved = max(int(others), maxsize - depth) if full else int(others)
        return Room(live, order or None, depth, numbers, reserved)

    def _book(self, queue: str) -> Book | None:
        """Return the book of a queue, if there is one that may still be used."""
        return self._in_force(self._books.get((self._tables.get(queue, 0), queue)))

    def _in_force(self, book: Book | None) -> Book | None:
        return book if book is not None and self.runtime.monotonic() < book.until else None

    def _keep_book(self, queue: str, book: Book, began: float) -> None:
        """Keep a book whose count ``began`` then, on the monotonic clock."""
        now = self.runtime.monotonic()
        self._tables[queue] = book.table
        self._books[book.table, queue] = book._replace(until=now + good_for(now - began))

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
            transaction.on_commit(Announcement(queue.name, table, announced), using=self._database)
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
            made = db.execute(statement, (wanted, class_of(queue), self._key(part), *check)).fetchone()
            if made is None:
                return 0, ()
            table, some = made
            numbers += some
            check = ()
        return table, numbers

    def _values_of_check(self, queue: QueueSettings, now: float, least: int) -> Row:
        name = queue.name
        book = self._book(name)
        ceiling = 1 << 60 if book is None else book.counted - book.first
        return (ceiling, least, queue.maxsize, name, name, now, class_of(name), least, name, queue.maxsize)

    def _key(self, jobs: int) -> int:
        return (next(self._numbers) & 0x7FFFF) << 12 | jobs

    def _note_waiting(self, db: Connection, queue: str, waiting: int, delayed: int = 0) -> None:
        # Announced and not used up by pushes; the numbers come after it, as a push's do. Delayed jobs take
        # theirs now, for they come due without.
        jobs = waiting + delayed
        self._lock_keys(db, queue, jobs, jobs)

    def _announced(self, queue: str) -> list[Announcement]:
        """What this transaction has announced, for the table of the last one. As long as its lock is held it
        is found among the callbacks, for Django drops it from there where a savepoint is rolled back."""
        callbacks = (callback for _, callback, *_ in self._wrapper.run_on_commit)
        mine = [one for one in callbacks if isinstance(one, Announcement) and one.queue == queue]
        return [one for one in mine if one.table == mine[-1].table]

    def _insert(self, db: Connection, queue: str, jobs: Sequence[NewJob]) -> set[str]:
        fresh: set[str] = set()
        for part in chunks(jobs, MOST_INSERTED):
            columns = [array(values) for values in zip(*part, strict=True)]
            fresh.update(id for (id,) in db.execute(INSERT, columns).fetchall())
        if announced := self._announced(queue):
            announced[-1].used += len(fresh)
        return fresh

    def _lock_claims(self, db: Connection, queue: str) -> None:
        db.execute(f"SELECT pg_advisory_xact_lock({CLASS}, 0)", (class_of(f"turn.{queue}"),)).fetchone()


class Announcement:
    """How many jobs of a queue the open transaction has announced, and how many of them it has pushed."""

    def __init__(self, queue: str, table: int, jobs: int) -> None:
        self.queue = queue
        self.table = table
        self.jobs = jobs
        self.used = 0

    def __call__(self) -> None:
        """Do nothing at the commit."""


def class_of(queue: str) -> int:
    """Return what makes the first half of the keys of a queue's announcements, together with its table's
    number: a signed 32 bit number.

    Two queues of one number only see more jobs announced than there are.
    """
    number = zlib.crc32(f"jobify.{queue}".encode())
    return number - (1 << 32) if number >= 1 << 31 else number
