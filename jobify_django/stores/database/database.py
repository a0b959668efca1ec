"""What the database store needs of a database, and how databases differ in it."""

from __future__ import annotations

import contextlib
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, TypeVar

from django.apps import apps
from django.db import connections, router, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from jobify_django.conf import QueueSettings
from jobify_django.exceptions import StoreUnmigrated
from jobify_django.log import get_log
from jobify_django.ordering import Order
from jobify_django.outage import Outage
from jobify_django.stores.hints import Probe
from jobify_django.stores.value import Trouble

APP = "jobify_django"
ROUTER = "jobify_django.router.JobifyRouter"

T = TypeVar("T")
Row = tuple[Any, ...]

logger = get_log("jobify.store")

PATIENCE = 20.0
"""Seconds a change waits for others who hold what it needs."""

LEAST_PATIENCE = 2.0
"""The same for one that should not wait at all: a short commit of somebody else is no reason to give up."""

CHUNK = 500
"""Values in one statement."""

INTO = """
    INTO jobify_job (id, queue, task, arguments, priority, status, sequence, order_key,
                     pushed_at, eligible_at, attempt, crashes, pool, cancel_requested)"""
NEW = "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, 0, '', FALSE)"
PROMOTE = (
    "UPDATE jobify_job SET status = 'waiting' WHERE queue = ? AND status = 'delayed' AND eligible_at <= ?"
)
NEW_QUEUE = """
    INSERT INTO jobify_queue (name, version, "order", paused, waiting, sequence)
    VALUES (?, 0, '', FALSE, 0, 0)"""
NEW_POOL = """
    INSERT INTO jobify_pool (id, host, pid, kind, started_at, seen_at, queues) VALUES (?, ?, ?, ?, ?, ?, ?)"""
CLAIMED = "id, attempt, queue, task, arguments, priority, pushed_at, eligible_at, started_at, crashes"
FINISH = """
    UPDATE jobify_job SET status = ?, result = ?, error = ?, ended_at = ?, lease_until = NULL
    WHERE id = ? AND attempt = ? AND status = 'running'"""


TABLES = {"jobify_job", "jobify_queue", "jobify_pool"}


def _from_name_to_name(status: str) -> str:
    """Return a SELECT of the queues of jobs with a status, which looks one row up for each of them."""
    first = f"SELECT min(queue) FROM jobify_job WHERE status = '{status}'"
    return f"""
        {status}(queue) AS (
            {first} UNION ALL
            SELECT ({first} AND queue > {status}.queue) FROM {status} WHERE {status}.queue IS NOT NULL)"""


UNENDED = ("waiting", "delayed", "running")
QUEUES = f"""
    WITH RECURSIVE {", ".join(map(_from_name_to_name, UNENDED))}
    {" UNION ".join(f"SELECT queue FROM {status} WHERE queue IS NOT NULL" for status in UNENDED)}"""


class Cursor(Protocol):
    """What ``execute`` returns."""

    rowcount: int

    def fetchone(self) -> Any:
        """Return the next row, or ``None``."""

    def fetchall(self) -> list[Any]:
        """Return the rows left."""


class Connection(Protocol):
    """A connection that statements with question marks, or with ``:name``, run on."""

    def execute(self, statement: str, values: Sequence[Any] | Mapping[str, Any] = ..., /) -> Cursor:
        """Run a statement."""


class Room(NamedTuple):
    """A queue as a push finds it.

    Attributes:
        maxsize: the tuned bound; ``None`` leaves it to the settings.
        order: the tuned order; ``None`` leaves it to the settings.
        depth: jobs that wait, due ones among them; where there is plenty of room it may be a little high.
        numbers: the sequence numbers that the push may give out, in order.
        reserved: jobs that other open transactions may have added, or may be about to.
    """

    maxsize: int | None
    order: Order | None
    depth: int
    numbers: Iterable[int]
    reserved: int = 0


