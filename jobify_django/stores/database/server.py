"""What databases behind a socket have in common: short transactions, tried again where others stood in the
way, and the server's clock, which leases and delays are measured on, for all machines share it."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, NamedTuple, NoReturn, TypeVar

from django.db import Error as DjangoError
from django.db import InterfaceError, OperationalError, ProgrammingError
from django.db.backends.utils import CursorWrapper
from django.db.transaction import TransactionManagementError

from jobify_django.exceptions import StoreBusy, StoreError, StoreUncertain
from jobify_django.runtime import MACHINE, Runtime
from jobify_django.stores.database.connection import (
    Connection,
    Statements,
    lock_wait,
    translate,
    unmigrated,
)
from jobify_django.stores.database.transaction import Contended, Transactions

T = TypeVar("T")

TRIES = 8
"""How often a transaction of our own is tried when another one stood in its way."""

TRIES_INSIDE = 5
"""The same inside a transaction of the caller's, which must not wait long."""

FIRST_SLEEP = 0.005
LONGEST_SLEEP = 0.2

STATEMENT_TIMEOUT = 15
"""Seconds a statement in a transaction of our own may take, where the server keeps to that."""

SILENCE_TIMEOUT = 15
"""Seconds a transaction of ours may wait for its next statement. A host that freezes or is cut off before the
commit of its claim keeps those jobs from all others, and the server may take hours to notice."""


MEASURE_EVERY = 10.0
"""Seconds between two readings of the server's clock."""

MEASURE_TIMES = 3
PRECISE_READING = 0.01
"""A reading that took longer, in seconds, is taken again: half of what it took is how wrong it may be."""

DRIFT = 0.0005
"""Seconds that two clocks may drift apart in one, the most by which NTP lets one run faster or slower."""


class ServerTransactions(Transactions):
    """Transactions on a database server, whose clock is the one that counts."""

    _for_update = "FOR UPDATE"
    _skip_locked = "FOR UPDATE SKIP LOCKED"

    _begin_with: Sequence[str]
    """The statements that begin a transaction of our own."""

    _select_time: str
    """A SELECT of the server's clock, in seconds since the epoch."""

    def _set_up(self) -> None:
        super()._set_up()
        self._server_clock = ServerClock(self._select_time, self.runtime)
        if self.runtime.clock is MACHINE.clock:  # whoever hands in another one means it
            self.clock = self._time

    def _read(self, work: Callable[[Connection], T]) -> T:
        if self.in_transaction():
            return self._in_callers_transaction(work)
        return self._with_retries(partial(self._on_cursor, work, self._deadline), may_repeat=True)

    def _do_apart(self, work: Callable[[Connection], T]) -> T:
        return self._read(work)  # without a round trip to begin, and another one to commit

    def _write(
        self, work: Callable[[Connection], T], *, may_repeat: bool = False, lock_timeout: float | None = None
    ) -> T:
        until = self.runtime.monotonic() + lock_wait(lock_timeout)
        if self.in_transaction():
            return self._in_callers_transaction(work, until)
        return self._with_retries(partial(self._transact, work, until), may_repeat=may_repeat, until=until)

    def _in_callers_transaction(self, work: Callable[[Connection], T], until: float | None = None) -> T:
        for tried in range(1, TRIES_INSIDE + 1):
            try:
                return self._on_cursor(work, until=until)
            except Contended:
                if tried == TRIES_INSIDE:
                    raise
            except DjangoError as error:
                wrapper: Any = self._wrapper
                if wrapper.in_atomic_block and not wrapper.needs_rollback:
                    # As the ORM does: the server may have undone all of it, so nothing more may be committed.
                    wrapper.needs_rollback = True
                    wrapper.rollback_exc = error
                self._raise_store_error(error)
            self._pause(0.5, FIRST_SLEEP)
        raise AssertionError("the last try returns or raises")

    def _on_cursor(
        self,
        work: Callable[[Connection], T],
        deadline: Callable[[], AbstractContextManager[object]] = contextlib.nullcontext,
        until: float | None = None,
    ) -> T:
        with self._wrapper.cursor() as cursor, deadline():
            db = Statements(cursor, self._spell, self.runtime, until)
            self._server_clock.measure(db)
            return work(db)

    def _transact(self, work: Callable[[Connection], T], until: float) -> T:
        with self._wrapper.cursor() as cursor, self._deadline():
            db = Statements(cursor, self._spell, self.runtime, until)
            self._server_clock.measure(db)
            for statement in self._beginning(db.lock_timeout):
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
                    raise Uncertain from error
                raise
            return value

    def _roll_back(self, cursor: CursorWrapper) -> None:
        try:
            cursor.execute("ROLLBACK")
        except DjangoError:
            self._wrapper.close()

    def _with_retries(self, call: Callable[[], T], *, may_repeat: bool, until: float = math.inf) -> T:
        uncertain: Exception | None = None
        for tried in range(1, TRIES + 1):
            try:
                return call()
            except Contended:
                if tried == TRIES:
                    raise
            except (Uncertain, DjangoError) as caught:
                error = caught.__cause__ if isinstance(caught, Uncertain) else caught
                assert isinstance(error, DjangoError)
                uncertain = uncertain or (error if isinstance(caught, Uncertain) else None)
                broken = self._broken(error)
                if broken:
                    self.close()  # the next call gets a new one
                worth_it = (broken and may_repeat) or self._collided(error)
                late = self._collided(error) and self.runtime.monotonic() >= until
                if tried == TRIES or late or not worth_it:
                    self._give_up(error, uncertain)
                may_repeat = may_repeat and not broken  # once
            self._pause(0.3, min(FIRST_SLEEP * 2**tried, LONGEST_SLEEP))
        raise AssertionError("the last try returns or raises")

    def _pause(self, least: float, seconds: float) -> None:
        """Sleep at most so many seconds, and at least this part of them: two who met do not meet again."""
        self.runtime.sleep(self.runtime.uniform(least, 1.0) * seconds)

    def _give_up(self, error: DjangoError, uncertain: Exception | None) -> NoReturn:
        if uncertain is not None:
            raise StoreUncertain(
                f"database {self._database!r}: the connection broke during a commit ({_line(uncertain)}), so "
                "the change may be stored or not. Look before you do it again."
            ) from error
        self._raise_store_error(error)

    def _broken(self, error: DjangoError) -> bool:
        return isinstance(error, (OperationalError, InterfaceError)) and not self._collided(error)

    def _raise_store_error(self, error: DjangoError) -> NoReturn:
        if isinstance(error, TransactionManagementError):
            raise error  # what the ORM says there: the caller's transaction can only be rolled back
        if self._collided(error):
            raise StoreBusy(
                f"database {self._database!r}: another transaction stood in the way ({_line(error)}). Try "
                "again; if it is often so, look for a long transaction."
            ) from error
        if isinstance(error, (ProgrammingError, OperationalError)) and self._lacks_tables(error):
            raise unmigrated(self._database, _line(error)) from error
        raise StoreError(f"database {self._database!r} failed: {_line(error)}.") from error

    # What servers do in their own ways

    def _beginning(self, lock_timeout: float) -> Sequence[str]:
        """Return ``begin`` for a transaction that may wait so many seconds for others' locks."""
        return self._begin_with

    def _deadline(self) -> AbstractContextManager[object]:
        """Return a block that ends the connection when a call in it takes too long."""
        return contextlib.nullcontext()

    def _collided(self, error: DjangoError) -> bool:
        """Whether another transaction stood in the way, so that a second try may go through."""
        raise NotImplementedError

    def _lacks_tables(self, error: DjangoError) -> bool:
        """Whether a table or a column is missing."""
        raise NotImplementedError

    @staticmethod
    def _spell(statement: str) -> str:
        """Return a statement as the driver wants it."""
        return translate(statement)

    def _time(self) -> float:
        if self._server_clock.reading is None:
            with contextlib.suppress(StoreError):
                self._read(lambda db: None)  # which measures
        return self._server_clock.time()


