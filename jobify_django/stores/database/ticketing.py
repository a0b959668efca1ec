"""A push in one message, where psycopg 3 binds the values on this side: see ``ticket`` for why it is exact.

With a ticket's book at hand a push announces itself, takes its numbers, and inserts if they are within the
book's limit. Without, or where the book has no room left, another message announces, adds up what others have
announced, and counts in a new snapshot, as ``announcement`` does in as many statements; a new book comes of
it. What is more than that (some of many jobs, ids that are known already) goes the way of ``announcement``.

**The order.** A queue's order is read by a statement after the one that gave the transaction its number, so
whoever changes it can tell who may still come with the order before: see ``LATE``.

**Who stands in whose way.** Of several that push at once for the last places none may find room, for each
sees what the others have announced. A process to which that happens sends its pushes through a door from then
on, an exclusive lock, one after the other. Nobody holds it in a caller's transaction, so never for long.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

from django.db import Error as DjangoError
from django.db import OperationalError, transaction
from django.db.backends.utils import CursorWrapper

from jobify_django.conf import MAX_MAXSIZE, QueueSettings
from jobify_django.job import JobSpec
from jobify_django.stores.database.announcement import (
    MOST_ANNOUNCED,
    Announcement,
    Announcing,
    class_of,
)
from jobify_django.stores.database.connection import Connection, array, lock_wait, sql_state
from jobify_django.stores.database.listener import DEBOUNCE, NOTIFY, NotifySender
from jobify_django.stores.database.message import Call, OneMessage, is_idle, leave_transaction, rows_of
from jobify_django.stores.database.push_statements import (
    ADD_COUNTED,
    ADD_INSIDE,
    ADD_MANY,
    ADD_ONE,
    ANNOUNCE,
    BEGIN,
    COMMIT,
    COUNTED_BY,
    DOOR,
    LOOK,
    TIMEOUT,
    values_of,
)
from jobify_django.stores.database.reading import order_from, within
from jobify_django.stores.database.server import STATEMENT_TIMEOUT
from jobify_django.stores.database.ticket import Book
from jobify_django.stores.database.transaction import Contended
from jobify_django.stores.value import Added

TIMED_OUT = "57014"

THROUGH_THE_DOOR = 1.0
"""Seconds after a push met others in which the next ones of the process go through the door."""

DOOR_TIMEOUT = 2.0
"""Seconds a push waits at the door at most, before it is tried again."""

MOST_IN_VAIN = 31
"""Pushes that count at once, at most, after a ticket was refused, and twice as many after the next one. All
queues share the numbers: beside a busy queue those that a small bound leaves are soon used up."""

NO_LIMIT = 1 << 62


class Push(NamedTuple):
    """Jobs on their way into a queue.

    Attributes:
        queue: the queue.
        specs: the jobs.
        all_or_nothing: whether some of them are as good as none.
        until: when, on the process's monotonic clock, it may have waited for others' locks.
    """

    queue: QueueSettings
    specs: Sequence[JobSpec]
    all_or_nothing: bool
    until: float


class Ticketing(Announcing, OneMessage):
    """The verb ``add`` in one message, if the driver sends one."""

    _notify_sender: NotifySender

    def _set_up(self) -> None:
        super()._set_up()
        self._last: dict[int, int] = {}
        self._met: dict[str, float] = {}
        self._took = 0.0
        self._in_vain: dict[str, tuple[int, int]] = {}

    def add(
        self,
        queue: QueueSettings,
        specs: Sequence[JobSpec],
        *,
        all_or_nothing: bool = False,
        lock_timeout: float | None = None,
    ) -> Added:
        added = None
        if self._sends_messages and not self.in_transaction() and 0 < len(specs) <= MOST_ANNOUNCED:
            until = self.runtime.monotonic() + lock_wait(lock_timeout)
            try:
                added = self._in_messages(Push(queue, specs, all_or_nothing, until))
            except Contended as contended:
                added = contended.args[0]
        if added is None:
            return super().add(queue, specs, all_or_nothing=all_or_nothing, lock_timeout=lock_timeout)
        return added

    # In a transaction of our own

    def _in_messages(self, push: Push) -> Added | None:
        """Add jobs; return ``None``, and add none of them, if that takes more than a message."""
        added, notified = self._in_one_message(partial(self._send_push, push), push.until, may_repeat=True)
        if added is not None and added.taken:
            name = push.queue.name
            publish = partial(self.notifier.publish, "work", name)
            self._after_commit(publish if notified else partial(self._notify_added, name, push.specs))
        return added

    def _send_push(self, push: Push, cursor: CursorWrapper, wait: float) -> tuple[Added | None, bool]:
        """Return also whether other processes are notified already."""
        now = self.clock()
        book = self._book(push.queue.name)
        try:
            if book is not None and (found := self._send_by_book(push, book, cursor, wait, now)) is not None:
                return found
            # The ticket may have waited for a lock.
            wait = min(wait, max(0.0, push.until - self.runtime.monotonic()))
            return self._send_counted(push, cursor, wait, now), False
        except BaseException:
            leave_transaction(cursor)
            raise

    def _send_by_book(
        self, push: Push, book: Book, cursor: CursorWrapper, wait: float, now: float
    ) -> tuple[Added, bool] | None:
        queue, jobs = push.queue, len(push.specs)
        values, waiting = values_of(queue.name, push.specs, now)
        limit = book.limit(queue.maxsize) if waiting else NO_LIMIT
        if self._last.get(book.table, 0) + jobs > limit or self._skips_ticket(queue.name):
            return None
        order = book.order_in_force(queue.order)
        ticket = (order, book.first, limit, book.table, book.live)
        add = (ADD_ONE, (*values, *ticket)) if jobs == 1 else (ADD_MANY, (*values, *ticket, jobs))
        calls = [(ANNOUNCE, (class_of(queue.name), self._key(jobs))), add]
        began = self.runtime.monotonic()
        rows, notified = self._send_ticket(calls, queue.name, cursor, wait)
        if not rows:
            _, in_a_row = self._in_vain.get(queue.name, (0, 0))
            in_a_row = min(MOST_IN_VAIN, 2 * in_a_row + 1)
            self._in_vain[queue.name] = (in_a_row, in_a_row)
            return None
        self._in_vain.pop(queue.name, None)
        self._took = min(self.runtime.monotonic() - began, DEBOUNCE)
        last = self._last[book.table] = rows[-1][0]
        depth = book.counted + last - book.first - (jobs - waiting)
        return Added(jobs, depth, book.bound(queue.maxsize), (), order, now), notified

    def _send_ticket(
        self, calls: Sequence[Call], queue: str, cursor: CursorWrapper, wait: float
    ) -> tuple[Sequence[Any], bool]:
        """Return the jobs' numbers, none if they are not added, and whether other processes are notified."""
        work = f"work {queue}"
        # Sent when this commits; later it would be one more message.
        notify = self._notify_sender.is_due(work, ahead=self._took)
        # A transaction of its own after the commit: what notifies holds up all others that do.
        begin, end, after = (
            (BEGIN + TIMEOUT, f"{COMMIT}; {NOTIFY}", (array([work]),)) if notify else (TIMEOUT, "", ())
        )
        before = (int(min(STATEMENT_TIMEOUT, wait) * 1000) + 1,)
        rows: Sequence[Any] = ()
        try:
            rows = self._messages.send(cursor, calls, begin=begin, before=before, end=end, after=after)
        except DjangoError as error:
            # If it is the notification that failed, the push may be stored: the next message finds it then.
            if sql_state(error) != TIMED_OUT and not (notify and is_idle(cursor)):
                raise
            leave_transaction(cursor)  # the next message waits for the lock as long as it may
            if cursor.db.connection is None:
                raise OperationalError("the connection was lost while the push waited for a lock") from error
        finally:
            if notify and not rows:
                self._notify_sender.forget(work)
        return rows, notify

    def _skips_ticket(self, queue: str) -> bool:
        """Whether a push had better count at once, for the tickets before it were in vain."""
        left, in_a_row = self._in_vain.get(queue, (0, 0))
        if left:
            self._in_vain[queue] = (left - 1, in_a_row)
        return left > 0

    def _send_counted(self, push: Push, cursor: CursorWrapper, wait: float, now: float) -> Added | None:
        queue, jobs = push.queue, len(push.specs)
        values, waiting = values_of(queue.name, push.specs, now, many=True)
        calls = [
            (LOOK, (class_of(queue.name), self._key(jobs), jobs)),
            (ADD_COUNTED, (*values, queue.order, queue.maxsize, waiting)),
        ]
        began = self.runtime.monotonic()
        if began < self._met.get(queue.name, 0.0):
            calls.insert(0, (DOOR, (class_of(f"door.{queue.name}"),)))
            wait = min(wait, DOOR_TIMEOUT)
        (row,) = self._messages.send(
            cursor,
            calls,
            begin=BEGIN + TIMEOUT + COUNTED_BY,
            before=(int(STATEMENT_TIMEOUT * 1000), max(1, int(wait * 1000))),
            end=COMMIT,
        )
        table, numbers, waits, due, delayed, others, live, order, fits, added, known = row
        self._last[table] = numbers[-1]
        book = Book(table, numbers[0] - 1, waits + delayed + others, live, order or "")
        self._keep_book(queue.name, book, began)
        maxsize = within(live, MAX_MAXSIZE) or queue.maxsize
        found = Added(0, waits + due + added, maxsize, (), order_from(order) or queue.order, now)
        if fits:
            return found._replace(taken=jobs)
        some = not push.all_or_nothing and waits + due + others < maxsize
        if known or (jobs > 1 and (some or waiting < jobs)):
            return None
        if waits + due + jobs <= maxsize:
            self._met[queue.name] = self.runtime.monotonic() + THROUGH_THE_DOOR
            raise Contended(found)
        return found

    # In a caller's transaction

    def _add(
        self, queue: QueueSettings, specs: Sequence[JobSpec], all_or_nothing: bool, db: Connection
    ) -> Added:
        book = self._book(queue.name)
        if book is not None and self._sends_messages and self.in_transaction():
            added = self._add_inside(queue, specs, book, db)
            if added is not None:
                return added
        return super()._add(queue, specs, all_or_nothing, db)

    def _add_inside(
        self, queue: QueueSettings, specs: Sequence[JobSpec], book: Book, db: Connection
    ) -> Added | None:
        now, jobs = self.clock(), len(specs)
        values, waiting = values_of(queue.name, specs, now, many=True)
        limit = book.limit(queue.maxsize) if waiting else NO_LIMIT
        mine = self._announced(queue.name)
        used, announced = sum(one.used for one in mine), sum(one.jobs for one in mine)
        more = 0
        if not mine or mine[-1].table != book.table:
            more = jobs
        elif used + jobs > announced:
            more = max(jobs, used)
        if more > MOST_ANNOUNCED or self._last.get(book.table, 0) + jobs > limit:
            return None
        order = book.order_in_force(queue.order)
        ticket = (order, book.first, limit, book.table, book.live, jobs)
        key = self._key(more) if more else 0
        text = f"SELECT pg_current_xact_id(); {ADD_INSIDE.plain}"
        cursor = db.execute(text, ADD_INSIDE.in_order((*values, *ticket, class_of(queue.name), key)))
        rows = rows_of(cursor, 0)
        if not rows:
            return None
        ((fits, last, added),) = rows
        if more and self._wrapper.in_atomic_block:
            mine = [Announcement(queue.name, book.table, more)]
            transaction.on_commit(mine[0], using=self._database)
        if not fits:
            return None
        if mine:
            mine[-1].used += added
        self._last[book.table] = last
        depth = book.counted + last - book.first - (jobs - waiting)
        return Added(jobs, depth, book.bound(queue.maxsize), (), order, now)
