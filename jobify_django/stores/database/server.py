"""What databases behind a socket have in common: statements, short transactions, and whose clock counts."""

from __future__ import annotations

import contextlib
import math
import random
import re
import time
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import lru_cache, partial
from typing import Any, NamedTuple, NoReturn, TypeVar

from django.db import DatabaseError, InterfaceError, OperationalError, ProgrammingError
from django.db import Error as DjangoError
from django.db.backends.utils import CursorWrapper
from django.db.transaction import TransactionManagementError

from jobify_django.exceptions import StoreBusy, StoreError, StoreUncertain
from jobify_django.stores.database.database import (
    PATIENCE,
    Connection,
    Crowded,
    Cursor,
    Database,
    patient,
    unmigrated,
)

T = TypeVar("T")

TRIES = 8
"""How often a transaction of our own is tried when another one stood in its way."""

TRIES_INSIDE = 5
"""The same inside a transaction of the caller's, which must not wait long."""

FIRST_SLEEP = 0.005
LONGEST_SLEEP = 0.2

SILENCE_TIMEOUT = 15
"""Seconds a transaction of ours may wait for its next statement. Nobody else can claim what a host claimed
that froze or was cut off before its commit, and it may be hours until the server misses that host."""

MEASURE_EVERY = 10.0
"""Seconds between two looks at the server's clock."""

MEASURE_TIMES = 3
CLOSE_LOOK = 0.01
"""A look that took longer, in seconds, is taken again: half of what it took is how wrong it may be."""

DRIFT = 0.0005
"""Seconds that two clocks may drift apart in one, the most by which NTP lets one run faster or slower."""


class Server(Database):
    """A database server, through the calling thread's Django connection.

    Leases and delays are measured on the server's clock, the one that all machines share: this process
    notes how far it is from its own monotonic clock, so that a host whose clock is stepped notices nothing.

    Args:
        alias: its key in ``settings.DATABASES``.
        sleep: how it waits between tries.
    """

    locked = "FOR UPDATE"
    unlocked = "FOR UPDATE SKIP LOCKED"

    begin: Sequence[str]
    """The statements that begin a transaction of our own."""

    def beginning(self, patience: float) -> Sequence[str]:
        """Return the same for one that may wait so many seconds for others' locks."""
        return self.begin

    def __init__(self, alias: str, sleep: Callable[[float], None] = time.sleep) -> None:
        super().__init__(alias)
        self._sleep = sleep
        self._reading: _Reading | None = None
        self._measured = 0.0

    # Transactions

    def read(self, work: Callable[[Connection], T]) -> T:
        if self.in_transaction():
            return self._in_theirs(work)
        return self._persistently(partial(self._run, work, self.deadline), again=True)

    def write(
        self, work: Callable[[Connection], T], *, again: bool = False, patience: float | None = None
    ) -> T:
        until = time.monotonic() + patient(patience)
        if self.in_transaction():
            return self._in_theirs(work, until)
        return self._persistently(partial(self._transact, work, until), again=again, until=until)

    def _in_theirs(self, work: Callable[[Connection], T], until: float | None = None) -> T:
        for tried in range(1, TRIES_INSIDE + 1):
            try:
                return self._run(work, until=until)
            except Crowded:
                if tried == TRIES_INSIDE:
                    raise
            except DjangoError as error:
                wrapper: Any = self._wrapper
                if wrapper.in_atomic_block and not wrapper.needs_rollback:
                    # As the ORM does: the server may have undone all of it, so nothing more may be committed.
                    wrapper.needs_rollback = True
                    wrapper.rollback_exc = error
                self._explain(error)
            self._sleep(random.uniform(0.5, 1.0) * FIRST_SLEEP)
        raise AssertionError("the last try returns or raises")

    def _run(
        self,
        work: Callable[[Connection], T],
        deadline: Callable[[], AbstractContextManager[object]] = contextlib.nullcontext,
        until: float | None = None,
    ) -> T:
        with self._wrapper.cursor() as cursor, deadline():
            db = Statements(cursor, self.spell, until)
            self._measure(db)
            return work(db)

    def _transact(self, work: Callable[[Connection], T], until: float) -> T:
        with self._wrapper.cursor() as cursor, self.deadline():
            db = Statements(cursor, self.spell, until)
            self._measure(db)
            for statement in self.beginning(db.patience):
                cursor.execute(statement)
            try:
                value = work(db)
            except BaseException:
                self._roll_back(cursor)
                raise
            try:
                cursor.execute("COMMIT")
            except DjangoError as error:
                if self._broken(error):
                    raise _Uncertain from error
                raise
            return value

    def _roll_back(self, cursor: CursorWrapper) -> None:
        try:
            cursor.execute("ROLLBACK")
        except DjangoError:
            self._wrapper.close()

    def _persistently(self, call: Callable[[], T], *, again: bool, until: float = math.inf) -> T:
        uncertain: Exception | None = None
        for tried in range(1, TRIES + 1):
            try:
                return call()
            except Crowded:
                if tried == TRIES:
                    raise
            except (_Uncertain, DjangoError) as caught:
                error = caught.__cause__ if isinstance(caught, _Uncertain) else caught
                assert isinstance(error, DjangoError)
                uncertain = uncertain or (error if isinstance(caught, _Uncertain) else None)
                broken = self._broken(error)
                if broken:
                    self.close()  # the next call gets a new one
                worth_it = (broken and again) or self.collided(error)
                late = self.collided(error) and time.monotonic() >= until
                if tried == TRIES or late or not worth_it:
                    self._give_up(error, uncertain)
                again = again and not broken  # once
            self._sleep(random.uniform(0.3, 1.0) * min(FIRST_SLEEP * 2**tried, LONGEST_SLEEP))
        raise AssertionError("the last try returns or raises")

    def _give_up(self, error: DjangoError, uncertain: Exception | None) -> NoReturn:
        if uncertain is not None:
            raise StoreUncertain(
                f"database {self.alias!r}: the connection broke during a commit ({_line(uncertain)}), so the "
                "change may be stored or not. Look before you do it again."
            ) from error
        self._explain(error)

    def _broken(self, error: DjangoError) -> bool:
        return isinstance(error, (OperationalError, InterfaceError)) and not self.collided(error)

    def deadline(self) -> AbstractContextManager[object]:
        """Return a block that ends the connection when a call in it takes too long."""
        return contextlib.nullcontext()

    @abstractmethod
    def collided(self, error: DatabaseError | DjangoError) -> bool:
        """Whether another transaction stood in the way, so that a second try may go through."""

    def _explain(self, error: DjangoError) -> NoReturn:
        if isinstance(error, TransactionManagementError):
            raise error  # what the ORM says there: the caller's transaction can only be rolled back
        if self.collided(error):
            raise StoreBusy(
                f"database {self.alias!r}: another transaction stood in the way ({_line(error)}). Try again; "
                "if it is often so, look for a long transaction."
            ) from error
        if isinstance(error, (ProgrammingError, OperationalError)) and self.lacks_tables(error):
            raise unmigrated(self.alias, _line(error)) from error
        raise StoreError(f"database {self.alias!r} failed: {_line(error)}.") from error

    @abstractmethod
    def lacks_tables(self, error: DjangoError) -> bool:
        """Whether a table or a column is missing."""

    @staticmethod
    def spell(statement: str) -> str:
        """Return a statement as the driver wants it."""
        return translate(statement)

    # Time

    now: str
    """A SELECT of the server's clock, in seconds since the epoch."""

    def time(self) -> float:
        if self._reading is None:
            with contextlib.suppress(StoreError):
                self.read(lambda db: None)  # which measures
        return time.time() if self._reading is None else time.monotonic() + self._reading.ahead

    def _measure(self, db: Connection) -> None:
        if self._reading is not None and time.monotonic() - self._measured <= MEASURE_EVERY:
            return
        looks: list[_Reading] = []
        while len(looks) < MEASURE_TIMES and not (looks and looks[-1].error < CLOSE_LOOK / 2):
            began = time.monotonic()
            (now,) = db.execute(self.now).fetchone()
            ended = time.monotonic()
            error = (ended - began) / 2
            looks.append(_Reading(error, float(now) - began - error, ended))
        self._measured = looks[-1].at
        new = min(looks)
        if self._reading is None or new.replaces(self._reading):
            self._reading = new


