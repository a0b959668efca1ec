"""PostgreSQL's way: SKIP LOCKED for claims, and announcements for the bound.

**The bound.** Jobs that other transactions have added and not committed cannot be counted by anybody but
them. A lock for each queue, or a counter in a row, would make every transaction that has pushed hold up all
other pushes until it commits, however long that takes. So a push *announces* instead how many jobs it may
add, by a shared advisory lock whose key holds the number: it blocks nobody, everybody sees it in
``pg_locks``, and it is gone when the transaction ends, however it ends. A push

1. announces, 2. adds up what others have announced, 3. counts the jobs that wait, in a new snapshot,

and goes through if all of it fits. Of two that push at once, the one that looks later sees the other's
announcement, or its jobs. Transaction poolers are safe: nothing lives longer than the transaction.

Jobs that come back are never refused, but they are announced too: until their transaction ends, nobody else
can count them. A push in a caller's transaction looks before it announces whether the queue is full, for the
announcement of a refused push would stand until that transaction ends. The keys are made from the table as
the connection finds it, so tables of one name in several schemas have bounds of their own.

**Counting.** A count takes longer the more jobs wait, and the more dead rows a held snapshot keeps. Whatever
makes a job takes a number from one sequence first, so what was counted, and the numbers taken since, is a
ceiling; as long as that fits, a queue whose count took long need not be counted again.

**Dead rows.** A claim passes them by, too: see ``front``.
"""

from __future__ import annotations

import itertools
import time
import zlib
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from types import MappingProxyType
from typing import Any

from django.db import Error as DjangoError
from django.db import transaction

from jobify_django.conf import MAX_MAXSIZE, QueueSettings
from jobify_django.stores.database.database import (
    CLAIMED,
    INTO,
    NEW,
    PROMOTE,
    Connection,
    Room,
    Row,
    Which,
    chunks,
    marks,
)
from jobify_django.stores.database.front import PARTS, WITHIN, Fronts
from jobify_django.stores.database.listener import Speaker, listening
from jobify_django.stores.database.rows import within
from jobify_django.stores.database.server import SILENCE_TIMEOUT, Server
from jobify_django.stores.database.watchdog import watchdog
from jobify_django.stores.hints import Probe
from jobify_django.stores.value import Trouble

STATEMENT_TIMEOUT = 15
"""Seconds a statement in a transaction of our own may take."""

DEADLINE = 20.0
"""Seconds a transaction of our own may take; then the server has gone, whatever the socket says."""

MOST_ANNOUNCED = 4095
"""Jobs that one announcement can speak for: twelve bits of its key."""

OLD_SNAPSHOT = 60
"""Seconds after which a transaction that holds a snapshot is worth a word."""

DEADLOCK, SERIALIZATION, LOCK_TIMEOUT = "40P01", "40001", "55P03"
NO_TABLE, NO_COLUMN = "42P01", "42703"

COUNT_FREELY = 2_000
"""Waiting jobs that are counted at every push: half a millisecond..."""

SLOW_COUNT, SLOW_COUNTS = 0.002, 3
"""...unless that took more seconds than this so many times in a row: of the dead rows too, see ``front``."""

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
# A look before the announcement, in its statement: by the ceiling if that is low enough, otherwise by a
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
NEXT = """
        SELECT id FROM jobify_job WHERE %s
        ORDER BY order_key, sequence LIMIT ? FOR UPDATE SKIP LOCKED"""
# The parts are gone through in order and only as far as it takes, so no more is locked than is started.
NEXT_BY_FRONT = f"""
        SELECT job.id FROM {PARTS} CROSS JOIN LATERAL ({NEXT.replace("%s", f"%s AND {WITHIN}")}) job
        ORDER BY part.place LIMIT ?"""
HEAD = """
    SELECT CASE crashes WHEN 0 THEN '' ELSE id END FROM jobify_job
    WHERE queue = ? AND status = 'waiting' %s ORDER BY order_key, sequence LIMIT 1"""
HEAD_BY_FRONT = f"""
    SELECT job.suspect FROM {PARTS} CROSS JOIN LATERAL (
        SELECT CASE crashes WHEN 0 THEN '' ELSE id END AS suspect FROM jobify_job
        WHERE queue = ? AND status = 'waiting' %s AND {WITHIN} ORDER BY order_key, sequence LIMIT 1) job
    ORDER BY part.place LIMIT 1"""
START = f"""
    WITH next AS MATERIALIZED (%s)
    UPDATE jobify_job j
    SET status = 'running', attempt = attempt + 1, pool = ?, started_at = ?, lease_until = ?
    FROM next WHERE j.id = next.id
    RETURNING order_key, sequence, {CLAIMED.replace("id,", "j.id,", 1)}"""
