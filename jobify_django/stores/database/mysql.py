"""MariaDB's and MySQL's way: SELECT ... SKIP LOCKED, then UPDATE; and one push at a time for each queue.

Neither has UPDATE ... RETURNING, partial indexes or locks that end with the transaction, so the bound is
kept by the lock of the queue's row: a push holds it until its transaction ends. Claims never take it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from typing import Any

from django.db import Error as DjangoError

from jobify_django.conf import QueueSettings
from jobify_django.job import Claim
from jobify_django.stores.database import columns
from jobify_django.stores.database.add import Room, known_ids
from jobify_django.stores.database.claim import Selection
from jobify_django.stores.database.connection import (
    Connection,
    Held,
    Row,
    Statements,
    by_rows,
    change_by_ids,
    chunks,
    translate,
)
from jobify_django.stores.database.query import UNENDED
from jobify_django.stores.database.server import SILENCE_TIMEOUT, ServerTransactions
from jobify_django.stores.database.store import DatabaseStore
from jobify_django.stores.value import Diagnosis

LOCK_TIMEOUT, DEADLOCK = 1205, 1213
OLD_TRANSACTION = 60
"""Seconds after which an open transaction is worth a word."""

NO_TABLE, NO_COLUMN = 1146, 1054

# What finds nothing lets a push begin as a writer of the jobs too. One that has read them, and then wants to
# write, would be a deadlock with a migration that waits to alter the table. It costs 20 microseconds.
LOCK = """
    SELECT maxsize, `order`, sequence FROM jobify_queue
    WHERE name = ? AND (SELECT id FROM jobify_job WHERE FALSE FOR UPDATE) IS NULL FOR UPDATE"""
LONGEST_LOCK = 10
"""Seconds one statement waits for a row: less than the driver waits for its answer."""

PACKET = 2**20
"""Bytes of arguments in one statement: the server's ``max_allowed_packet`` is 16 times as much by default."""

WAITING = """
    SELECT (SELECT count(*) FROM jobify_job WHERE queue = :queue AND status = 'waiting'),
           (SELECT count(*) FROM jobify_job
            WHERE queue = :queue AND status = 'delayed' AND eligible_at <= :now)"""
NEXT = f"""
    SELECT {columns.column_list(Claim._fields, {"attempt": "attempt + 1", "started_at": "0e0"})}
    FROM jobify_job
    WHERE %s ORDER BY order_key, sequence LIMIT ? FOR UPDATE SKIP LOCKED"""
START = """
    UPDATE jobify_job
    SET status = 'running', attempt = attempt + 1, pool = ?, started_at = ?, lease_until = ? WHERE id IN """
HELD = """
    SELECT id, attempt, cancel_requested FROM jobify_job
    WHERE id IN (%s) AND pool = ? AND status = 'running' ORDER BY id FOR UPDATE"""
RENEW = "UPDATE jobify_job SET lease_until = ? WHERE id IN "
LONG = """
    SELECT trx_mysql_thread_id, timestampdiff(SECOND, trx_started, now()) FROM information_schema.innodb_trx
    WHERE trx_started < now() - INTERVAL ? SECOND ORDER BY trx_started LIMIT 5"""


NEXT_NAME = "SELECT min(queue) FROM jobify_job WHERE queue > ?"
ANY = "SELECT 1 FROM jobify_job WHERE queue = ? AND status = '%s' LIMIT 1"

# A database's own collation hardly ever tells upper case from lower, and Python's names do.
TASK_IN = re.compile(r"\b(\w+\.)?task NOT IN")
EXACT_TASK = r"CONVERT(\1task USING utf8mb4) COLLATE utf8mb4_bin NOT IN"


