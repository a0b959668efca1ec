"""What goes into a store and comes out of it, as values."""

from __future__ import annotations

import socket
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, Protocol

from jobify_django.conf import QueueSettings
from jobify_django.exceptions import StaleVersion
from jobify_django.job import Claim, JobRecord, JobStatus
from jobify_django.ordering import Order
from jobify_django.outcome import Outcome
from jobify_django.runtime import Runtime


class LiveJobWaker(Protocol):
    """What ends one wait for a live job."""

    def wake(self) -> None:
        """Let the wait look at the job again. Any thread may call it, and it raises nothing."""


class LiveJob(Protocol):
    """A job that can be read without asking its store, and that tells its end."""

    id: str
    task: str
    arguments: str
    priority: int
    status: JobStatus

    def record(self) -> JobRecord:
        """Return the job as it is now."""

    def add_waker(self, waker: LiveJobWaker) -> None:
        """Wake a wait after each end of the job, until ``remove_waker``. It is not told of an end before the
        call: one that looks at ``status`` after the call misses none."""

    def remove_waker(self, waker: LiveJobWaker) -> None:
        """Wake this wait no more."""


class Added(NamedTuple):
    """What ``add`` did: how many of the jobs were accepted, and the queue as it stood then.

    Attributes:
        taken: the first ``taken`` of the given jobs are in the store.
        depth: waiting jobs afterwards.
        maxsize: the bound in force.
        jobs: each accepted job, readable for as long as somebody holds it, from a store that forgets ended
            jobs early (the memory store); otherwise empty.
        order: the order in force.
        now: when that was, on the store's clock; it settles which of the jobs are delayed.
    """

    taken: int
    depth: int
    maxsize: int
    jobs: Sequence[LiveJob] = ()
    order: Order = "priority"
    now: float = 0.0


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

    def applied_to(self, settings: QueueSettings) -> QueueSettings:
        """Return the settings with the tuned values in place: what is in force."""
        return replace(
            settings,
            workers=self.workers or settings.workers,
            maxsize=self.maxsize or settings.maxsize,
            order=self.order or settings.order,
        )


Quarantine = Literal["alone", "defer", "skip"]
"""What a claim does with a job in quarantine that is first in its queue: start it and nothing else; start
nothing, and say so; or pass over all such jobs."""


class Lane(NamedTuple):
    """What a claim may take of one queue. A new limit is a field here, and no parameter anywhere.

    Attributes:
        want: how many jobs.
        lease: seconds the pool may hold each of them without renewing.
        max_running: how many jobs of the queue may run at once in all pools together; ``None`` sets no limit.
            Jobs whose lease has run out do not count.
    """

    want: int
    lease: float
    max_running: int | None = None


class Demand(NamedTuple):
    """What a pool asks a store for.

    Attributes:
        pool: the id of the pool that will run the jobs.
        lanes: for each queue, what may be taken of it.
        unknown_tasks: names of tasks that the pool cannot run; their jobs are passed over.
        quarantine: what becomes of a job in quarantine that could start now and is first in its queue.
        expected: whether there is probably something to claim; otherwise a store had better look first.
    """

    pool: str
    lanes: Mapping[str, Lane]
    unknown_tasks: Collection[str] = ()
    quarantine: Quarantine = "alone"
    expected: bool = True


class Claimed(NamedTuple):
    """What ``claim`` gave.

    Attributes:
        claims: the jobs, in claim order.
        refused: the given outcomes that no longer held their job; they were not stored.
        states: the live values of the queues asked for.
        next_due: seconds, more than 0, until the next delayed job of these queues is due; ``None`` without
            one. A job that is due already and was not claimed does not count.
        deferred: whether nothing was started because a job in quarantine is first in its queue and was to
            wait.
        empty: whether nothing waits that could be started here, as far as the store knows for certain. Then
            only a change gives the pool something to do, or the time of a delayed job.
    """

    claims: Sequence[Claim] = ()
    refused: Sequence[Outcome] = ()
    states: Mapping[str, QueueState] = MappingProxyType({})
    next_due: float | None = None
    deferred: bool = False
    empty: bool = False


@dataclass(frozen=True, slots=True)
class Renewed:
    """What ``renew`` found: jobs that the pool does not hold any more, and jobs that are to be cancelled."""

    lost: Collection[str] = ()
    cancel_requested: Collection[str] = ()


@dataclass(frozen=True, slots=True)
class Synced:
    """What ``sync`` found: queues' live values, and the pool's running jobs that somebody asked to cancel.

    A ``heartbeat`` also tells when the first and the last lease of all running jobs end, on the store's
    clock; both are ``None`` where none runs. Without ``leases`` it has not looked.
    """

    states: Mapping[str, QueueState] = field(default_factory=dict)
    cancel_requested: Collection[str] = ()
    leases: tuple[float | None, float | None] | None = None


@dataclass(frozen=True, slots=True)
class Rescued:
    """A job taken from a dead pool, and what became of it."""

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

    def is_here(self, runtime: Runtime) -> bool:
        """Whether it is a pool of this process."""
        return (self.host, self.pid) == (socket.gethostname(), runtime.process_id())


POOL_ALIVE = 7.5
"""A pool that reported itself within this many seconds counts as alive; it reports every 2 s. A report from
further in the future than that comes from a clock that was wrong, and says nothing."""


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


JobOrder = Literal["claim", "newest", "oldest", "ended"]
"""As waiting jobs will start; newest push first; oldest push first; newest end first, and only jobs that have
ended."""


@dataclass(frozen=True, slots=True)
class JobQuery:
    """Which jobs to read. Every condition that is given must hold.

    Attributes:
        ids: only these.
        queue, status, task: only those of it.
        order: which come first. Without it waiting jobs come in claim order, and all others (and mixed ones)
            newest push first.
        offset: how many to pass over.
        limit: how many at most.
        payload: whether to read the large values too; without, ``arguments`` is empty, and ``result``,
            ``error`` and ``history`` are none.
    """

    ids: Collection[str] | None = None
    queue: str | None = None
    status: JobStatus | None = None
    task: str | None = None
    order: JobOrder | None = None
    offset: int = 0
    limit: int = 100
    payload: bool = True

    @property
    def sorting(self) -> JobOrder:
        """The order that is meant."""
        return self.order or ("claim" if self.status is JobStatus.WAITING else "newest")


@dataclass(frozen=True, slots=True)
class QueueChange:
    """A change of a queue's live values: from what to what, by whom, through which door, and when.

    ``before`` and ``after`` are the values by name, or the stored text where it cannot be read;
    ``changed_at`` is in seconds since the epoch.
    """

    queue: str
    version: int
    actor: str
    source: str
    changed_at: float
    before: Mapping[str, Any] | str
    after: Mapping[str, Any] | str


class Diagnosis(NamedTuple):
    """Something about a store that an operator should know, and what to do about it."""

    text: str
    fix: str