class Which(NamedTuple):
    """Which jobs a claim starts: the first ``want`` of a queue that are no suspects and whose tasks are not
    ``unknown``, or one ``suspect``."""

    queue: str
    want: int
    unknown: Sequence[str] = ()
    suspect: str = ""

    @property
    def condition(self) -> str:
        """The condition that these jobs of the queue meet."""
        but = f"AND task NOT IN {marks(self.unknown)}" if self.unknown else ""
        return f"queue = ? AND status = 'waiting' AND {'id = ?' if self.suspect else 'crashes = 0'} {but}"

    @property
    def values(self) -> Sequence[str]:
        """The values of the condition."""
        return [self.queue, *([self.suspect] if self.suspect else []), *self.unknown]


class Crowded(Exception):
    """There was room, but others who were after it at the same moment may take it: a second try tells."""


class Database(ABC):
    """One database, through the calling thread's Django connection.

    Args:
        alias: its key in ``settings.DATABASES``.
    """

    locked = ""
    """Ends a SELECT whose rows are about to change, so that nobody else changes them first."""

    steady = ""
    """Ends a SELECT of a queue's order, which is not to change until the transaction ends. Not needed where
    ``may_come_late`` tells of those who have read an older one."""

    unlocked = ""
    """The same, passing over rows that somebody has locked."""

    longer_history = (
        "CASE WHEN substr(history, 1, 2) = '[{' AND substr(history, length(history) - 1, 2) = '}]' "
        "THEN substr(history, 1, length(history) - 1) || ', ' ELSE '[' END || ? || ']'"
    )
    """A job's history, a list in JSON, and one entry more. One that is no such list begins anew."""

    limits: Mapping[str, Any] = MappingProxyType({})
    """The driver's options that end a wait for a server that has gone, in its own names and units."""

    def __init__(self, alias: str) -> None:
        self.alias = alias
        self._unheard = Outage()

    # Transactions

    @abstractmethod
    def read(self, work: Callable[[Connection], T]) -> T:
        """Run ``work``, which only reads, and return its value; raises ``StoreError``."""

    @abstractmethod
    def write(
        self, work: Callable[[Connection], T], *, again: bool = False, patience: float | None = None
    ) -> T:
        """Run ``work`` in a transaction: the caller's if one is open, otherwise a short one of our own.

        In a transaction of our own it may run more than once, where another one stood in its way.

        Args:
            work: what to do.
            again: also do it again, once, on a new connection, after one that broke: for what may be done
                twice. Without, raises ``StoreUncertain`` when the reply to the commit was lost.
            patience: seconds it may wait for others' locks, from ``LEAST_PATIENCE`` to ``PATIENCE``.

        Raises ``StoreBusy``, ``StoreError``, and ``TransactionManagementError`` where the caller's
        transaction can only be rolled back.
        """

    def in_transaction(self) -> bool:
        """Whether this thread has a transaction open on the database."""
        wrapper = self._wrapper
        return wrapper.in_atomic_block or not autocommits(wrapper)

    def unseen(self) -> str:
        """Return what ``Store.unseen`` does."""
        # Without autocommit a transaction is open all the time, and need not have anything in it.
        if any(getattr(block, "_from_testcase", False) for block in self._wrapper.atomic_blocks):
            return (
                f"a test keeps a transaction open on database {self.alias!r} and never commits it, so no "
                "worker sees what is pushed here. Use TransactionTestCase instead of TestCase, or "
                "pytest-django's @pytest.mark.django_db(transaction=True); or use the STORE 'memory' there."
            )
        if self._wrapper.in_atomic_block:
            return (
                f"an atomic() block is open on database {self.alias!r} here, so no worker sees what was "
                "pushed in it. Do this after the block."
            )
        return ""

    def waiting_for_commit(self) -> Iterable[Callable[[], None]]:
        """Return what ``after_commit`` is to call when the open transaction commits."""
        wrapper: Any = self._wrapper
        return (call for _, call, *_ in wrapper.run_on_commit)

    def legible(self) -> AbstractContextManager[None]:
        """Return a block in which Django's own queries of this thread read every text, whatever its bytes."""
        return contextlib.nullcontext()

    def after_commit(self, call: Callable[[], None]) -> None:
        """Run ``call`` when the open ``atomic`` commits, or now if there is none; what it raises is logged.

        Django knows nothing of the commit of a transaction without ``atomic``, so then it runs early.
        """
        if self._wrapper.in_atomic_block:
            transaction.on_commit(call, using=self.alias, robust=True)
            return
        try:
            call()
        except Exception as error:  # the change itself is made
            if (word := self._unheard.fail(error)) is not None:
                logger.error(
                    "a hint about a change of database %r failed (%d times)",
                    self.alias,
                    word.times,
                    exc_info=word.new,
                )

    def open(self) -> None:
        """Give this thread, which does nothing but serve the store, a connection that no job and no request
        can use up: made from the alias's settings without what suits those."""
        if self._wrapper.in_atomic_block or self._wrapper.allow_thread_sharing:
            return  # somebody lends the thread his own
        wrapper: Any = connections.create_connection(self.alias)
        theirs = wrapper.get_connection_params

        def get_connection_params() -> Any:
            # At each connection anew: a project may change a password, or a test the name, meanwhile.
            wrapper.settings_dict = unshared(connections.settings[self.alias])
            return {**self.limits, **theirs()}

        wrapper.settings_dict = unshared(connections.settings[self.alias])
        wrapper.get_connection_params = get_connection_params
        connections[self.alias] = wrapper

    def close(self) -> None:
        """Close this thread's connection; a broken one stays broken until then."""
        if not self._wrapper.in_atomic_block:
            self._wrapper.close()

    @property
    def _wrapper(self) -> BaseDatabaseWrapper:
        return connections[self.alias]

    # Time and hints

    def time(self) -> float:
        """Return the time that leases and delays are measured on, in seconds since the epoch."""
        return time.time()

    def probe(self) -> Probe | None:
        """Return what ``Store.probe`` does."""
        return None

    def say(self, kind: str, queue: str = "") -> None:  # noqa: B027 - most have other ways, or none
        """Tell other processes of a change that is committed."""

    def queues(self, db: Connection) -> Collection[str]:
        """Return the names of the queues that hold jobs which have not ended."""
        return [name for (name,) in db.execute(QUEUES).fetchall()]

    def has_tables(self) -> bool:
        """Return whether the database answers and has our tables, of whatever version; never raises.

        A statement that fails for want of a table would spoil the caller's transaction: so it asks for them.
        """
        try:
            wrapper = self._wrapper
            with wrapper.cursor() as cursor:
                return set(wrapper.introspection.table_names(cursor)) >= TABLES
        except Exception:  # the database's, and whoever keeps this thread from it: a test case, an event loop
            return False

    def troubles(self, db: Connection) -> Sequence[Trouble]:
        """Return what ``Store.troubles`` does."""
        return ()

    # The bound

    @abstractmethod
    def room(self, db: Connection, queue: QueueSettings, jobs: int, now: float, least: int = 0) -> Room:
        """Return how a queue stands, for a push of so many jobs that goes through only if they fit, of which
        nothing is added unless there is room for at least so many.

        Until the transaction ends, no push of another one can take the room that was found.
        """

    @abstractmethod
    def insert(self, db: Connection, queue: str, rows: Sequence[Row]) -> Sequence[str]:
        """Insert at least one job (see ``INTO``), and return the ids of those that were not there."""

    def note(self, db: Connection, queue: str, waiting: int) -> None:  # noqa: B027 - most count rows
        """Take down that so many more (or fewer) jobs wait, but for what ``insert`` and ``start`` do."""

    def repair(self) -> bool:
        """Mend the books; return whether they were wrong."""
        return False

    # A changed order

    def mark(self, db: Connection) -> int:
        """Return what tells transactions that have written before this one began from later ones; not 0."""
        return 1

    def may_come_late(self, db: Connection, mark: int) -> bool:
        """Whether somebody may still commit jobs that an order from before the ``mark`` has placed, this
        transaction too where it made the mark."""
        return False

    # Where SQL differs

    def ensure_queue(self, db: Connection, queue: str) -> None:
        """Insert the queue's row if it is not there."""
        db.execute(f"{NEW_QUEUE} ON CONFLICT (name) DO NOTHING", (queue,))

    def beat(self, db: Connection, values: Row) -> None:
        """Insert a pool's row (see ``NEW_POOL``), or change its last two columns."""
        changed = "seen_at = excluded.seen_at, queues = excluded.queues"
        db.execute(f"{NEW_POOL} ON CONFLICT (id) DO UPDATE SET {changed}", values)

    def blind(self, queue: str) -> bool:
        """Whether to look if jobs wait would take longer than to claim them."""
        return False

    def suspect(self, db: Connection, queue: str, unknown: Sequence[str]) -> str:
        """Return the id of the job that is first in line in such a queue, if it is a suspect."""
        return ""

    def promote(self, db: Connection, queue: str, now: float) -> None:
        """Let the delayed jobs that are due wait."""
        self.note(db, queue, db.execute(PROMOTE, (queue, now)).rowcount)

    def take_turn(self, db: Connection, queue: str) -> None:  # noqa: B027 - not where writers come one by one
        """Wait until no other claim of a queue whose running jobs are counted is under way."""

    @abstractmethod
    def start(self, db: Connection, pool: str, which: Which, now: float, until: float) -> list[Row]:
        """Start jobs, and return their ``CLAIMED`` in claim order."""

    @abstractmethod
    def renew(
        self, db: Connection, pool: str, held: Sequence[tuple[str, int]], until: float
    ) -> Mapping[str, bool]:
        """Extend leases; return for each job still held whether it is asked to cancel."""

    def finish(self, db: Connection, rows: Sequence[Row]) -> Collection[tuple[str, int]]:
        """End jobs (see ``FINISH``), and return the attempts (id, number) that still held theirs."""
        return [(row[4], row[5]) for row in rows if db.execute(FINISH, row).rowcount]


