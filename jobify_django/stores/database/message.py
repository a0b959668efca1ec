"""Several statements of PostgreSQL in one message: a transaction in one round trip.

The simple protocol takes any number of statements at once, with their values in the text, and they are one
transaction. What is said often is prepared, by SQL's PREPARE under a name made from the text: without, the
server would plan it every time, which takes longer than to run it. A pooler in transaction mode may swap
the session before any message, so the name may be unknown there, or taken: then the message is sent once
more, and has done nothing before. In a transaction of a caller's such an error would undo all of it, so
there nothing is prepared.
"""

from __future__ import annotations

import re
import weakref
import zlib
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from django.db import Error as DjangoError
from django.db.backends.utils import CursorWrapper

from jobify_django.stores.database.connection import Row, Statements, sql_state
from jobify_django.stores.database.server import ServerTransactions, Uncertain

T = TypeVar("T")

NOT_PREPARED, PREPARED_ALREADY = "26000", "42P05"

OTHER_COLUMNS = "0A000"
"""What was prepared would return other types than then: somebody has altered a column since."""

IDLE = 0
"""The status of a connection outside of a transaction, in libpq."""

ENDED_BY_SERVER = re.compile("57P|08|XX")
"""Beginnings of the codes of errors that end the connection: what was under way may be committed, or not."""

NAME = re.compile(r"jobify_[a-z]+_[0-9a-f]{8}")

MISHAPS = 3
"""So often what was prepared may be gone: then a pooler is in between that swaps sessions, and nothing is
prepared any more."""


class Statement:
    """A statement that can be prepared.

    Args:
        name: what it does, in a word of small letters.
        text: with ``$1``, ``$2`` and so on for its values.
        types: the types of its values, in order; without, each has a cast in the text where its type is not
            plain.
    """

    def __init__(self, name: str, text: str, types: Sequence[str] = ()) -> None:
        text = " ".join(text.split())
        self._order = [int(number) - 1 for number in re.findall(r"\$(\d+)", text)]
        self.plain = re.sub(r"\$(\d+)", lambda found: _place(types, int(found[1])), text)
        given = f"({', '.join(types)})" if types else ""
        # Two releases on one pooler must not take each other's.
        self.name = f"jobify_{name}_{zlib.crc32((given + text).encode()):08x}"
        self.execute = f"EXECUTE {self.name}({', '.join(['%s'] * (max(self._order) + 1))})"
        self.prepare = f"PREPARE {self.name}{given} AS {text}; {self.execute}"

    def in_order(self, values: Row) -> Row:
        """Return the values as ``plain`` takes them."""
        return tuple([values[number] for number in self._order])


def _place(types: Sequence[str], number: int) -> str:
    return f"%s::{types[number - 1]}" if types else "%s"


Call = tuple[Statement, Row]
"""A statement and its values."""


class Messages:
    """Sends messages on connections of psycopg 3 that bind values on this side."""

    def __init__(self) -> None:
        self._sessions: weakref.WeakKeyDictionary[Any, _Session] = weakref.WeakKeyDictionary()
        self._mishaps = 0

    def send(
        self,
        cursor: CursorWrapper,
        calls: Sequence[Call],
        *,
        begin: str = "",
        before: Row = (),
        end: str = "",
        after: Row = (),
    ) -> list[Any]:
        """Send statements in one message, and return the rows of the last of them.

        Args:
            cursor: Django's, outside of a transaction.
            calls: the statements.
            begin: what comes before them, with a semicolon at its end and ``%s`` for the values ``before``.
            end: what comes after them, with a semicolon at its beginning and ``%s`` for the values ``after``.
        """
        session = self._session(cursor)
        while True:
            texts, arguments = [], list(before)
            for statement, given in calls:
                text = session.text(statement, prepare=self._mishaps < MISHAPS)
                texts.append(text)
                arguments += statement.in_order(given) if text is statement.plain else given
            arguments += after
            try:
                cursor.execute(f"{begin}{'; '.join(texts)}{end}", arguments)
            except DjangoError as error:
                state = sql_state(error)
                stale = state == OTHER_COLUMNS and any(text.startswith("EXECUTE") for text in texts)
                if not stale and state not in (NOT_PREPARED, PREPARED_ALREADY):
                    raise
                leave_transaction(cursor)
                if stale:
                    self._mishaps = MISHAPS  # sessions of a pooler may all have it
                elif state == NOT_PREPARED:
                    self._mishaps += 1
                    session.prepared.clear()
                else:
                    session.prepared.update(NAME.findall(str(error)) or [one.name for one, _ in calls])
                continue
            session.note(texts, calls)
            return rows_of(cursor, end.count(";"))

    def _session(self, cursor: CursorWrapper) -> _Session:
        connection = cursor.db.connection
        session = self._sessions.get(connection)
        if session is None:
            session = self._sessions[connection] = _Session()
        return session


