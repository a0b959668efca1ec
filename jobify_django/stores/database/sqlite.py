"""SQLite's way: short IMMEDIATE transactions of our own, and patience of our own when it is locked.

It uses the Django connection of the calling thread, below Django's cursors: a push costs a few
statements of a few microseconds each, and the wrappers around a cursor cost more than that.

``jobify_queue.waiting`` counts a queue's waiting jobs. It changes in the transaction that changes them, so
checking the bound costs the same however many wait; ``repair`` mends it when somebody has changed rows by
hand.
"""

from __future__ import annotations

import contextlib
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from django.db import Error as DjangoError
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.transaction import TransactionManagementError

from jobify_django.conf import QueueSettings
from jobify_django.exceptions import StoreBusy, StoreError
from jobify_django.file import moved
from jobify_django.stores.database.database import (
    CLAIMED,
    INTO,
    NEW,
    PATIENCE,
    Connection,
    Database,
    Room,
    Row,
    Which,
    autocommits,
    chunks,
    patient,
    unmigrated,
)
from jobify_django.stores.database.looking import Looking, Watch
from jobify_django.stores.database.place import Place
from jobify_django.stores.database.server import Statements, translate
from jobify_django.stores.hints import Probe
from jobify_django.stores.value import Trouble

T = TypeVar("T")

# SQLite's own busy handler sleeps up to 100 ms at a time, so under many writers the unlucky one waits for
# seconds. Short, jittered sleeps of our own keep the waits short and fair.
FIRST_SLEEP = 0.0003
LONGEST_SLEEP = 0.008

LARGE_LOG = 64 * 2**20
"""Bytes of a write-ahead log that are worth a word."""

# Deletes nothing, and takes the write lock. As the first statement of a transaction it waits for its turn; a
# read before it would make SQLite refuse at once ("database is locked") while another connection writes.
TAKE_LOCK = "DELETE FROM jobify_queue WHERE 0"

# Statuses stand in the text of statements, not as parameters: only then does SQLite use a partial index.
ROOM = """
    SELECT maxsize, "order", sequence, waiting,
           (SELECT count(*) FROM jobify_job
            WHERE queue = :queue AND status = 'delayed' AND eligible_at <= :now)
    FROM jobify_queue WHERE name = :queue"""
INSERT = f"INSERT {INTO} VALUES {NEW} ON CONFLICT (id) DO NOTHING"
ADDED = "UPDATE jobify_queue SET waiting = waiting + ?, sequence = ? WHERE name = ?"
COUNT = "UPDATE jobify_queue SET waiting = waiting + ? WHERE name = ?"
START = f"""
    UPDATE jobify_job
    SET status = 'running', attempt = attempt + 1, pool = ?, started_at = ?, lease_until = ?
    WHERE rowid IN (SELECT rowid FROM jobify_job WHERE %s
                    ORDER BY order_key, sequence LIMIT ?)
    RETURNING order_key, sequence, {CLAIMED}"""
WRONG = """
    FROM jobify_queue WHERE waiting <>
        (SELECT count(*) FROM jobify_job WHERE queue = name AND status = 'waiting')"""
MEND = """
    UPDATE jobify_queue SET waiting =
        (SELECT count(*) FROM jobify_job WHERE queue = name AND status = 'waiting')"""