def patient(seconds: float | None) -> float:
    """Return how long a call may wait for others' locks, of what its caller allows."""
    return PATIENCE if seconds is None else min(PATIENCE, max(LEAST_PATIENCE, seconds))


def autocommits(wrapper: BaseDatabaseWrapper) -> bool:
    """Whether what is written outside of ``atomic`` is committed at once, and not when the caller says."""
    if wrapper.connection is None:
        return bool(wrapper.settings_dict["AUTOCOMMIT"])
    return wrapper.in_atomic_block or wrapper.autocommit


FOR_REQUESTS = ("pool", "server_side_binding")
"""Options that suit requests: a pool that others can empty, and a way to send statements one at a time."""


def unshared(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return an alias's settings for a connection that one thread keeps to itself."""
    options = {name: value for name, value in settings["OPTIONS"].items() if name not in FOR_REQUESTS}
    own = {"AUTOCOMMIT": True, "CONN_MAX_AGE": None, "CONN_HEALTH_CHECKS": False}
    return {**settings, **own, "OPTIONS": options}


def marks(values: Collection[Any]) -> str:
    """Return ``(?, ?, ...)``."""
    return f"({', '.join('?' * len(values))})"


def chunks(items: Sequence[T], size: int = CHUNK) -> Iterable[Sequence[T]]:
    """Return the items in parts that fit into one statement."""
    return (items[start : start + size] for start in range(0, len(items), size))


def unmigrated(alias: str, reason: str) -> StoreUnmigrated:
    """Return the error of a database without this version's tables."""
    return StoreUnmigrated(f"database {alias!r} lacks this version's tables ({reason}): {_way_out(alias)}")


def _way_out(alias: str) -> str:
    migrate = f"run 'manage.py migrate{'' if alias == 'default' else f' --database {alias}'}'"
    if apps.apps_ready and not apps.is_installed(APP):
        return f"{APP!r} is not in INSTALLED_APPS. Add it there, then {migrate}."
    if not router.allow_migrate(alias, APP, model_name="job"):
        return (
            f"DATABASE_ROUTERS keep them off it, so 'migrate' would not make them there. Put {ROUTER!r} "
            f"before your own routers, then {migrate}; or name the database that has them in "
            "JOBIFY['DATABASE']."
        )
    return (
        f"{migrate}. If that finds nothing to do, this process has another database than the one that is "
        "migrated, or its user may not see the tables."
    )