class _Session:
    """What is known of a connection's session: the names that were said once, and those prepared."""

    def __init__(self) -> None:
        self.said: set[str] = set()
        self.prepared: set[str] = set()

    def text(self, statement: Statement, *, prepare: bool) -> str:
        if not prepare or statement.name not in self.said:
            return statement.plain
        return statement.execute if statement.name in self.prepared else statement.prepare

    def note(self, texts: Sequence[str], calls: Sequence[Call]) -> None:
        for text, (statement, _) in zip(texts, calls, strict=True):
            if text is statement.plain:
                self.said.add(statement.name)
            elif text is statement.prepare:
                self.prepared.add(statement.name)


BY_INDEX = "SET LOCAL plan_cache_mode = force_generic_plan; SET LOCAL enable_seqscan = off; "
"""One plan for all values, made once: it may be made while the table is empty, where to read all of it is
best, and is kept while the table grows. So it goes by the indexes from the start. A setting takes the server
2 microseconds.
"""


def rows_of(cursor: Any, after: int) -> list[Any]:
    """Return the rows of the last result but so many."""
    wanted = getattr(cursor.cursor, "set_result", None)  # psycopg 3.3
    if wanted is not None:
        wanted(-1 - after)
        return cursor.fetchall()  # type: ignore[no-any-return]
    found: list[Any] = []
    while True:
        found.append(cursor.fetchall() if cursor.description else [])
        if not cursor.nextset():
            return found[-1 - after]  # type: ignore[no-any-return]


def is_idle(cursor: CursorWrapper) -> bool:
    """Whether the server has ended the transaction of the last message, whatever became of it."""
    connection = cursor.db.connection
    return connection is not None and connection.info.transaction_status == IDLE


def leave_transaction(cursor: CursorWrapper) -> None:
    """End the transaction that a message has begun and not ended; one that cannot be ended ends with its
    connection."""
    if cursor.db.connection is not None and not is_idle(cursor):
        try:
            cursor.execute("ROLLBACK")
        except DjangoError:
            cursor.db.close()


class OneMessage(ServerTransactions):
    """Transactions of our own that are one message each, where the driver sends such."""

    def _set_up(self) -> None:
        super()._set_up()
        self._messages = Messages()

    @property
    def _sends_messages(self) -> bool:
        """Whether the driver is psycopg 3, and binds values on this side: the server takes one statement at a
        time otherwise."""
        wrapper: Any = self._wrapper
        return wrapper.Database.__name__ == "psycopg" and not wrapper.settings_dict["OPTIONS"].get(
            "server_side_binding"
        )

    def _in_one_message(
        self, send: Callable[[CursorWrapper, float], T], until: float, *, may_repeat: bool
    ) -> T:
        """Run what is a transaction of our own in one message, outside of a caller's.

        Args:
            send: called with a cursor, and the seconds it may wait for others' locks; again for each try.
            until: when, on the process's monotonic clock, it may have waited for others' locks.
            may_repeat: as ``_write`` has it.

        Raises ``StoreUncertain`` if the connection broke, so that nobody knows whether it was committed, and
        it may not be repeated; otherwise as ``_write`` does.
        """

        def attempt() -> T:
            with self._wrapper.cursor() as cursor, self._deadline():
                db = Statements(cursor, self._spell, self.runtime, until)
                self._server_clock.measure(db)
                try:
                    return send(cursor, db.lock_timeout)
                except DjangoError as error:
                    state = sql_state(error)
                    if self._broken(error) and (not state or ENDED_BY_SERVER.match(state)):
                        raise Uncertain from error
                    raise

        self._leave_dead_connection()
        return self._with_retries(attempt, may_repeat=may_repeat, until=until)

    def _leave_dead_connection(self) -> None:
        """Close a connection that the server has closed since it was used: nothing is uncertain yet."""
        driver = getattr(self._wrapper.connection, "pgconn", None)
        if driver is None:
            return
        try:
            with self._wrapper.wrap_database_errors:
                driver.consume_input()  # what the server has said last
                driver.consume_input()  # that there is no more
        except DjangoError:
            self.close()
