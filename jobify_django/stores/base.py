"""The contract every store keeps. ``jobify_django.testing.StoreConformance`` is its executable form.

Verbs are plural and one round trip each. They are synchronous: the ORM is, and a push must share the
caller's transaction. A store reads time from the ``clock`` it was made with, and starts no thread.

**Attempts.** Each claim gives a job its next attempt number. Every later write of the pool carries that
number and is refused when the job has moved on, so a pool that was frozen past its lease changes nothing.

**The bound.** After every ``add``, a queue's waiting jobs are at most its ``maxsize``, over all
processes. Delayed jobs do not count until they are due. Jobs that come back (released, rescued, retried by
hand, newly due) are never refused: they may exceed the bound, and ``add`` then accepts nothing until it
holds again.

**Order.** ``claim`` takes jobs by ``(order_key, sequence)``, see ``jobify_django.ordering``.

**Suspects.** When a pool dies, nobody knows which of its jobs was to blame. Each of them is a suspect from
then on (its ``crashes`` are not 0), and a suspect is claimed alone, when it is first in its line. Jobs behind
it may be claimed together with one before it.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, Protocol, TypeVar

from jobify_django.conf import QueueSettings
from jobify_django.exceptions import StaleVersion
from jobify_django.job import (
    DELAYED,
    RUNNING,
    WAITING,
    Claim,
    JobError,
    JobRecord,
    JobSpec,
    JobStatus,
    Outcome,
    maker,
)
from jobify_django.ordering import Order
from jobify_django.stores.hints import Hints, Probe

Local = TypeVar("Local")

NO_CAPS: Mapping[str, int] = MappingProxyType({})

LOOKED_THROUGH = 1_000
"""Jobs of a status that are looked through for their queues, where a store knows no better way."""

CRASH_LIMIT = 3
"""A job whose pool died this often while running it is failed instead of being run again."""

Suspects = Literal["start", "wait", "pass"]
"""What a claim does with a suspect that is first in its line: start it and nothing else; start nothing, and
say so; or pass over all suspects."""


def crashed(times: int) -> JobError:
    """Return the error of a job that is failed because its pools died."""
    return JobError(
        "jobify_django.Crashed",
        f"crashed its worker {times} times: the process that ran it died, or froze past its lease. "
        "Retry it by hand once the cause is mended.",
    )


def ran_out_away(lease_until: float | None, away: tuple[float, float] | None) -> bool:
    """Return whether a lease ran out while the store was away, see ``Store.rescue``."""
    return away is not None and lease_until is not None and away[0] < lease_until <= away[1]


class Anchor(Protocol):
    """A job that can be read without asking its store."""

    id: str
    task: str
    arguments: str
    priority: int

    def record(self) -> JobRecord:
        """Return the job as it is now."""


class Added(NamedTuple):
    """What ``add`` did: how many of the jobs were taken, and the queue as it stood then.

    Attributes:
        taken: the first ``taken`` of the given jobs are in the store.
        depth: waiting jobs afterwards.
        maxsize: the bound in force.
        anchors: for each taken job, a way to read it for as long as somebody holds it, from a store that
            forgets ended jobs early (the memory store); otherwise empty.
        order: the order in force.
        now: when that was, on the store's clock; it settles which of the jobs are delayed.
    """

    taken: int
    depth: int
    maxsize: int
    anchors: Sequence[Anchor] = ()
    order: Order = "priority"
    now: float = 0.0


make_added = maker(Added)


@dataclass(frozen=True, slots=True)
class QueueState:
    """A queue's live values. ``None`` stands for "as the settings say"; ``version`` only grows.

    While ``reordering``, some jobs may still stand where an older order has put them.
    """

    queue: str
    version: int = 0
    workers: int | None = None
    maxsize: int | None = None
    order: Order | None = None
    paused: bool = False
    reordering: bool = False

    def must_be(self, expected: int | None) -> None:
        """Raise ``StaleVersion`` if it is of another version; ``None`` stands for any."""
        if expected is not None and expected != self.version:
            raise StaleVersion(self.queue, expected=expected, version=self.version)

    def over(self, settings: QueueSettings) -> QueueSettings:
        """Return the settings with the tuned values in place: what is in force."""
        return replace(
            settings,
            workers=self.workers or settings.workers,
            maxsize=self.maxsize or settings.maxsize,
            order=self.order or settings.order,
        )


@dataclass(frozen=True, slots=True)
class Claimed:
    """What ``claim`` gave.

    Attributes:
        claims: the jobs, in claim order.
        refused: the given outcomes that no longer held their job; they were not stored.
        states: the live values of the queues asked for.
        next_due: seconds, more than 0, until the next delayed job of these queues is due; ``None`` without
            one. A job that is due already and was not claimed does not count.
        held: whether nothing was started because a suspect is first in a line and was to wait.
    """

    claims: Sequence[Claim] = ()
    refused: Sequence[Outcome] = ()
    states: Mapping[str, QueueState] = field(default_factory=dict)
    next_due: float | None = None
    held: bool = False


@dataclass(frozen=True, slots=True)
class Renewed:
    """What ``renew`` found among the jobs a pool thought it held."""

    lost: Collection[str] = ()
    cancel_requested: Collection[str] = ()


@dataclass(frozen=True, slots=True)
class Rescued:
    """A job taken from a dead pool: waiting again, or failed after ``CRASH_LIMIT`` crashes."""

    id: str
    queue: str
    task: str
    attempt: int
    pool: str
    status: JobStatus


@dataclass(frozen=True, slots=True)
class PoolQueue:
    """One queue as one pool serves it: its size, how many of its workers run a job, and the version
    of the live values it has applied."""

    workers: int
    busy: int
    version: int


@dataclass(frozen=True, slots=True)
class PoolRecord:
    """A pool as it last reported itself. ``age`` is the seconds since then, on the store's clock."""

    id: str
    host: str
    pid: int
    kind: str
    started_at: float
    queues: Mapping[str, PoolQueue]
    age: float = 0.0