class MySQLStore(ServerTransactions, DatabaseStore):
    """Jobs in a MariaDB or MySQL database."""

    _begin_with = ("SET TRANSACTION ISOLATION LEVEL READ COMMITTED", "START TRANSACTION")
    _limits: Mapping[str, Any] = {"connect_timeout": 10, "read_timeout": 20, "write_timeout": 20}
    _select_time = "SELECT unix_timestamp(now(6))"
    _longer_history = (
        "concat(CASE WHEN left(history, 2) = '[{' AND right(history, 2) = '}]' "
        "THEN concat(left(history, char_length(history) - 1), ', ') ELSE '[' END, ?, ']')"
    )

    def _queues(self, db: Connection) -> list[str]:
        # From name to name of all queues that have rows, a look-up each: in one statement the planner would
        # go through the index of all rows.
        found = []
        name = ""
        while (name := db.execute(NEXT_NAME, (name,)).fetchone()[0]) is not None:
            if any(db.execute(ANY % status, (name,)).fetchone() for status in UNENDED):
                found.append(name)
        return found

    def open(self) -> None:
        super().open()
        wrapper: Any = self._wrapper
        theirs = type(wrapper).init_connection_state.__get__(wrapper)

        def init_connection_state() -> None:
            theirs()
            if wrapper.mysql_is_mariadb:  # MySQL has nothing like it
                with wrapper.cursor() as cursor:
                    cursor.execute(f"SET SESSION idle_transaction_timeout = {SILENCE_TIMEOUT}")

        wrapper.init_connection_state = init_connection_state

    def _collided(self, error: DjangoError) -> bool:
        return _code(error) in (LOCK_TIMEOUT, DEADLOCK)

    def _lacks_tables(self, error: DjangoError) -> bool:
        return _code(error) in (NO_TABLE, NO_COLUMN)

    @staticmethod
    def _spell(statement: str) -> str:
        return spell(statement)

    # A push holds the row's lock until its transaction ends, and so must whoever else goes by the order.
    @property
    def _keep_order(self) -> str:  # type: ignore[override]
        return self._for_update

    @property
    def _for_update(self) -> str:  # type: ignore[override]
        return f"FOR UPDATE WAIT {LONGEST_LOCK}" if self._mariadb else "FOR UPDATE"

    @property
    def _mariadb(self) -> bool:
        wrapper: Any = self._wrapper
        return bool(wrapper.mysql_is_mariadb)

    def _lock(self, db: Connection, queue: str) -> Any:
        """Lock a queue's row, and return its columns."""
        return db.execute(self._with_lock_timeout(db, LOCK), (queue,)).fetchone()

    def _with_lock_timeout(self, db: Connection, statement: str) -> str:
        """Return a statement that waits for others' locks as long as its caller may."""
        left = db.lock_timeout if isinstance(db, Statements) else LONGEST_LOCK
        wait = f"innodb_lock_wait_timeout = {min(LONGEST_LOCK, max(1, math.ceil(left)))}"
        if self._mariadb:
            return f"SET STATEMENT {wait} FOR {statement}"
        verb, rest = statement.split(maxsplit=1)
        return f"{verb} /*+ SET_VAR({wait}) */ {rest}"

    def diagnose(self) -> Sequence[Diagnosis]:
        found = self._read(lambda db: db.execute(LONG, (OLD_TRANSACTION,)).fetchall())
        return [
            Diagnosis(
                f"session {thread} has had a transaction open for {age} s: rows of ended jobs cannot be "
                "purged, and a push in it holds up every other push to its queue",
                f"end its transaction, or KILL {thread}",
            )
            for thread, age in found
        ]

    # The bound

    def _room(self, db: Connection, queue: QueueSettings, jobs: int, now: float, least: int) -> Room:
        maxsize, order, sequence = self._locked_queue(db, queue.name)
        waiting, due = db.execute(WAITING, {"queue": queue.name, "now": now}).fetchone()
        return Room(maxsize, order or None, waiting + due, count(sequence + 1))

    def _locked_queue(self, db: Connection, queue: str) -> Row:
        """Lock a queue's row, which is made if it is not there, and return its columns."""
        found: Row | None = self._lock(db, queue)
        if found is None:
            self._ensure_queue(db, queue)
            found = self._lock(db, queue)
        return found

    def _insert(self, db: Connection, queue: str, jobs: Sequence[columns.NewJob]) -> set[str]:
        known = known_ids(db, [job.id for job in jobs])
        fresh = [job for job in jobs if job.id not in known]
        for new in _by_size(fresh):
            statement = f"INSERT {columns.INTO_JOB} VALUES {', '.join([columns.NEW_JOB] * len(new))}"
            db.execute(statement, [value for job in new for value in job])
        db.execute("UPDATE jobify_queue SET sequence = ? WHERE name = ?", (jobs[-1].sequence, queue))
        return {job.id for job in fresh}

    # Where SQL differs

    _beat = f"{columns.NEW_POOL} ON DUPLICATE KEY UPDATE seen_at = VALUES(seen_at), queues = VALUES(queues)"

    def _ensure_queue(self, db: Connection, queue: str) -> None:
        db.execute(
            self._with_lock_timeout(db, f"{columns.NEW_QUEUE} ON DUPLICATE KEY UPDATE name = name"), (queue,)
        )

    def _lock_claims(self, db: Connection, queue: str) -> None:
        # A row of its own: a push may hold the queue's row for as long as its transaction takes.
        self._locked_queue(db, f":{queue}"[:64])

    def _start(
        self, db: Connection, pool: str, selection: Selection, now: float, until: float
    ) -> list[Claim]:
        rows = db.execute(NEXT % selection.condition, (*selection.values, selection.want)).fetchall()
        claims = [columns.to_claim(row)._replace(started_at=now) for row in rows]
        change_by_ids(db, START, [claim.id for claim in claims], pool, now, until)
        return claims

    def _renew(self, db: Connection, pool: str, held: Held, until: float) -> dict[str, bool]:
        attempts = dict(held)
        rows = by_rows(db, HELD, "?", [(id,) for id in attempts], after=(pool,))
        found = {id: bool(cancel) for id, attempt, cancel in rows if attempts[id] == attempt}
        change_by_ids(db, RENEW, list(found), until)
        return found


def spell(statement: str) -> str:
    """Return a statement of the store's as the server takes it."""
    return TASK_IN.sub(EXACT_TASK, translate(statement).replace('"', "`"))


def _by_size(jobs: Sequence[columns.NewJob]) -> Iterator[Sequence[columns.NewJob]]:
    """Return jobs in parts whose statement the server takes in one packet."""
    for part in chunks(jobs):
        start = size = 0
        for end, job in enumerate(part):
            size += len(job.arguments)
            if size > PACKET and end > start:
                yield part[start:end]
                start, size = end, len(job.arguments)
        yield part[start:]


def _code(error: BaseException) -> int:
    arguments = error.args
    return arguments[0] if arguments and isinstance(arguments[0], int) else 0
