"""SQLite's way: one writer at a time, so nothing is locked by itself, and a counter keeps the bound.

``jobify_queue.waiting`` counts a queue's waiting jobs. It changes in the transaction that changes them, so
checking the bound costs the same however many wait; ``repair`` mends it when somebody has changed rows by
hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from pathlib import Path

from jobify_django.conf import MAX_MAXSIZE, QueueSettings
from jobify_django.exceptions import StoreError
from jobify_django.file import moved
from jobify_django.job import Claim, JobSpec
from jobify_django.stores.database.add import Room, new_job
from jobify_django.stores.database.change_detector import FileChangeDetector, InotifyWatch
from jobify_django.stores.database.claim import Selection
from jobify_django.stores.database.columns import CLAIM, INTO_JOB, NEW_JOB, NewJob, to_claim
from jobify_django.stores.database.connection import Connection, Held, Row, by_rows
from jobify_django.stores.database.reading import order_from, timestamp_or_none, within
from jobify_django.stores.database.settle import End
from jobify_django.stores.database.sqlite_session import QueueRow, Session
from jobify_django.stores.database.sqlite_transaction import SQLiteTransactions, raw_connection
from jobify_django.stores.database.store import DatabaseStore
from jobify_django.stores.notifier import ChangeDetector
from jobify_django.stores.value import Added, Diagnosis

LARGE_LOG = 64 * 2**20
"""Bytes of a write-ahead log that are worth a word."""

# Statuses stand in the text of statements, not as parameters: only then does SQLite use a partial index.
ROOM = """
    SELECT maxsize, "order", sequence, waiting,
           (SELECT min(eligible_at) FROM jobify_job WHERE queue = q.name AND status = 'delayed')
    FROM jobify_queue q WHERE name = ?"""
DUE = "SELECT count(*) FROM jobify_job WHERE queue = ? AND status = 'delayed' AND eligible_at <= ?"
INSERT = f"INSERT {INTO_JOB} VALUES {NEW_JOB} ON CONFLICT (id) DO NOTHING"
ADDED = "UPDATE jobify_queue SET waiting = waiting + ?, sequence = ? WHERE name = ?"
COUNT = "UPDATE jobify_queue SET waiting = waiting + ? WHERE name = ?"
START = f"""
    UPDATE jobify_job
    SET status = 'running', attempt = attempt + 1, pool = ?, started_at = ?, lease_until = ?
    WHERE rowid IN (SELECT rowid FROM jobify_job WHERE %s
                    ORDER BY order_key, sequence LIMIT ?)
    RETURNING order_key, sequence, {CLAIM}"""
END = """
    UPDATE jobify_job SET status = ?, result = ?, error = ?, ended_at = ?, lease_until = NULL
    WHERE (id, attempt) IN (VALUES %s) AND status = 'running'
    RETURNING id, attempt"""
RENEW = """
    UPDATE jobify_job SET lease_until = ?
    WHERE (id, attempt) IN (VALUES %s) AND pool = ? AND status = 'running'
    RETURNING id, cancel_requested"""
WRONG = """
    FROM jobify_queue WHERE waiting <>
        (SELECT count(*) FROM jobify_job WHERE queue = name AND status = 'waiting')"""
MEND = """
    UPDATE jobify_queue SET waiting =
        (SELECT count(*) FROM jobify_job WHERE queue = name AND status = 'waiting')"""


class SQLiteStore(SQLiteTransactions, DatabaseStore):
    """Jobs in a SQLite file."""

    # So spelt, it does not go by the index of all ids, but by the partial one of the status.
    _few_by_id = "+id"

    # The bound

    def _add(
        self, queue: QueueSettings, specs: Sequence[JobSpec], all_or_nothing: bool, db: Connection
    ) -> Added:
        row = db.rows.get(queue.name) if len(specs) == 1 and isinstance(db, Session) else None
        if isinstance(db, Session) and row and (added := self._add_one(db, queue, row, specs[0])):
            return added
        return super()._add(queue, specs, all_or_nothing, db)

    def _add_one(self, db: Session, queue: QueueSettings, row: QueueRow, spec: JobSpec) -> Added | None:
        """Add a job to a queue whose row is known, in half the time; ``None`` for what is not that simple."""
        now = self.clock()
        maxsize, order = row.maxsize or queue.maxsize, row.order or queue.order
        number, waiting = row.sequence + 1, row.waiting + 1
        job = new_job(queue.name, order, spec, number, now, spec.eligible_at(now))
        if job.status != "waiting" or waiting > maxsize or (row.due is not None and row.due <= now):
            return None
        if not db.execute(INSERT, job).rowcount:
            return None
        db.execute(ADDED, (1, number, queue.name))
        db.note(queue.name, QueueRow(row.maxsize, row.order, number, waiting, row.due))
        return Added(1, waiting, maxsize, (), order, now)

    def _room(self, db: Connection, queue: QueueSettings, jobs: int, now: float, least: int) -> Room:
        row = db.rows.get(queue.name) if isinstance(db, Session) else None
        if row is None:
            found = db.execute(ROOM, (queue.name,)).fetchone()
            if found is None:
                self._ensure_queue(db, queue.name)
                return Room(None, None, 0, count(1))
            row = _row(*found)
            if isinstance(db, Session):
                db.note(queue.name, row)
        waiting = row.waiting
        if row.due is not None and row.due <= now:
            waiting += db.execute(DUE, (queue.name, now)).fetchone()[0]
        return Room(row.maxsize, row.order, waiting, count(row.sequence + 1))

    def _insert(self, db: Connection, queue: str, jobs: Sequence[NewJob]) -> set[str]:
        fresh = [job for job in jobs if db.execute(INSERT, job).rowcount]
        waiting = sum(job.status == "waiting" for job in fresh)
        db.execute(ADDED, (waiting, jobs[-1].sequence, queue))
        # A delayed job may be the next one that is due: then the row is read anew.
        if isinstance(db, Session) and waiting == len(fresh) and (row := db.rows.get(queue)):
            db.note(queue, row._replace(sequence=jobs[-1].sequence, waiting=row.waiting + waiting))
        return {job.id for job in fresh}

    def _note_waiting(self, db: Connection, queue: str, waiting: int, delayed: int = 0) -> None:
        if waiting:
            db.execute(COUNT, (waiting, queue))

    def repair(self) -> bool:
        if not self._read(lambda db: db.execute(f"SELECT 1 {WRONG}").fetchone()):
            return False
        self._write(lambda db: db.execute(MEND))
        self.notifier.publish("room", None)
        return True

    # A job's way

    def _start(
        self, db: Connection, pool: str, selection: Selection, now: float, until: float
    ) -> list[Claim]:
        values = (pool, now, until, *selection.values, selection.want)
        # RETURNING keeps no order.
        rows = sorted(db.execute(START % selection.condition, values).fetchall())
        self._note_waiting(db, selection.queue, -len(rows))
        return [to_claim(claim) for _, _, *claim in rows]

    def _end(self, db: Connection, ends: Sequence[End]) -> set[tuple[str, int]]:
        # Most jobs end well and return nothing: they share a statement.
        alike: dict[Row, list[tuple[str, int]]] = {}
        for *end, id, attempt in ends:
            alike.setdefault(tuple(end), []).append((id, attempt))
        ended: set[tuple[str, int]] = set()
        for values, held in alike.items():
            ended.update(by_rows(db, END, "(?, ?)", held, before=values))
        return ended

    def _renew(self, db: Connection, pool: str, held: Held, until: float) -> dict[str, bool]:
        return dict(by_rows(db, RENEW, "(?, ?)", held, before=(until,), after=(pool,)))

    # Looking

    def change_detector(self) -> ChangeDetector:
        wrapper = self._here()
        execute = raw_connection(wrapper).cursor().execute

        def version() -> object:
            if moved(wrapper):
                # The next change detector opens that one.
                raise StoreError(f"database {self._database!r} is another file now.")
            return execute("PRAGMA data_version").fetchone()[0]

        def watch() -> InotifyWatch | None:
            path = execute("PRAGMA database_list").fetchone()[2]
            if not path:
                return None  # it is in memory
            wal = execute("PRAGMA journal_mode").fetchone()[0] == "wal"
            try:
                return InotifyWatch(Path(f"{path}-wal" if wal else path))
            except OSError:
                return None

        return FileChangeDetector(version, watch, self.runtime)

    def diagnose(self) -> Sequence[Diagnosis]:
        log = Path(f"{self._wrapper.settings_dict['NAME']}-wal")
        size = log.stat().st_size if log.exists() else 0
        if size < LARGE_LOG:
            return ()
        return [
            Diagnosis(
                f"{log.name} takes {size / 2**20:.0f} MiB: a reader has kept SQLite from emptying it",
                "end the long reader (a backup, a shell), then PRAGMA wal_checkpoint(TRUNCATE)",
            )
        ]


def _row(maxsize: object, order: object, sequence: int, waiting: int, due: object) -> QueueRow:
    return QueueRow(
        within(maxsize, MAX_MAXSIZE), order_from(order), sequence, waiting, timestamp_or_none(due)
    )