POOL_ALIVE = 7.5
"""A pool that reported itself within this many seconds counts as alive; it reports every 2.5 s. A report from
further in the future than that comes from a clock that was wrong, and says nothing."""

LEASE_RAN_OUT = "its worker's lease ran out"
RAN_OUT_AWAY = "its worker's lease ran out while the store was away"


@dataclass(frozen=True, slots=True)
class QueueStats:
    """A queue at one moment, as one value.

    Attributes:
        waiting, delayed, running: jobs over all processes.
        workers: how many jobs **each process** runs at once.
        maxsize: how many jobs may wait, over all processes.
        order: ``"priority"``, ``"fifo"`` or ``"lifo"``.
        paused: whether starts are held.
        oldest_wait: seconds the longest-waiting eligible job has been eligible; 0 without one.
        pools: the pools alive that serve this queue.
        state: the tuned values (``None`` where the settings rule) and their version.
    """

    queue: str
    waiting: int
    delayed: int
    running: int
    workers: int
    maxsize: int
    order: Order
    paused: bool
    oldest_wait: float
    pools: Sequence[PoolRecord]
    state: QueueState


class Trouble(NamedTuple):
    """Something about a store that an operator should know, and what to do about it."""

    text: str
    fix: str


class Store(ABC):
    """Where jobs wait.

    Args:
        alias: the name it goes by in messages.
        clock: gives the time in seconds since the epoch. All leases and delays are measured on it.
    """

    blocking: bool = True
    """Whether a call may wait for I/O; if so it is never made on an event loop's thread."""

    shared: bool = True
    """Whether other processes see the same jobs, and jobs outlive the process."""

    def __init__(self, alias: str, clock: Callable[[], float] = time.time) -> None:
        self.alias = alias
        self.clock = clock
        self.hints = Hints(self)
        self.served: Counter[str] = Counter()
        """How many pools of this process serve each queue."""
        self._local: dict[object, Any] = {}

    def local(self, kind: Callable[..., Local], *args: object) -> Local:
        """Return what this process keeps for the store: the one ``kind(*args)``, made at first use.

        It ends with the store, so nothing outlives a change of settings or a fork.
        """
        found = self._local.get((kind, args))
        if found is None:
            found = self._local.setdefault((kind, args), kind(*args))
        return found  # type: ignore[no-any-return]

    # A job's way: add -> claim -> (renew) -> finish

    @abstractmethod
    def add(
        self,
        queue: QueueSettings,
        specs: Sequence[JobSpec],
        *,
        whole: bool = False,
        patience: float | None = None,
    ) -> Added:
        """Take as many of the jobs as there is room for, in order, in one commit.

        A delayed job always finds room. A job whose id is known already counts as taken and changes
        nothing. Inside the caller's transaction on this store's database the jobs are part of it.

        Args:
            queue: the queue's settings; its live values win.
            specs: the jobs.
            whole: take all or none.
            patience: seconds to wait for other transactions that hold what it needs (not for room, for
                which it never waits); ``None`` leaves it to the store, and a short wait is always allowed.

        Raises ``StoreBusy`` when they held it for longer. Inside a transaction of the caller's that can only
        be rolled back, Django's ``TransactionManagementError``.
        """

    @abstractmethod
    def claim(
        self,
        pool: str,
        wants: Mapping[str, int],
        lease: Mapping[str, float],
        outcomes: Sequence[Outcome] = (),
        *,
        caps: Mapping[str, int] = NO_CAPS,
        unknown: Collection[str] = (),
        suspects: Suspects = "start",
    ) -> Claimed:
        """Start up to ``wants[queue]`` jobs of each queue, after storing ``outcomes``, in one commit.

        Paused queues give nothing. With nothing to store and nothing eligible it writes nothing.

        Args:
            pool: the id of the pool that will run them.
            wants: how many jobs of each queue.
            lease: seconds the pool may hold a job of each queue without renewing.
            outcomes: ended attempts to store first, as ``finish`` would.
            caps: for some queues, how many jobs may run at once in all pools together; those whose lease
                has run out do not count.
            unknown: names of tasks the pool cannot run; their jobs are passed over.
            suspects: what becomes of a suspect that could start now and is first in its line.
        """

    @abstractmethod
    def renew(self, pool: str, held: Mapping[str, int], lease: float) -> Renewed:
        """Extend the leases of the jobs (id to attempt number) a pool runs.

        Returns those it no longer holds, and those somebody asked to cancel.
        """

    @abstractmethod
    def finish(self, outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
        """Store how attempts ended, each only if it still holds its job; return the refused ones."""

    # A job's ways back

    @abstractmethod
    def release(self, pool: str, held: Mapping[str, int], reason: str) -> Collection[str]:
        """Hand jobs back uncharged: they wait again at their old place. Returns the ids released.

        One that somebody asked to cancel is cancelled instead; so it is in ``rescue``.
        """

    @abstractmethod
    def release_unknown(self, pool: str, known: Collection[str]) -> Collection[str]:
        """Hand back the running jobs of this pool that are not in ``known``, uncharged.

        They come from a claim whose commit went through while its reply was lost.
        """

    @abstractmethod
    def rescue(
        self,
        limit: int = 500,
        *,
        away: tuple[float, float] | None = None,
        longest: float | None = None,
    ) -> Sequence[Rescued]:
        """Take jobs whose lease ran out from their pools: each counts as one crash of the job.

        They wait again at their old place; at ``CRASH_LIMIT`` crashes they are failed instead.

        Args:
            limit: how many at most.
            away: two times on the store's clock. A lease that ran out between them is no crash, and not
                counted as one: its pool may only have been kept from renewing it.
            longest: seconds that a lease may have left. One that says more was written by a clock that was
                wrong, or the clock was set back since. Where its pool is not known to be alive it is cut down
                to so much: a pool that lives after all renews it, and otherwise it runs out.
        """

    @abstractmethod
    def cancel(self, ids: Collection[str]) -> Mapping[str, JobStatus]:
        """Cancel jobs that have not started, and ask for the end of those that run.

        Returns each known job's status before the call.
        """

    @abstractmethod
    def cancels(self, pool: str) -> Collection[str]:
        """Return the ids of this pool's running jobs that somebody asked to cancel."""

    @abstractmethod
    def retry(self, ids: Collection[str]) -> Collection[str]:
        """Make failed and cancelled jobs wait again, with their crashes forgotten; return their ids."""

    @abstractmethod
    def prune(self, *, older_than: float, failed_older_than: float, limit: int = 500) -> int:
        """Delete up to ``limit`` jobs that ended more than so many seconds ago; return how many.

        ``failed_older_than`` is for failed and cancelled jobs.
        """

    # Looking

    @abstractmethod
    def get(self, ids: Collection[str]) -> Mapping[str, JobRecord]:
        """Return the jobs that exist, by id."""

    @abstractmethod
    def find(
        self,
        *,
        queue: str | None = None,
        status: JobStatus | None = None,
        task: str | None = None,
        limit: int = 100,
    ) -> Sequence[JobRecord]:
        """Return jobs: waiting ones in claim order, all others (and mixed ones) newest push first."""

    @abstractmethod
    def position(self, id: str) -> int | None:
        """Return how many jobs of its queue will be claimed before it; ``None`` if it does not wait."""

    @abstractmethod
    def stats(self, queues: Sequence[QueueSettings]) -> Mapping[str, QueueStats]:
        """Return the state of queues, by name."""

    def queues(self) -> Collection[str]:
        """Return the names of the queues that hold jobs which have not ended, whatever settings say of them.

        As it stands here it goes through the first jobs of each status (``LOOKED_THROUGH``), so a queue whose
        jobs all stand behind those of others is not seen; a store that has its queues at hand overrides it.
        """
        return {
            record.queue
            for status in (WAITING, DELAYED, RUNNING)
            for record in self.find(status=status, limit=LOOKED_THROUGH)
        }

    def is_set_up(self) -> bool:
        """Return whether jobs may be in it: it answers, and has what it keeps them in. It never raises."""
        return True

    # Live values and pools

    @abstractmethod
    def states(self, queues: Collection[str]) -> Mapping[str, QueueState]:
        """Return the live values of queues, by name."""

    @abstractmethod
    def tune(
        self,
        queue: QueueSettings,
        changes: Mapping[str, Any],
        *,
        actor: str,
        source: str,
        expected: int | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> QueueState:
        """Change live values (``workers``, ``maxsize``, ``order``, ``paused``; ``None`` resets one).

        The version grows. A changed order re-orders the jobs that wait. The values were checked.

        Args:
            queue: the queue's settings.
            changes: the values to change.
            actor: who changed them, for the audit trail.
            source: the door: ``"admin"``, ``"command"`` or ``"code"``.
            expected: change them only from this version. It is compared in the transaction that changes
                them, so of several changes from one version exactly one is made.

            progress: called with how many jobs were re-ordered so far, now and then.

        Raises ``StaleVersion`` for a queue that has another version than ``expected``.
        """

    def reorder(self, queue: QueueSettings) -> int:
        """Put some of the jobs that an order from before has placed where the order in force wants them.

        Pools call it while the queue's state is ``reordering``; a store that does it all in ``tune`` needs
        nothing here. Returns how many jobs it has moved.
        """
        return 0

    @abstractmethod
    def beat(self, pool: PoolRecord) -> None:
        """Record that a pool is alive, and what it does."""

    @abstractmethod
    def retire(self, pool: str) -> None:
        """Forget a pool that has stopped."""

    @abstractmethod
    def pools(self) -> Sequence[PoolRecord]:
        """Return the pools that are alive."""

    # Waking. All of it is hints: with every one lost, polling still finds the work.

    def probe(self) -> Probe | None:
        """Return a function of this thread that waits for other processes' changes, or ``None`` without one.

        It is called again and again, waits up to a second, returns hints, and may have a ``close()``.
        """
        return None

    # Transactions

    def in_transaction(self) -> bool:
        """Whether this thread has a transaction open that ``add`` would be part of."""
        return False

    def unseen(self, id: str = "") -> str:
        """Return why nobody else sees what this thread has added, and what to do, in sentences; an empty text
        where it is seen at once.

        Args:
            id: only if this job is among it.
        """
        return ""

    def repair(self) -> bool:
        """Look for and mend bookkeeping that a hand has put wrong; return whether any was found."""
        return False

    def troubles(self) -> Sequence[Trouble]:
        """Look for what makes the store slow or unsafe, for ``manage.py jobs doctor``."""
        return ()

    def open(self) -> None:  # noqa: B027 - most stores hold nothing
        """Prepare this thread, which will do nothing but serve the store until it ends.

        What it connects to may go away without a word, and it should notice. What it connects with must be
        its own: whatever jobs and requests use up, claims, renewals and hints go on.
        """

    def close(self) -> None:  # noqa: B027 - most stores hold nothing
        """Give back what this thread holds (a connection, say); the next call takes it anew."""
