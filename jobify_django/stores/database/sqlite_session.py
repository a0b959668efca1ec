"""What the store keeps with a SQLite connection: a cursor, and what is known of the queues' rows.

SQLite waits inside itself for a lock, as long as the connection's ``busy_timeout`` says. The store waits in
its own way and for a time of its own, so that wait must not take place; yet the number is the project's, and
turning it off and on again for each push took 5 of its 40 microseconds in SQLite (such a statement is
compiled anew each time). But a transaction that has read is never made to wait for the write lock: SQLite
refuses it at once. Where SQLite keeps a write-ahead log, a read waits for nobody, and so a transaction that
begins with one needs neither statement. The few that meet another writer begin again, in the long way.

The read is ``PRAGMA data_version``, which tells whether another connection has committed since the last one.
With the number of rows that this connection has changed, which the driver counts, it tells whether a queue's
row still is what the last push has made of it; then that is not read again.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any, NamedTuple

from django.db.backends.base.base import BaseDatabaseWrapper

from jobify_django.file import KEPT, NOTED, File
from jobify_django.ordering import Order

KNOWN_FOR = 1.0
"""Seconds a row is known without another look. SQLite tells of every statement that changes one; of a whole
file that is copied into an open connection (``sqlite3.Connection.backup``) it does not."""


class QueueRow(NamedTuple):
    """A queue's row, as far as a push needs it.

    Attributes:
        maxsize: the tuned bound; ``None`` leaves it to the settings.
        order: the tuned order; ``None`` leaves it to the settings.
        sequence: the last number that was given out.
        waiting: how many jobs wait.
        due: when the next delayed job is due; ``None`` without one.
    """

    maxsize: int | None
    order: Order | None
    sequence: int
    waiting: int
    due: float | None


class Session:
    """A connection of the driver's, and what goes with it until it is closed.

    Args:
        raw: the connection.
        logs: whether its file has a write-ahead log.

    Attributes:
        execute: runs a statement with question marks; what it returns holds until the next one.
        rows: the queues' rows that need not be read in the open transaction.
    """

    def __init__(self, raw: sqlite3.Connection, *, logs: bool) -> None:
        self.raw = raw
        self.logs = logs
        self.execute: Callable[..., Any] = raw.cursor().execute
        self.rows: dict[str, QueueRow] = {}
        self._version: int | None = None
        self._seen: int | None = None
        self._changes = 0
        self._read_at = 0.0

    def begin(self, now: float) -> None:
        """Begin a transaction with a read, at this moment of the monotonic clock."""
        self.execute("BEGIN")
        (self._version,) = self.execute("PRAGMA data_version").fetchone()
        changed = self._version != self._seen or self._changes != self.raw.total_changes
        if changed or now - self._read_at > KNOWN_FOR:
            self.rows.clear()
            self._read_at = now

    def note(self, queue: str, row: QueueRow) -> None:
        """Note what a queue's row is now; all that this connection has changed before is in it."""
        self.rows[queue] = row
        self._changes = self.raw.total_changes

    def keep(self) -> None:
        """Note that the transaction is committed."""
        self._seen = self._version

    def forget(self) -> None:
        """Note that a transaction was rolled back, or begins in another way."""
        self.rows.clear()
        self._version = self._seen = None


def session_of(wrapper: BaseDatabaseWrapper, raw: sqlite3.Connection) -> Session:
    """Return what is kept with a connection that is open."""
    kept: Session | None = wrapper.__dict__.get(KEPT)
    if kept is None or kept.raw is not raw:
        file: File | None = wrapper.__dict__.get(NOTED)
        kept = wrapper.__dict__[KEPT] = Session(raw, logs=file is not None and file.wal is not None)
    return kept