# Spelt so that PostgreSQL finds by its id what is looked for by its id. When its statistics have seen no
# running job it takes the index of running jobs for empty; but a held snapshot fills that with dead entries.
RUNNING = "status || '' = 'running'"
# Jobs of one pool are renewed by one thread and ended by another. In whatever order the rest of a statement
# goes through them, it locks them in this one, so that neither waits for what the other waits for.
HELD = "held AS MATERIALIZED (%s ORDER BY j.id FOR NO KEY UPDATE OF j)"
# Whether a transaction is open that has a smaller number than the mark, and jobs or announcements here. Only
# such a one can have read the order that was in force before.
LATE = f"""
    SELECT EXISTS (
        SELECT 1 FROM pg_locks x JOIN pg_locks l ON l.virtualtransaction = x.virtualtransaction
        WHERE x.locktype = 'transactionid' AND x.mode = 'ExclusiveLock' AND x.granted
          AND age(x.transactionid) >= age(mod(?::bigint, 4294967296)::text::xid)
          AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
          AND (l.locktype = 'advisory' OR l.relation = {TABLE}))"""
SNAPSHOTS = """
    SELECT pid, usename, application_name, state,
           extract(epoch FROM clock_timestamp() - xact_start)::double precision
    FROM pg_stat_activity
    WHERE backend_xmin IS NOT NULL AND pid <> pg_backend_pid()
      AND xact_start < clock_timestamp() - make_interval(secs => ?)
    ORDER BY xact_start LIMIT 5"""


