"""SQLite's transactions: short ones of our own, and our own lock timeout when the file is locked.

They use the Django connection of the calling thread, below Django's cursors: a push costs a few statements
of a few microseconds each, and the wrappers around a cursor cost more than that.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from django.db import Error as DjangoError
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.transaction import TransactionManagementError

from jobify_django.exceptions import StoreBusy, StoreError
from jobify_django.file import moved
from jobify_django.runtime import Runtime
from jobify_django.stores.database.connection import (
    LONGEST_LOCK_WAIT,
    Connection,
    Statements,
    autocommits,
    lock_wait,
    translate,
    unmigrated,
)
from jobify_django.stores.database.replaced_file import ReplacedFile
from jobify_django.stores.database.sqlite_session import Session, session_of
from jobify_django.stores.database.transaction import Transactions

T = TypeVar("T")

LACKING = re.compile(r"no such table: jobify_|no such column|table jobify_\w+ has no column")
"""What SQLite says where a table or a column is missing."""

# SQLite's own busy handler sleeps up to 100 ms at a time, so under many writers the unlucky one waits for
# seconds. Short, jittered sleeps of our own keep the waits short and fair.
FIRST_SLEEP = 0.0003
LONGEST_SLEEP = 0.008

# Deletes nothing, and takes the write lock. As the first statement of a transaction it waits for its turn; a
# read before it would make SQLite refuse at once ("database is locked") while another connection writes.
TAKE_LOCK = "DELETE FROM jobify_queue WHERE 0"


class SQLiteTransactions(Transactions):
    """Transactions on a SQLite file."""

    def _set_up(self) -> None:
        super()._set_up()
        # Threads of one process queue here instead of racing for the file's lock.
        self._mutex = self.runtime.lock()
        self._replaced_file = ReplacedFile(self._database, self.runtime)

    def _read(self, work: Callable[[Connection], T]) -> T:
        wrapper = self._here()
        try:
            raw = raw_connection(wrapper)
            read = partial(work, _statements(wrapper, raw, self.runtime))
            return _with_readable_text(raw, partial(self._with_retries, read, LONGEST_LOCK_WAIT))
        except (sqlite3.Error, DjangoError) as error:
            self._raise_store_error(error)

    def _write(
        self, work: Callable[[Connection], T], *, may_repeat: bool = False, lock_timeout: float | None = None
    ) -> T:
        # Looked up once: finding one of Django's connections takes as long as a statement.
        wrapper = self._here()
        limit = lock_wait(lock_timeout)
        try:
            raw = raw_connection(wrapper)
            if raw.in_transaction or not (wrapper.autocommit or wrapper.in_atomic_block):
                self._take_lock(raw, wrapper, limit)
                return _with_readable_text(raw, partial(work, _statements(wrapper, raw, self.runtime)))
            return _with_readable_text(raw, partial(self._transact, work, wrapper, raw, limit))
        except (sqlite3.Error, DjangoError) as error:
            self._raise_store_error(error, limit)

    def _transact(
        self,
        work: Callable[[Connection], T],
        wrapper: BaseDatabaseWrapper,
        raw: sqlite3.Connection,
        limit: float,
    ) -> T:
        now = self.runtime.monotonic()
        if not self._mutex.acquire(timeout=limit):
            raise self._busy(limit)
        try:
            session = session_of(wrapper, raw)
            if session.logs:
                try:
                    return self._commit(work, wrapper, session, partial(session.begin, now))
                except (sqlite3.OperationalError, DjangoError) as error:
                    if not _locked(error):
                        raise
            left = now + limit - self.runtime.monotonic()
            return self._commit(work, wrapper, session, partial(self._begin, session, wrapper, left))
        finally:
            self._mutex.release()

    def _commit(
        self,
        work: Callable[[Connection], T],
        wrapper: BaseDatabaseWrapper,
        session: Session,
        begin: Callable[[], None],
    ) -> T:
        try:
            begin()
            value = work(_statements(wrapper, session, self.runtime))
            session.execute("COMMIT")
        except BaseException:
            session.forget()
            if session.raw.in_transaction:
                session.execute("ROLLBACK")
            raise
        session.keep()
        return value

    def in_transaction(self) -> bool:
        return _in_transaction(self._wrapper)

    def is_set_up(self) -> bool:
        name = str(self._wrapper.settings_dict["NAME"])
        if not name.startswith((":memory:", "file:")) and not Path(name).exists():
            return False  # looking would make the file
        return super().is_set_up()

    def _here(self) -> BaseDatabaseWrapper:
        """Return the calling thread's connection, on the file that is at its path now.

        Inside a transaction it stays where that began.
        """
        wrapper = self._wrapper
        if wrapper.connection is None:
            self._replaced_file.check()
        elif (file := moved(wrapper)) is not None and not _in_transaction(wrapper):
            self._replaced_file.leave(file)
            wrapper.close()
            self._replaced_file.check()
        return wrapper

    def _begin(self, session: Session, wrapper: BaseDatabaseWrapper, limit: float) -> None:
        """Begin a transaction that has the write lock."""
        session.forget()
        session.execute("PRAGMA busy_timeout = 0")
        try:
            self._with_retries(partial(session.execute, "BEGIN IMMEDIATE"), limit)
        finally:
            session.execute(f"PRAGMA busy_timeout = {_timeout(wrapper)}")

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

    def _with_retries(self, call: Callable[[], T], limit: float) -> T:
        try:
            return call()
        except sqlite3.OperationalError as error:
            if not _locked(error) or self.in_transaction():
                raise
        runtime = self.runtime
        deadline = runtime.monotonic() + limit
        sleep = FIRST_SLEEP
        while True:
            runtime.sleep(runtime.uniform(0.3, 1.0) * sleep)
            try:
                return call()
            except sqlite3.OperationalError as error:
                if not _locked(error) or runtime.monotonic() > deadline:
                    raise
            sleep = min(sleep * 1.3, LONGEST_SLEEP)

    def _busy(self, limit: float) -> StoreBusy:
        return StoreBusy(
            f"database {self._database!r} stayed locked for {limit:.3g} s: another connection holds a write "
            "transaction open. Look for a long transaction."
        )

    def _raise_store_error(self, error: Exception, limit: float = LONGEST_LOCK_WAIT) -> NoReturn:
        if isinstance(error, TransactionManagementError):
            raise error  # what the ORM says there: the caller's transaction can only be rolled back
        if _locked(error):
            if self.in_transaction():
                raise StoreBusy(
                    f"database {self._database!r} is locked by another connection, and the open transaction "
                    "could not wait: one that began with a read never can. Set OPTIONS['transaction_mode'] "
                    "= 'IMMEDIATE' for this database."
                ) from error
            raise self._busy(limit) from error
        if LACKING.search(str(error)):
            raise unmigrated(self._database, str(error)) from error
        raise StoreError(f"database {self._database!r} failed: {error}.") from error


def _in_transaction(wrapper: BaseDatabaseWrapper) -> bool:
    return (
        wrapper.in_atomic_block
        or not autocommits(wrapper)
        or (wrapper.connection is not None and wrapper.connection.in_transaction)
    )


def _with_readable_text(raw: sqlite3.Connection, call: Callable[[], T]) -> T:
    """Call, and once more where a text is no UTF-8: then with what cannot be read replaced."""
    try:
        return call()
    except (sqlite3.OperationalError, DjangoError) as error:
        if "Could not decode to UTF-8" not in str(error):
            raise
    # Only here, for it takes longer.
    before, raw.text_factory = raw.text_factory, lambda text: text.decode("utf-8", "replace")
    try:
        return call()
    finally:
        raw.text_factory = before


def raw_connection(wrapper: BaseDatabaseWrapper) -> sqlite3.Connection:
    """Return the driver's connection, unless Django would refuse its own cursor here and now."""
    # A thread with an event loop, and pytest-django's blocker, are refused by this one...
    wrapper.ensure_connection()
    # ...a test case without databases by a method put on the connection itself.
    if "cursor" in wrapper.__dict__:
        wrapper.cursor().close()
    wrapper.validate_no_broken_transaction()
    raw: Any = wrapper.connection
    return raw  # type: ignore[no-any-return]


def _statements(
    wrapper: BaseDatabaseWrapper, plain: Connection | sqlite3.Connection, runtime: Runtime
) -> Connection:
    if wrapper.execute_wrappers:  # the project looks at each statement, and may refuse it
        return Statements(wrapper.cursor(), translate, runtime)
    connection: Any = plain
    return connection  # type: ignore[no-any-return]


def _timeout(wrapper: BaseDatabaseWrapper) -> int:
    """Return for how many milliseconds the project lets this connection wait for a lock."""
    return int(float(wrapper.settings_dict["OPTIONS"].get("timeout", 5)) * 1000)


def _locked(error: Exception) -> bool:
    # SQLITE_BUSY and SQLITE_LOCKED, with all their extended codes.
    code = getattr(error.__cause__ or error, "sqlite_errorcode", 0)
    return code & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