class _Reading(NamedTuple):
    """How many seconds the server's clock is ahead of this process's monotonic one, give or take ``error``,
    as it was ``at`` that one's time. The better of two is kept as in NTP's clock filter (RFC 5905, 10)."""

    error: float
    ahead: float
    at: float

    def replaces(self, old: _Reading) -> bool:
        """Whether it is better than an old one, or shows that the server's clock was set since."""
        error = old.error + DRIFT * (self.at - old.at)
        return self.error <= error or abs(self.ahead - old.ahead) > self.error + error


class _Uncertain(Exception):
    """The reply to a COMMIT was lost; the cause says how."""


class Statements:
    """Runs statements with question marks on a Django cursor.

    Args:
        cursor: Django's.
        spell: makes of a statement what the driver wants.
        until: when, on the monotonic clock, the last of them may have waited for others' locks.
    """

    def __init__(
        self, cursor: CursorWrapper, spell: Callable[[str], str], until: float | None = None
    ) -> None:
        self._cursor = cursor
        self._spell = spell
        self._until = until

    @property
    def patience(self) -> float:
        """Seconds the next statement may wait for others' locks."""
        return PATIENCE if self._until is None else max(0.0, self._until - time.monotonic())

    def execute(self, statement: str, values: Sequence[Any] | Mapping[str, Any] = (), /) -> Cursor:
        """Run a statement; what it returns holds until the next one."""
        self._cursor.execute(self._spell(statement), values or None)
        cursor: Any = self._cursor
        return cursor  # type: ignore[no-any-return]


@lru_cache(maxsize=512)
def translate(statement: str) -> str:
    """Return a statement with ``%s`` for each ``?``, and ``%(name)s`` for each ``:name``."""
    return re.sub(r"(?<!:):([a-z]+)", r"%(\1)s", statement).replace("?", "%s")


def _line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__
