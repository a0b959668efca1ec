"""PostgreSQL's way: SKIP LOCKED for claims, announcements for the bound (``announcement``), and a way past
the dead rows that a held snapshot keeps (``watermark``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from django.db import Error as DjangoError

from jobify_django.job import Claim
from jobify_django.stores.database.announcement import TABLE
from jobify_django.stores.database.claim import DUE, Selection
from jobify_django.stores.database.columns import CLAIM, to_claim
from jobify_django.stores.database.connection import Connection, placeholders, sql_state
from jobify_django.stores.database.exchange import Exchanging
from jobify_django.stores.database.listener import ListenDetector, NotifySender
from jobify_django.stores.database.pools import BEAT, LEASES, synced, what_to_know
from jobify_django.stores.database.server import SILENCE_TIMEOUT, STATEMENT_TIMEOUT
from jobify_django.stores.database.store import DatabaseStore
from jobify_django.stores.database.ticketing import Ticketing
from jobify_django.stores.database.watchdog import watchdog
from jobify_django.stores.database.watermark import PARTS, WITHIN
from jobify_django.stores.notifier import ChangeDetector
from jobify_django.stores.value import Diagnosis, PoolRecord, Synced

DEADLINE = 20.0
"""Seconds a transaction of our own may take; then the server has gone, whatever the socket says."""

OLD_SNAPSHOT = 60
"""Seconds after which a transaction that holds a snapshot is worth a word."""

DEADLOCK, SERIALIZATION, LOCK_TIMEOUT = "40P01", "40001", "55P03"
NO_TABLE, NO_COLUMN = "42P01", "42703"

NEXT = """
        SELECT id FROM jobify_job WHERE %s
        ORDER BY order_key, sequence LIMIT ? FOR UPDATE SKIP LOCKED"""
# The parts are gone through in order and only as far as it takes, so no more is locked than is started.
NEXT_BY_WATERMARK = f"""
        SELECT job.id FROM {PARTS} CROSS JOIN LATERAL ({NEXT.replace("%s", f"%s AND {WITHIN}")}) job
        ORDER BY part.ordinal LIMIT ?"""
HEAD = """
    SELECT CASE crashes WHEN 0 THEN '' ELSE id END FROM jobify_job
    WHERE queue = ? AND status = 'waiting' %s ORDER BY order_key, sequence LIMIT 1"""
HEAD_BY_WATERMARK = f"""
    SELECT job.id FROM {PARTS} CROSS JOIN LATERAL (
        SELECT CASE crashes WHEN 0 THEN '' ELSE id END AS id FROM jobify_job
        WHERE queue = ? AND status = 'waiting' %s AND {WITHIN} ORDER BY order_key, sequence LIMIT 1) job
    ORDER BY part.ordinal LIMIT 1"""
START = f"""
    WITH next AS MATERIALIZED (%s)
    UPDATE jobify_job j
    SET status = 'running', attempt = attempt + 1, pool = ?, started_at = ?, lease_until = ?
    FROM next WHERE j.id = next.id
    RETURNING order_key, sequence, {CLAIM.replace("id,", "j.id,", 1)}"""
NOW = "extract(epoch FROM clock_timestamp())"
BEAT_INSIDE = f"WITH beat AS ({BEAT}) "
# A transaction by itself, which need not wait for the disk: a heartbeat is out of date in seconds anyway.
BEAT_APART = f"WITH beat AS ({BEAT} WHERE set_config('synchronous_commit', 'off', true) <> '') "
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


class PostgreSQLStore(Exchanging, Ticketing, DatabaseStore):
    """Jobs in a PostgreSQL database."""

    # One round trip. READ COMMITTED whatever the project uses: each statement sees what is committed then.
    _begin_with = (
        "BEGIN ISOLATION LEVEL READ COMMITTED; "
        f"SET LOCAL statement_timeout = '{STATEMENT_TIMEOUT}s'; "
        f"SET LOCAL idle_in_transaction_session_timeout = '{SILENCE_TIMEOUT}s'",
    )
    _limits: Mapping[str, Any] = {
        "connect_timeout": 10,
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 20_000,
    }
    _select_time = f"SELECT {NOW}"

    def _set_up(self) -> None:
        super()._set_up()
        self._notify_sender = NotifySender(self._database, self.runtime)

    # A job's way

    def _first_in_quarantine(self, db: Connection, queue: str, unknown_tasks: Sequence[str]) -> str:
        watermark = self._watermarks.of(queue, db)
        but = f"AND task NOT IN {placeholders(unknown_tasks)}" if unknown_tasks else ""
        head, parts = (HEAD_BY_WATERMARK, watermark.parts) if watermark else (HEAD, ())
        found = db.execute(head % but, (*parts, queue, *unknown_tasks)).fetchone()
        return found[0] if found else ""

    def _promote(self, db: Connection, queue: str, now: float) -> None:
        # Nothing to note: delayed jobs are in every ceiling.
        due = db.execute(f"{DUE} RETURNING order_key, sequence", (queue, now)).fetchall()
        self._watermarks.note_late_arrivals(queue, due)

    def _start(
        self, db: Connection, pool: str, selection: Selection, now: float, until: float
    ) -> list[Claim]:
        watermark = self._watermarks.of(selection.queue, db)
        if watermark is None:
            began = self.runtime.monotonic()
            values = (*selection.values, selection.want, pool, now, until)
            rows = db.execute(START % (NEXT % selection.condition), values).fetchall()
            self._watermarks.claimed(selection.queue, self.runtime.monotonic() - began)
        else:
            parts = (*watermark.parts, *selection.values, selection.want, selection.want, pool, now, until)
            rows = db.execute(START % (NEXT_BY_WATERMARK % selection.condition), parts).fetchall()
            watermark.started((key, number) for key, number, *_ in rows)
        # RETURNING keeps no order.
        return [to_claim(claim) for _, _, *claim in sorted(rows)]

    def _heartbeat(self, db: Connection, pool: PoolRecord, values: Sequence[object]) -> Synced:
        beat = BEAT_INSIDE if self.in_transaction() else BEAT_APART
        select, known = what_to_know(pool.id, pool.queues, (*LEASES, NOW))
        began = self.runtime.monotonic()
        rows = db.execute(beat + select, (*values, *known)).fetchall()
        self._server_clock.note(began, next(row[-1] for row in rows if row[-1] is not None))
        return synced(rows, pool.queues)

    # A changed order

    def _mark(self, db: Connection) -> int:
        return int(db.execute("SELECT pg_current_xact_id()::text::bigint").fetchone()[0])

    def _may_come_late(self, db: Connection, mark: int) -> bool:
        return bool(db.execute(LATE, (mark,)).fetchone()[0])

    # Time limits and notifications

    def _beginning(self, lock_timeout: float) -> Sequence[str]:
        if lock_timeout >= STATEMENT_TIMEOUT:
            return self._begin_with
        # For a push: what it waits for is a LOCK TABLE, as of a migration.
        (begin,) = self._begin_with
        return (f"{begin}; SET LOCAL lock_timeout = '{max(1, int(lock_timeout * 1000))}ms'",)

    def _collided(self, error: DjangoError) -> bool:
        return sql_state(error) in (DEADLOCK, SERIALIZATION, LOCK_TIMEOUT)

    def _lacks_tables(self, error: DjangoError) -> bool:
        return sql_state(error) in (NO_TABLE, NO_COLUMN)

    def change_detector(self) -> ChangeDetector | None:
        wrapper: Any = self._wrapper
        if wrapper.Database.__name__ != "psycopg":
            return None
        return ListenDetector(self._database, lambda echo: self._notify_others([(echo, "")]), self.runtime)

    def _notify_others(self, changes: Sequence[tuple[str, str]]) -> None:
        with self._deadline():
            self._notify_sender.send(changes, at_commit=self.in_transaction())

    def diagnose(self) -> Sequence[Diagnosis]:
        found = self._read(lambda db: db.execute(SNAPSHOTS, (OLD_SNAPSHOT,)).fetchall())
        return [
            Diagnosis(
                f"session {pid} ({user}, {application or 'no application name'}, {state}) has held a "
                f"snapshot for {age:.0f} s: rows of ended jobs cannot be removed, and claims get slower",
                f"end its transaction, or SELECT pg_terminate_backend({pid})",
            )
            for pid, user, application, state, age in found
        ]

    def _deadline(self) -> AbstractContextManager[object]:
        return watchdog.limit(self._wrapper.connection, DEADLINE)