class ServerClock:
    """How far a server's clock is from this process's monotonic one: a host whose clock is stepped notices
    nothing.

    Args:
        select: a SELECT of the server's clock, in seconds since the epoch.
        runtime: the machine this process runs on.
    """

    def __init__(self, select: str, runtime: Runtime) -> None:
        self._select = select
        self._runtime = runtime
        self.reading: Reading | None = None
        self._measured = 0.0

    def time(self) -> float:
        """Return the server's time; this host's, as long as the server was never asked."""
        if self.reading is None:
            return self._runtime.clock()
        return self._runtime.monotonic() + self.reading.ahead

    def measure(self, db: Connection) -> None:
        """Read the server's clock, if that is due."""
        monotonic = self._runtime.monotonic
        if self.reading is not None and monotonic() - self._measured <= MEASURE_EVERY:
            return
        readings: list[Reading] = []
        while len(readings) < MEASURE_TIMES and not (readings and readings[-1].error < PRECISE_READING / 2):
            began = monotonic()
            (now,) = db.execute(self._select).fetchone()
            readings.append(self._read(began, now))
        self._take(min(readings))

    def note(self, began: float, now: float) -> None:
        """Note what a statement that began then, and has just ended, has read along: then nobody need ask."""
        self._take(self._read(began, now))

    def _read(self, began: float, now: float) -> Reading:
        ended = self._runtime.monotonic()
        error = (ended - began) / 2
        return Reading(error, float(now) - began - error, ended)

    def _take(self, new: Reading) -> None:
        self._measured = self._runtime.monotonic()
        if self.reading is None or new.replaces(self.reading):
            self.reading = new


class Reading(NamedTuple):
    """How many seconds the server's clock is ahead of this process's monotonic one, give or take ``error``,
    as it was ``at`` that one's time. The better of two is kept as in NTP's clock filter (RFC 5905, 10)."""

    error: float
    ahead: float
    at: float

    def replaces(self, old: Reading) -> bool:
        """Whether it is better than an old one, or shows that the server's clock was set since."""
        error = old.error + DRIFT * (self.at - old.at)
        return self.error <= error or abs(self.ahead - old.ahead) > self.error + error


class Uncertain(Exception):
    """The connection broke while a commit was under way; the cause says how."""


def _line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__
