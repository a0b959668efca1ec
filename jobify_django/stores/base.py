"""The contract every store keeps. ``jobify_django.testing.StoreConformance`` is its executable form.

Its methods are plural: one call, however many jobs it is about. They are synchronous: the ORM is, and a push
must share the caller's transaction. Time, randomness, locks and threads are those of the ``runtime`` that a
store was made with.

**Round trips.** The memory store makes none. In a database, a method that only reads is one statement; so is
a ``claim`` or a ``rescue`` that finds nothing to do; and a ``heartbeat`` is one on PostgreSQL, and two on
MariaDB and MySQL, each a transaction by itself. ``stats`` is three, and so is a ``query`` for the newest ends
of all statuses; ``queues`` goes from queue to queue on MariaDB and MySQL. A method that changes something is
a transaction of three to nine statements, its begin and its commit included. On a server each statement is a
round trip, and on PostgreSQL each notification sent to other processes is one more (one for all of a block of
``notifying_last``). There, with psycopg 3, a transaction is one message where it can be: an ``add`` (near the
bound two, with the notification if that is due), and a ``claim``, a ``settle`` of outcomes that end their
jobs and a ``renew`` of up to 500 jobs each; ``claim`` takes the longer way besides where a job is due, where
one in quarantine is first in its queue, and always for a limit or unknown tasks. Up to 500 jobs that are
alike take as many statements as one job, with two exceptions: SQLite inserts jobs one by one, which is no
round trip there, and MariaDB and MySQL end them one by one. ``prune`` and ``rescue`` read before they begin a
transaction; ``cancel`` and ``retry`` take one for each 1,000 jobs, and a ``tune`` that changes the order one
for each 5,000.

**Threads.** A method runs on the thread that calls it. ``listen`` starts a thread if the store is ``shared``.
It checks what other processes have written, and ends soon after nobody listens any more. A process with a
PostgreSQL store has one more thread, from the first call on: it ends calls that would wait for ever on a
silent network.

**Attempts.** Each claim gives a job its next attempt number. Every later write of the pool carries that
number and is refused when the job has moved on, so a pool that was frozen past its lease changes nothing.

**The bound.** After every ``add``, a queue's waiting jobs are at most its ``maxsize``, over all
processes. Delayed jobs do not count until they are due. Jobs that begin to wait without an ``add`` (released,
rescued, retried by hand, newly due) are never refused: they may exceed the bound, and ``add`` then accepts
nothing until the bound holds again.

**Order.** ``claim`` takes jobs by ``(order_key, sequence)``, see ``jobify_django.ordering``.

**Quarantine.** When a pool dies, nobody knows which of its jobs was to blame. Each of them is in quarantine
from then on (its ``crashes`` are not 0), and is claimed alone once it is first in its queue
(``Demand.quarantine`` may put that off). Until then claims pass over it, and start jobs before it and behind
it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any, TypeVar

from jobify_django.conf import QueueSettings
from jobify_django.job import DELAYED, RUNNING, WAITING, JobRecord, JobSpec, JobStatus
from jobify_django.outcome import Outcome
from jobify_django.runtime import MACHINE, Runtime
from jobify_django.stores.notifier import ChangeDetector, Kind, Listener, Notifier
from jobify_django.stores.value import (
    Added,
    Claimed,
    Demand,
    Diagnosis,
    JobQuery,
    PoolRecord,
    QueueChange,
    QueueState,
    QueueStats,
    Renewed,
    Rescued,
    Synced,
)
from jobify_django.stores.watcher import Watcher

Kept = TypeVar("Kept")

SCAN_LIMIT = 1_000
"""Jobs of a status that are looked through for their queues, where a store knows no better way."""

_AT_ONCE = nullcontext()


class Store(ABC):
    """Where jobs wait.

    Args:
        alias: the name it goes by in messages.
        runtime: its time, randomness, locks and threads; the pools and waits of the store use the same.

    Attributes:
        clock: returns the time in seconds since the epoch, on which all leases and delays are measured: the
            runtime's, unless the store knows a better one.
    """

    blocking: bool = True
    """Whether a call may wait for I/O; if so it is never made on an event loop's thread."""

    shared: bool = True
    """Whether other processes see the same jobs, and jobs outlive the process."""

    keeps_changes: bool = False
    """Whether ``changes`` can tell who changed a queue's live values (what ``tune`` changes, see there)."""

    def __init__(self, alias: str, runtime: Runtime = MACHINE) -> None:
        self.alias = alias
        self.runtime = runtime
        self.clock: Callable[[], float] = runtime.clock
        self.notifier = Notifier(alias, runtime)
        self._watcher = Watcher(runtime)
        self.queues_here: Counter[str] = Counter()
        """How many pools of this process serve each queue."""
        self._process_local: dict[object, Any] = {}

    def process_local(self, kind: Callable[..., Kept], *args: object) -> Kept:
        """Return what this process keeps for the store: the one ``kind(runtime, *args)``, made at first use.

        It ends with the store, so nothing outlives a change of settings or a fork.
        """
        found = self._process_local.get((kind, args))
        if found is None:
            found = self._process_local.setdefault((kind, args), kind(self.runtime, *args))
        return found  # type: ignore[no-any-return]

    def notifying_last(self) -> AbstractContextManager[object]:
        """Return a block at whose end, however it ends, the notifications of what this thread changed in it
        are sent, all at once: a claimed job need not wait for them. A store whose notifications cost nothing
        sends them at once.
        """
        return _AT_ONCE

    # The life of a job: add -> claim -> (renew) -> settle

    @abstractmethod
    def add(
        self,
        queue: QueueSettings,
        specs: Sequence[JobSpec],
        *,
        all_or_nothing: bool = False,
        lock_timeout: float | None = None,
    ) -> Added:
        """Accept as many of the jobs as there is room for, in order, in one commit.

        A queue has room while fewer jobs wait in it than its ``maxsize``. A delayed job needs none. A job
        whose id the store holds already counts as accepted and changes nothing. Inside a transaction of the
        caller's on this store's database the jobs are part of it.

        Args:
            queue: the queue's settings. Where a live value is set, it holds instead of the setting.
            specs: the jobs.
            all_or_nothing: accept all of the jobs or none.
            lock_timeout: seconds to wait for locks of other transactions (never for room); ``None`` leaves it
                to the store, and a short wait is always allowed.

        Raises ``StoreBusy`` if others held the locks for longer; Django's ``TransactionManagementError``
        inside a transaction of the caller's that can only be rolled back.
        """

    @abstractmethod
    def claim(self, demand: Demand, outcomes: Sequence[Outcome] = ()) -> Claimed:
        """Store ``outcomes`` as ``settle`` does, then start the first jobs of each queue, in one commit.

        What may be started is in ``demand``: for each queue a ``Lane`` with its limits. Only eligible jobs
        (their delay, if they had one, is over) are started, and none of a paused queue. Without outcomes and
        without jobs to start nothing is written.
        """

    @abstractmethod
    def renew(self, pool: str, held: Mapping[str, int], lease: float) -> Renewed:
        """Extend the leases of the jobs in ``held`` (id to attempt number): they last ``lease`` seconds from
        now.

        Returns which of them the pool holds no longer, and which somebody has asked to cancel.
        """

    @abstractmethod
    def settle(self, outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
        """Store how attempts ended, each only if it still holds its job; return the refused outcomes.

        What becomes of a job is the rule of ``jobify_django.outcome.next_state``. An outcome that ends its
        job is stored without reading the row first, unless the job has flags (bits of ``JobSpec.flags``: they
        are kept for capabilities that need more done at the end of a job; no push sets one so far). For the
        other outcomes the row is locked and read. Jobs that wait again keep their place in the queue.
        """

    # Putting jobs right, and deleting them

    @abstractmethod
    def reconcile(self, pool: str, held: Collection[str]) -> Collection[str]:
        """Release the jobs that are running in this pool, as the store has it, and not in ``held``.

        Such jobs come from a claim that was committed while its reply was lost: the pool does not know that
        it has them. Returns their ids.
        """

    @abstractmethod
    def rescue(
        self,
        limit: int = 500,
        *,
        outage: tuple[float, float] | None = None,
        max_lease_left: float | None = None,
    ) -> Sequence[Rescued]:
        """Take jobs whose lease ran out from their pools, by ``jobify_django.outcome.expired``.

        They wait again at their old place; at ``CRASH_LIMIT`` crashes they are failed instead.

        Args:
            limit: how many jobs at most.
            outage: when the store could not be reached (from, until), on its clock. A lease that ran out
                then is no crash: its pool may be alive and was only kept from renewing it.
            max_lease_left: how many seconds a lease may have left at most. A lease with more left was written
                by a wrong clock, or the clock was set back since. If its pool is not known to be alive, the
                lease is shortened to ``max_lease_left``: a pool that is alive after all renews it, and
                otherwise it runs out.
        """

    @abstractmethod
    def cancel(self, ids: Collection[str]) -> Mapping[str, JobStatus]:
        """Cancel jobs that have not started, and ask the pools of those that run to cancel them.

        Returns the status that each job the store holds had before the call.
        """

    @abstractmethod
    def retry(self, ids: Collection[str]) -> Collection[str]:
        """Make failed and cancelled jobs wait again, with their crashes set to 0; return their ids."""

    @abstractmethod
    def prune(self, *, older_than: float, failed_older_than: float, limit: int = 500) -> int:
        """Delete up to ``limit`` jobs that ended more than so many seconds ago; return how many.

        ``failed_older_than`` is for failed and cancelled jobs.
        """

    # Reading

    @abstractmethod
    def query(self, query: JobQuery) -> Sequence[JobRecord]:
        """Return the jobs that a query asks for."""

    def get(self, ids: Collection[str]) -> Mapping[str, JobRecord]:
        """Return the jobs that exist, by id."""
        return {record.id: record for record in self.query(JobQuery(ids=ids, limit=len(ids)))}

    def count(self, query: JobQuery) -> int:
        """Return how many jobs a query would return; its ``limit`` bounds what is counted."""
        return len(self.query(replace(query, payload=False)))

    @abstractmethod
    def position(self, id: str) -> int | None:
        """Return how many jobs of its queue will be claimed before a job; ``None`` if it does not wait."""

    @abstractmethod
    def stats(self, queues: Sequence[QueueSettings]) -> Mapping[str, QueueStats]:
        """Return what queues hold, what is in force for them and who serves them, by name."""

    def queues(self) -> Collection[str]:
        """Return the names of the queues with jobs that have not ended, whether in the settings or not.

        This default reads the first ``SCAN_LIMIT`` jobs of each status, so it misses a queue whose jobs
        all stand behind those of other queues. A store that knows its queues overrides it.
        """
        return {
            record.queue
            for status in (WAITING, DELAYED, RUNNING)
            for record in self.query(JobQuery(status=status, limit=SCAN_LIMIT, payload=False))
        }

    def is_set_up(self) -> bool:
        """Return whether the store answers, and has what it keeps jobs in (its tables, say); never raises."""
        return True

    # Live values and pools

    @abstractmethod
    def sync(self, pool: str, queues: Collection[str]) -> Synced:
        """Return what others changed that a pool must know: live values of queues, and cancels of its jobs.

        Args:
            pool: the pool's id; empty for the live values alone.
            queues: the names of the queues.
        """

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
        """Change a queue's live values: ``workers``, ``maxsize``, ``order`` and ``paused``.

        A live value holds instead of the queue's setting, from now on and in all processes, until it is reset
        with ``None``. Each change gives the queue's live values a higher version. A changed order re-orders
        the jobs that wait. The caller has checked the values.

        Args:
            queue: the queue's settings.
            changes: the new values, by name.
            actor: who changes them, for the audit trail.
            source: where the change comes from: ``"admin"``, ``"command"`` or ``"code"``.
            expected: change them only from this version. It is compared in the transaction that changes
                them, so of several changes from one version exactly one is made.
            progress: called with how many jobs were re-ordered so far, now and then.

        Raises ``StaleVersion`` for a queue that has another version than ``expected``.
        """

    def changes(self, queue: str, limit: int = 10) -> Sequence[QueueChange]:
        """Return the last changes of a queue's live values, the newest first; nothing if none are kept."""
        return ()

    def reorder(self, queue: QueueSettings) -> int:
        """Move some of the jobs that still stand where an earlier order has put them to their new place.

        Pools call it while the queue's state is ``reordering``. A store that moves all jobs in ``tune`` needs
        nothing here. Returns how many jobs it has moved.
        """
        return 0

    @abstractmethod
    def heartbeat(self, pool: PoolRecord) -> Synced:
        """Record that a pool is alive, which queues it serves, and with how many workers.

        Returns what ``sync`` does for the pool and its queues, and perhaps whether there is anything to
        rescue: so a pool that has nothing to do asks for nothing else.
        """

    @abstractmethod
    def retire(self, pool: str) -> None:
        """Forget a pool that has stopped."""

    @abstractmethod
    def pools(self) -> Sequence[PoolRecord]:
        """Return the pools that are alive."""

    # Waking. Any notification may be lost: with every one lost, polling still finds the work.

    @property
    def hears(self) -> bool:
        """Whether this process has lately been seen to notice what others change, within moments: then it
        polls only for a notification that was lost."""
        return self._watcher.hears

    def listen(self, kind: Kind, listener: Listener) -> Callable[[], None]:
        """Call ``listener`` at each notification of this kind, of any process, until the returned function is
        called.

        See ``jobify_django.stores.notifier`` for what it is called with.
        """
        stop = self.notifier.listen(kind, listener)
        if self.shared:
            self._watcher.watch(self)
        return stop

    def change_detector(self) -> ChangeDetector | None:
        """Return a function, to be called in this thread, that waits for other processes' changes; ``None``
        without one.

        It is called again and again, waits up to a second, returns notifications, and may have a ``close()``.
        """
        return None

    # Transactions

    def in_transaction(self) -> bool:
        """Whether this thread has a transaction open that ``add`` would be part of."""
        return False

    def why_invisible(self, id: str = "") -> str:
        """Return why others do not see yet what this thread has added, and what to do, in sentences; an empty
        text if they see it.

        Args:
            id: a job; then only an answer that concerns it. Empty for all that this thread has added.
        """
        return ""

    def repair(self) -> bool:
        """Mend counts that no longer fit the jobs, because rows were changed by hand; return whether any did
        not fit."""
        return False

    def diagnose(self) -> Sequence[Diagnosis]:
        """Return what makes the store slow or unsafe, for ``manage.py jobs doctor``."""
        return ()

    def open(self) -> None:  # noqa: B027 - most stores hold nothing
        """Prepare this thread, which from now on works for the store alone.

        The thread's connection must be the thread's own, so that claims, renewals and notifications go on
        whatever connections jobs and requests use up. The connection should also notice when the server is
        gone without closing it.
        """

    def close(self) -> None:  # noqa: B027 - most stores hold nothing
        """Close what this thread holds for the store (a connection, say); the next call opens it anew."""