class PostgreSQL(Server):
    """A PostgreSQL database."""

    # One round trip. READ COMMITTED whatever the project uses: each statement sees what is committed then.
    begin = (
        "BEGIN ISOLATION LEVEL READ COMMITTED; "
        f"SET LOCAL statement_timeout = '{STATEMENT_TIMEOUT}s'; "
        f"SET LOCAL idle_in_transaction_session_timeout = '{SILENCE_TIMEOUT}s'",
    )
    limits = MappingProxyType(
        {
            "connect_timeout": 10,
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "tcp_user_timeout": 20_000,
        }
    )
    now = "SELECT extract(epoch FROM clock_timestamp())"

    def __init__(self, alias: str, **options: Any) -> None:
        super().__init__(alias, **options)
        self._numbers = itertools.count()
        self._counted: dict[tuple[int, str], tuple[int, int, int]] = {}
        self._tables: dict[str, int] = {}
        self._fronts = Fronts()
        self._speaker = Speaker(alias)

    def beginning(self, patience: float) -> Sequence[str]:
        if patience >= STATEMENT_TIMEOUT:
            return self.begin
        # For a push: what it waits for is a LOCK TABLE, as of a migration.
        (begin,) = self.begin
        return (f"{begin}; SET LOCAL lock_timeout = '{max(1, int(patience * 1000))}ms'",)

    def collided(self, error: DjangoError) -> bool:
        return _code(error) in (DEADLOCK, SERIALIZATION, LOCK_TIMEOUT)

    def lacks_tables(self, error: DjangoError) -> bool:
        return _code(error) in (NO_TABLE, NO_COLUMN)

    def probe(self) -> Probe | None:
        return listening(self.alias, self.say)

    def say(self, kind: str, queue: str = "") -> None:
        with self.deadline():
            self._speaker.say(kind, queue, inside=self.in_transaction())

    def troubles(self, db: Connection) -> Sequence[Trouble]:
        found = db.execute(SNAPSHOTS, (OLD_SNAPSHOT,)).fetchall()
        return [
            Trouble(
                f"session {pid} ({user}, {application or 'no application name'}, {state}) has held a "
                f"snapshot for {age:.0f} s: rows of ended jobs cannot be removed, and claims get slower",
                f"end its transaction, or SELECT pg_terminate_backend({pid})",
            )
            for pid, user, application, state, age in found
        ]

    # The bound

    def room(self, db: Connection, queue: QueueSettings, jobs: int, now: float, least: int = 0) -> Room:
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
        look = self._look(queue, now, least) if least else ()
        numbers, table = [], 0
        for start in range(0, announced, MOST_ANNOUNCED):
            part = min(MOST_ANNOUNCED, announced - start)
            wanted = max(0, min(jobs - start, part))
            statement = ANNOUNCE % (IF_THERE_IS_ROOM if look else "")
            made = db.execute(statement, (wanted, _class(queue.name), self._key(part), *look)).fetchone()
            if made is None:
                return ()
            table, some = made
            numbers += some
            look = ()
        if inside:
            transaction.on_commit(_Announcement(queue.name, table, announced), using=self.alias)
        return numbers

    def _look(self, queue: QueueSettings, now: float, least: int) -> Row:
        """Return the values for a look before an announcement."""
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
        began = time.monotonic()
        waiting, due, delayed = db.execute(COUNT, {"queue": where[1], "now": now}).fetchone()
        if keep:
            # Those announced may have taken smaller numbers; delayed jobs come due without taking another.
            _, _, slow = self._counted.get(where, (0, 0, 0))
            slow = slow + 1 if time.monotonic() - began > SLOW_COUNT else 0
            self._counted[where] = (waiting + delayed + others, numbers[0] - 1, slow)
        return int(waiting + due)

    def note(self, db: Connection, queue: str, waiting: int) -> None:
        # Announced and not used up by pushes; the numbers come after it, as a push's do.
        for start in range(0, waiting, MOST_ANNOUNCED):
            part = min(MOST_ANNOUNCED, waiting - start)
            db.execute(ANNOUNCE % "", (part, _class(queue), self._key(part))).fetchone()

    def _announced(self, queue: str) -> list[_Announcement]:
        """What this transaction has announced, for the table of the last one. As long as its lock is held it
        is found among the callbacks, for Django drops it from there where a savepoint is rolled back."""
        callbacks = (callback for _, callback, *_ in self._wrapper.run_on_commit)
        mine = [one for one in callbacks if isinstance(one, _Announcement) and one.queue == queue]
        return [one for one in mine if one.table == mine[-1].table]

    def insert(self, db: Connection, queue: str, rows: Sequence[Row]) -> Sequence[str]:
        fresh: list[str] = []
        for part in chunks(rows):
            new = ", ".join([NEW] * len(part))
            values = [value for row in part for value in row]
            statement = f"INSERT {INTO} VALUES {new} ON CONFLICT (id) DO NOTHING RETURNING id"
            fresh += [id for (id,) in db.execute(statement, values).fetchall()]
        if announced := self._announced(queue):
            announced[-1].used += len(fresh)
        return fresh

    def mark(self, db: Connection) -> int:
        return int(db.execute("SELECT pg_current_xact_id()::text::bigint").fetchone()[0])

    def may_come_late(self, db: Connection, mark: int) -> bool:
        return bool(db.execute(LATE, (mark,)).fetchone()[0])

    def deadline(self) -> AbstractContextManager[object]:
        return watchdog.limit(self._wrapper.connection, DEADLINE)

    # Where SQL differs

    def blind(self, queue: str) -> bool:
        return queue in self._fronts

    def suspect(self, db: Connection, queue: str, unknown: Sequence[str]) -> str:
        front = self._fronts.of(queue, db)
        but = f"AND task NOT IN {marks(unknown)}" if unknown else ""
        if front is None:
            found = db.execute(HEAD % but, (queue, *unknown)).fetchone()
        else:
            found = db.execute(HEAD_BY_FRONT % but, (*front.parts, queue, *unknown)).fetchone()
        return found[0] if found else ""

    def promote(self, db: Connection, queue: str, now: float) -> None:
        # Nothing to note: delayed jobs are in every ceiling.
        due = db.execute(f"{PROMOTE} RETURNING order_key, sequence", (queue, now)).fetchall()
        self._fronts.strayed(queue, due)

    def take_turn(self, db: Connection, queue: str) -> None:
        db.execute(f"SELECT pg_advisory_xact_lock({CLASS}, 0)", (_class(f"turn.{queue}"),)).fetchone()

    def start(self, db: Connection, pool: str, which: Which, now: float, until: float) -> list[Row]:
        front = self._fronts.of(which.queue, db)
        if front is None:
            began = time.monotonic()
            values = (*which.values, which.want, pool, now, until)
            rows = db.execute(START % (NEXT % which.condition), values).fetchall()
            self._fronts.claimed(which.queue, time.monotonic() - began)
        else:
            parts = (*front.parts, *which.values, which.want, which.want, pool, now, until)
            rows = db.execute(START % (NEXT_BY_FRONT % which.condition), parts).fetchall()
            front.started(row[:2] for row in rows)
        # RETURNING keeps no order.
        return [row[2:] for row in sorted(rows)]

    def renew(
        self, db: Connection, pool: str, held: Sequence[tuple[str, int]], until: float
    ) -> Mapping[str, bool]:
        found: dict[str, bool] = {}
        for part in chunks(held):
            pairs = ", ".join(["(?, ?)"] * len(part))
            mine = f"""
                SELECT id FROM jobify_job j WHERE (id, attempt) IN ({pairs}) AND pool = ? AND {RUNNING}"""
            statement = f"""
                WITH {HELD % mine}
                UPDATE jobify_job j SET lease_until = ?
                FROM held WHERE j.id = held.id
                RETURNING j.id, cancel_requested"""
            values = [value for pair in part for value in pair]
            found.update(db.execute(statement, (*values, pool, until)).fetchall())
        return found

    def finish(self, db: Connection, rows: Sequence[Row]) -> Collection[tuple[str, int]]:
        ended: list[tuple[str, int]] = []
        for part in chunks(rows):
            outcomes = ", ".join(["(?, ?, ?, ?::double precision, ?, ?::integer)"] * len(part))
            mine = f"""
                SELECT v.* FROM jobify_job j,
                    (VALUES {outcomes}) v (status, result, error, ended_at, id, attempt)
                WHERE j.id = v.id AND j.attempt = v.attempt AND j.{RUNNING}"""
            statement = f"""
                WITH {HELD % mine}
                UPDATE jobify_job j
                SET status = held.status, result = held.result, error = held.error, ended_at = held.ended_at,
                    lease_until = NULL
                FROM held WHERE j.id = held.id
                RETURNING j.id, j.attempt"""
            values = [value for row in part for value in row]
            ended += db.execute(statement, values).fetchall()
        return ended


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


def _code(error: BaseException) -> str:
    cause = error.__cause__
    return getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None) or ""