class SQLite(Database):
    """A SQLite file.

    Args:
        alias: its key in ``settings.DATABASES``.
        sleep: how it waits between tries at a locked database.
    """

    def __init__(self, alias: str, sleep: Callable[[float], None] = time.sleep) -> None:
        super().__init__(alias)
        self._sleep = sleep
        # Threads of one process queue here instead of racing for the file's lock.
        self._mutex = threading.Lock()
        self._place = Place(alias)

    # Transactions

    def read(self, work: Callable[[Connection], T]) -> T:
        wrapper = self._here()
        try:
            raw = _raw(wrapper)
            return _legibly(
                raw, partial(self._persistently, partial(work, _statements(wrapper, raw)), PATIENCE)
            )
        except (sqlite3.Error, DjangoError) as error:
            self._explain(error)

    def write(
        self, work: Callable[[Connection], T], *, again: bool = False, patience: float | None = None
    ) -> T:
        # Looked up once: finding one of Django's connections takes as long as a statement.
        wrapper = self._here()
        limit = patient(patience)
        try:
            raw = _raw(wrapper)
            db = _statements(wrapper, raw)
            if raw.in_transaction or not (wrapper.autocommit or wrapper.in_atomic_block):
                self._take_lock(raw, wrapper, limit)
                return _legibly(raw, partial(work, db))
            return _legibly(raw, partial(self._transact, work, db, raw, wrapper, limit))
        except (sqlite3.Error, DjangoError) as error:
            self._explain(error, limit)

    def _transact(
        self,
        work: Callable[[Connection], T],
        db: Connection,
        raw: sqlite3.Connection,
        wrapper: BaseDatabaseWrapper,
        limit: float,
    ) -> T:
        until = time.monotonic() + limit
        if not self._mutex.acquire(timeout=limit):
            raise self._busy(limit)
        try:
            self._begin(raw, wrapper, until - time.monotonic())
            try:
                value = work(db)
                self._persistently(partial(raw.execute, "COMMIT"), limit)
            except BaseException:
                self._roll_back(raw)
                raise
            return value
        finally:
            self._mutex.release()

    def in_transaction(self) -> bool:
        """Whether this thread has a transaction open on the database."""
        return _in_transaction(self._wrapper)

    def legible(self) -> AbstractContextManager[None]:
        return _legible(_raw(self._here()))

    def probe(self) -> Probe:
        wrapper = self._here()
        execute = _raw(wrapper).cursor().execute

        def version() -> object:
            if moved(wrapper):
                raise StoreError(
                    f"database {self.alias!r} is another file now."
                )  # and the next probe is there
            return execute("PRAGMA data_version").fetchone()[0]

        def watch() -> Watch | None:
            path = execute("PRAGMA database_list").fetchone()[2]
            if not path:
                return None  # it is in memory
            wal = execute("PRAGMA journal_mode").fetchone()[0] == "wal"
            try:
                return Watch(Path(f"{path}-wal" if wal else path))
            except OSError:
                return None

        return Looking(version, watch)

    def has_tables(self) -> bool:
        name = str(self._wrapper.settings_dict["NAME"])
        if not name.startswith((":memory:", "file:")) and not Path(name).exists():
            return False  # looking would make the file
        return super().has_tables()

    def troubles(self, db: Connection) -> Sequence[Trouble]:
        log = Path(f"{self._wrapper.settings_dict['NAME']}-wal")
        size = log.stat().st_size if log.exists() else 0
        if size < LARGE_LOG:
            return ()
        return [
            Trouble(
                f"{log.name} takes {size / 2**20:.0f} MiB: a reader has kept SQLite from emptying it",
                "end the long reader (a backup, a shell), then PRAGMA wal_checkpoint(TRUNCATE)",
            )
        ]

    # The bound

    def room(self, db: Connection, queue: QueueSettings, jobs: int, now: float, least: int = 0) -> Room:
        found = db.execute(ROOM, {"queue": queue.name, "now": now}).fetchone()
        if found is None:
            self.ensure_queue(db, queue.name)
            return Room(None, None, 0, count(1))
        maxsize, order, sequence, waiting, due = found
        return Room(maxsize, order or None, waiting + due, count(sequence + 1))

    def insert(self, db: Connection, queue: str, rows: Sequence[Row]) -> Sequence[str]:
        fresh = [row for row in rows if db.execute(INSERT, row).rowcount]
        waiting = sum(row[5] == "waiting" for row in fresh)
        db.execute(ADDED, (waiting, rows[-1][6], queue))
        return [row[0] for row in fresh]

    def note(self, db: Connection, queue: str, waiting: int) -> None:
        db.execute(COUNT, (waiting, queue))

    def repair(self) -> bool:
        if not self.read(lambda db: db.execute(f"SELECT 1 {WRONG}").fetchone()):
            return False
        self.write(lambda db: db.execute(MEND))
        return True

    # Where SQL differs

    def start(self, db: Connection, pool: str, which: Which, now: float, until: float) -> list[Row]:
        values = (pool, now, until, *which.values, which.want)
        rows = db.execute(START % which.condition, values).fetchall()
        self.note(db, which.queue, -len(rows))
        # RETURNING keeps no order.
        return [row[2:] for row in sorted(rows)]

    def finish(self, db: Connection, rows: Sequence[Row]) -> Collection[tuple[str, int]]:
        # Most jobs end well and return nothing: they share a statement.
        alike: dict[Row, list[Row]] = {}
        for row in rows:
            alike.setdefault(row[:4], []).append(row[4:])
        ended: list[tuple[str, int]] = []
        for end, held in alike.items():
            for part in chunks(held):
                pairs = ", ".join(["(?, ?)"] * len(part))
                statement = f"""
                    UPDATE jobify_job SET status = ?, result = ?, error = ?, ended_at = ?, lease_until = NULL
                    WHERE (id, attempt) IN (VALUES {pairs}) AND status = 'running'
                    RETURNING id, attempt"""
                values = (*end, *(value for pair in part for value in pair))
                ended += db.execute(statement, values).fetchall()
        return ended

    def renew(
        self, db: Connection, pool: str, held: Sequence[tuple[str, int]], until: float
    ) -> Mapping[str, bool]:
        found: dict[str, bool] = {}
        for part in chunks(held):
            pairs = ", ".join("(?, ?)" for _ in part)
            statement = f"""
                UPDATE jobify_job SET lease_until = ?
                WHERE (id, attempt) IN (VALUES {pairs}) AND pool = ? AND status = 'running'
                RETURNING id, cancel_requested"""
            values = [value for pair in part for value in pair]
            found.update(db.execute(statement, (until, *values, pool)).fetchall())
        return found

    # Inside

    def _here(self) -> BaseDatabaseWrapper:
        """Return the calling thread's connection, on the file that is at its path now.

        Inside a transaction it stays where that began.
        """
        wrapper = self._wrapper
        if wrapper.connection is None:
            self._place.check()
        elif (file := moved(wrapper)) is not None and not _in_transaction(wrapper):
            self._place.leave(file)
            wrapper.close()
            self._place.check()
        return wrapper

    def _begin(self, raw: sqlite3.Connection, wrapper: BaseDatabaseWrapper, limit: float) -> None:
        raw.execute("PRAGMA busy_timeout = 0")
        try:
            self._persistently(partial(raw.execute, "BEGIN IMMEDIATE"), limit)
        finally:
            raw.execute(f"PRAGMA busy_timeout = {_timeout(wrapper)}")

    @staticmethod
    def _take_lock(raw: sqlite3.Connection, wrapper: BaseDatabaseWrapper, limit: float) -> None:
        """Take the write lock in the caller's transaction; wait as its connection would, or less."""
        theirs, ours = _timeout(wrapper), int(limit * 1000)
        if theirs <= ours:
            raw.execute(TAKE_LOCK)
            return
        raw.execute(f"PRAGMA busy_timeout = {ours}")
        try:
            raw.execute(TAKE_LOCK)
        finally:
            raw.execute(f"PRAGMA busy_timeout = {theirs}")

    @staticmethod
    def _roll_back(raw: sqlite3.Connection) -> None:
        if raw.in_transaction:
            raw.execute("ROLLBACK")

    def _persistently(self, call: Callable[[], T], limit: float) -> T:
        try:
            return call()
        except sqlite3.OperationalError as error:
            if not _locked(error) or self.in_transaction():
                raise
        deadline = time.monotonic() + limit
        sleep = FIRST_SLEEP
        while True:
            self._sleep(random.uniform(0.3, 1.0) * sleep)
            try:
                return call()
            except sqlite3.OperationalError as error:
                if not _locked(error) or time.monotonic() > deadline:
                    raise
            sleep = min(sleep * 1.3, LONGEST_SLEEP)

    def _busy(self, limit: float) -> StoreBusy:
        return StoreBusy(
            f"database {self.alias!r} stayed locked for {limit:.3g} s: another connection holds a write "
            "transaction open. Look for a long transaction."
        )

    def _explain(self, error: Exception, limit: float = PATIENCE) -> NoReturn:
        if isinstance(error, TransactionManagementError):
            raise error  # what the ORM says there: the caller's transaction can only be rolled back
        if _locked(error):
            if self.in_transaction():
                raise StoreBusy(
                    f"database {self.alias!r} is locked by another connection, and the open transaction "
                    "could not wait: one that began with a read never can. Set OPTIONS['transaction_mode'] "
                    "= 'IMMEDIATE' for this database."
                ) from error
            raise self._busy(limit) from error
        if "no such table: jobify_" in str(error) or "no such column" in str(error):
            raise unmigrated(self.alias, str(error)) from error
        raise StoreError(f"database {self.alias!r} failed: {error}.") from error


