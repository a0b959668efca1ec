"""What every verb stands on: reads and writes in transactions, and notifications once they are committed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from django.db import connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from jobify_django.job import JobSpec
from jobify_django.log import get_log
from jobify_django.repeated_failure import RepeatedFailure
from jobify_django.stores.base import Store
from jobify_django.stores.database.columns import NEW_QUEUE
from jobify_django.stores.database.connection import Connection, autocommits, unshared
from jobify_django.stores.notifier import Kind

T = TypeVar("T")
Change = tuple[Kind, Any]
"""The kind of a notification, and what it is about."""

logger = get_log("jobify.store")

TABLES = {"jobify_job", "jobify_queue", "jobify_pool"}


class Contended(Exception):
    """There was room, but other transactions may be about to take it: only a second try can tell."""


class Transactions(Store):
    """A store on one database, through the calling thread's Django connection."""

    _database: str
    """The database's key in ``settings.DATABASES``."""

    _for_update = ""
    """Ends a SELECT whose rows are about to change, so that nobody else changes them first."""

    _skip_locked = ""
    """The same, passing over rows that somebody has locked."""

    _limits: Mapping[str, Any] = {}
    """The driver's options that end a wait for a server that has gone, in its own names and units."""

    def _set_up(self) -> None:
        """Make what this store keeps for itself, once its database is known."""
        self._notify_failures = RepeatedFailure(self.runtime)
        # By thread: the notifications that it sends last. Each thread has to do with its own entry alone.
        self._held_back: dict[int, list[Change]] = {}

    def _read(self, work: Callable[[Connection], T]) -> T:
        """Run ``work``, which only reads, and return its value; raises ``StoreError``."""
        raise NotImplementedError

    def _write(
        self, work: Callable[[Connection], T], *, may_repeat: bool = False, lock_timeout: float | None = None
    ) -> T:
        """Run ``work`` in a transaction: the caller's if one is open, otherwise a short one of our own.

        In a transaction of our own it may run more than once, where another one stood in its way, or where it
        raises ``Contended``.

        Args:
            work: what to do.
            may_repeat: also do it again, once, on a new connection, after one that broke: for what may be
                done twice. Without, raises ``StoreUncertain`` when the reply to the commit was lost.
            lock_timeout: seconds it may wait for others' locks, from ``SHORTEST_LOCK_WAIT`` to
                ``LONGEST_LOCK_WAIT``.

        Raises ``StoreBusy``, ``StoreError``, and ``TransactionManagementError`` where the caller's
        transaction can only be rolled back.
        """
        raise NotImplementedError

    def _do_apart(self, work: Callable[[Connection], T]) -> T:
        """Run ``work``, of which each statement may be committed by itself, and done twice; raises
        ``StoreError``."""
        return self._write(work, may_repeat=True)

    def in_transaction(self) -> bool:
        wrapper = self._wrapper
        return wrapper.in_atomic_block or not autocommits(wrapper)

    def why_invisible(self, id: str = "") -> str:
        if id and not any(spec.id == id for spec in self._uncommitted()):
            return ""
        # Without autocommit a transaction is open all the time, and need not have anything in it.
        if any(getattr(block, "_from_testcase", False) for block in self._wrapper.atomic_blocks):
            return (
                f"a test keeps a transaction open on database {self._database!r} and never commits it, so no "
                "worker sees what is pushed here. Use TransactionTestCase instead of TestCase, or "
                "pytest-django's @pytest.mark.django_db(transaction=True); or use the STORE 'memory' there."
            )
        if self._wrapper.in_atomic_block:
            return (
                f"an atomic() block is open on database {self._database!r} here, so no worker sees what was "
                "pushed in it. Do this after the block."
            )
        return ""

    def _uncommitted(self) -> Iterable[JobSpec]:
        """Return what this thread's open ``atomic`` has added."""
        wrapper: Any = self._wrapper
        for _, call, *_ in wrapper.run_on_commit:
            if isinstance(call, partial) and call.func == self._notify_added:
                yield from call.args[1]

    # Notifications

    def _notify_added(self, queue: str, added: Sequence[JobSpec]) -> None:
        self._notify("work", queue)

    def _notify_work(self, queues: Iterable[str]) -> None:
        for queue in set(queues):
            self._after_commit(partial(self._notify, "work", queue))

    def _notify_room(self, queues: Iterable[str]) -> None:
        for queue in set(queues):
            self._after_commit(partial(self._notify, "room", queue))

    def _notify_ended(self, ids: Sequence[str]) -> None:
        if ids:
            self._after_commit(partial(self._notify, "ended", ids))

    def _notify(self, kind: Kind, about: Any) -> None:
        held_back = self._held_back.get(self.runtime.thread_id())
        if held_back is None:
            self._publish([(kind, about)])
        else:
            held_back.append((kind, about))

    @contextlib.contextmanager
    def notifying_last(self) -> Iterator[None]:
        thread = self.runtime.thread_id()
        if thread in self._held_back:  # the outer block's end tells of this one too
            yield
            return
        held_back = self._held_back[thread] = []
        try:
            yield
        finally:
            del self._held_back[thread]
            if held_back:
                self._after_commit(partial(self._publish, held_back))

    def _publish(self, changes: Sequence[Change]) -> None:
        for kind, about in changes:
            self.notifier.publish(kind, about)
        self._notify_others(
            list(dict.fromkeys((kind, about if isinstance(about, str) else "") for kind, about in changes))
        )

    def _notify_others(self, changes: Sequence[tuple[str, str]]) -> None:
        """Notify other processes of changes that are committed: their kinds, and the queues or empty texts.
        Most databases have another way, or none."""

    def _after_commit(self, call: Callable[[], None]) -> None:
        """Run ``call`` when the open ``atomic`` commits, or now if there is none; what it raises is logged.

        Django knows nothing of the commit of a transaction without ``atomic``, so then it runs early.
        """
        if self._wrapper.in_atomic_block:
            transaction.on_commit(call, using=self._database, robust=True)
            return
        try:
            call()
        except Exception as error:  # the change itself is made
            if (report := self._notify_failures.fail(error)) is not None:
                logger.error(
                    "a notification of a change of database %r failed (%d times)",
                    self._database,
                    report.times,
                    exc_info=report.new,
                )

    def _ensure_queue(self, db: Connection, queue: str) -> None:
        db.execute(f"{NEW_QUEUE} ON CONFLICT (name) DO NOTHING", (queue,))

    # The connection

    @property
    def _wrapper(self) -> BaseDatabaseWrapper:
        return connections[self._database]

    def open(self) -> None:
        if self._wrapper.in_atomic_block or self._wrapper.allow_thread_sharing:
            return  # the caller lends this thread a connection of its own
        wrapper: Any = connections.create_connection(self._database)
        theirs = wrapper.get_connection_params

        def get_connection_params() -> Any:
            # At each connection anew: a project may change a password, or a test the name, meanwhile.
            wrapper.settings_dict = unshared(connections.settings[self._database])
            return {**self._limits, **theirs()}

        wrapper.settings_dict = unshared(connections.settings[self._database])
        wrapper.get_connection_params = get_connection_params
        connections[self._database] = wrapper

    def close(self) -> None:
        if not self._wrapper.in_atomic_block:
            self._wrapper.close()

    def is_set_up(self) -> bool:
        # A statement that fails for want of a table would spoil the caller's transaction: so ask for them.
        try:
            wrapper = self._wrapper
            with wrapper.cursor() as cursor:
                return set(wrapper.introspection.table_names(cursor)) >= TABLES
        except Exception:  # the database's, and whoever keeps this thread from it: a test case, an event loop
            return False
