"""Several statements in one message: a transaction in one round trip.

The simple protocol takes any number of statements at once, with their values in the text. What is said often
is prepared, by SQL's PREPARE under a name made from the text: without, the server would plan it every time.
"""

from __future__ import annotations

import re
import weakref
import zlib
from collections.abc import Sequence
from typing import Any

from django.db import Error as DjangoError
from django.db.backends.utils import CursorWrapper

from jobify_django.stores.database.connection import Row, sql_state

NOT_PREPARED, PREPARED_ALREADY = "26000", "42P05"

IDLE = 0
"""The status of a connection outside of a transaction, in libpq."""

NAME = re.compile(r"jobify_[0-9a-f]{8}")

MISHAPS = 3
"""So often what was prepared may be gone: then a pooler is in between that swaps sessions, and nothing is
prepared any more."""


class Statement:
    """A statement that can be prepared.

    Args:
        text: with ``$1``, ``$2`` and so on for its values, each with a cast where its type is not plain.
    """

    def __init__(self, text: str) -> None:
        text = " ".join(text.split())
        numbers = [int(number) - 1 for number in re.findall(r"\$(\d+)", text)]
        self._order = numbers
        self.name = f"jobify_{zlib.crc32(text.encode()):08x}"
        self.plain = re.sub(r"\$\d+", "%s", text)
        places = ", ".join(["%s"] * (max(numbers) + 1))
        self.execute = f"EXECUTE {self.name}({places})"
        self.prepare = f"PREPARE {self.name} AS {text}; {self.execute}"

    def in_order(self, values: Row) -> Row:
        """Return the values as ``plain`` takes them."""
        return tuple([values[number] for number in self._order])


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
                if state not in (NOT_PREPARED, PREPARED_ALREADY):
                    raise
                _leave_transaction(cursor)
                if state == NOT_PREPARED:
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


def _leave_transaction(cursor: CursorWrapper) -> None:
    # Of one that was begun by the message itself; otherwise it is left already.
    if cursor.db.connection.info.transaction_status != IDLE:
        cursor.execute("ROLLBACK")