def _in_transaction(wrapper: BaseDatabaseWrapper) -> bool:
    return (
        wrapper.in_atomic_block
        or not autocommits(wrapper)
        or (wrapper.connection is not None and wrapper.connection.in_transaction)
    )


def _legibly(raw: sqlite3.Connection, call: Callable[[], T]) -> T:
    """Call, and once more where a text is no UTF-8: then with what cannot be read replaced."""
    try:
        return call()
    except (sqlite3.OperationalError, DjangoError) as error:
        if "Could not decode to UTF-8" not in str(error):
            raise
    with _legible(raw):
        return call()


@contextlib.contextmanager
def _legible(raw: sqlite3.Connection) -> Iterator[None]:
    """Read every text within the block; only there, for it takes longer."""
    before, raw.text_factory = raw.text_factory, lambda text: text.decode("utf-8", "replace")
    try:
        yield
    finally:
        raw.text_factory = before


def _raw(wrapper: BaseDatabaseWrapper) -> sqlite3.Connection:
    """Return the driver's connection, unless Django would refuse its own cursor here and now."""
    # A thread with an event loop, and pytest-django's blocker, are refused by this one...
    wrapper.ensure_connection()
    # ...a test case without databases by a method put on the connection itself.
    if "cursor" in wrapper.__dict__:
        wrapper.cursor().close()
    wrapper.validate_no_broken_transaction()
    raw: Any = wrapper.connection
    return raw  # type: ignore[no-any-return]


def _statements(wrapper: BaseDatabaseWrapper, raw: sqlite3.Connection) -> Connection:
    if wrapper.execute_wrappers:  # the project looks at each statement, and may refuse it
        return Statements(wrapper.cursor(), translate)
    connection: Any = raw
    return connection  # type: ignore[no-any-return]


def _timeout(wrapper: BaseDatabaseWrapper) -> int:
    """Return for how many milliseconds the project lets this connection wait for a lock."""
    return int(float(wrapper.settings_dict["OPTIONS"].get("timeout", 5)) * 1000)


def _locked(error: Exception) -> bool:
    # SQLITE_BUSY and SQLITE_LOCKED, with all their extended codes.
    code = getattr(error.__cause__ or error, "sqlite_errorcode", 0)
    return code & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
