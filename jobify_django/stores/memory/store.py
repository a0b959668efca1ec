"""The memory store."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from operator import attrgetter
from typing import Any

from jobify_django.conf import QueueSettings, get_settings
from jobify_django.job import (
    CANCELLED,
    DELAYED,
    FAILED,
    RUNNING,
    SUCCESSFUL,
    WAITING,
    JobRecord,
    JobSpec,
    JobStatus,
)
from jobify_django.ordering import Order, order_key
from jobify_django.outcome import LOST_REPLY, NextState, Outcome, expired, next_state, released, retried
from jobify_django.runtime import MACHINE, Runtime
from jobify_django.stores.base import Store
from jobify_django.stores.memory.line import Line, take
from jobify_django.stores.memory.row import Row
from jobify_django.stores.value import (
    POOL_ALIVE,
    Added,
    Claimed,
    Demand,
    JobOrder,
    JobQuery,
    PoolRecord,
    QueueState,
    QueueStats,
    Renewed,
    Rescued,
    Synced,
)

NO_PAYLOAD: Mapping[str, Any] = {"arguments": "", "result": None, "error": None, "history": ()}

SORTED_BY: Mapping[JobOrder, str] = {
    "claim": "order_key",
    "newest": "pushed_at",
    "oldest": "pushed_at",
    "ended": "ended_at",
}

KEPT = 1_000
"""Ended jobs kept for looking at. Older ones are known only to those who hold their ``Job``."""


class MemoryStore(Store):
    """Jobs in dictionaries and heaps behind one lock, for pushes from any thread or event loop.

    Args:
        alias: the name it goes by in messages.
        runtime: the machine it runs on.
    """

    blocking = False
    shared = False

    def __init__(self, alias: str = "memory", runtime: Runtime = MACHINE) -> None:
        super().__init__(alias, runtime)
        self._lock = runtime.lock()
        self._lines: dict[str, Line] = {}
        self._live: dict[str, Row] = {}
        self._ended: OrderedDict[str, Row] = OrderedDict()
        self._pools: dict[str, tuple[PoolRecord, float]] = {}

    # A job's way

    def add(
        self,
        queue: QueueSettings,
        specs: Sequence[JobSpec],
        *,
        all_or_nothing: bool = False,
        lock_timeout: float | None = None,
    ) -> Added:
        now = self.clock()
        with self._lock:
            line = self._line(queue.name)
            if line.delayed:
                line.promote(now)
            state = line.state
            maxsize = state.maxsize or queue.maxsize
            order = state.order or queue.order
            if line.waiting + len(specs) > maxsize:
                fitting = self._fitting(line, maxsize, specs, now)
                if all_or_nothing and fitting < len(specs):
                    return Added(0, line.waiting, maxsize, (), order, now)
                specs = specs[:fitting]
            live, ended = self._live, self._ended
            jobs = [
                live.get(spec.id) or ended.get(spec.id) or self._enter(line, spec, order, now)
                for spec in specs
            ]
            # By hand: for every job, and twice as fast.
            added = tuple.__new__(Added, (len(jobs), line.waiting, maxsize, jobs, order, now))
        if jobs:
            self.notifier.publish("work", queue.name)
        return added

    def claim(self, demand: Demand, outcomes: Sequence[Outcome] = ()) -> Claimed:
        now = self.clock()
        refused = self._settle_all(outcomes, now) if outcomes else ()
        states: dict[str, QueueState] = {}
        next_due: float | None = None
        open_: dict[Line, int] = {}
        pool, lanes = demand.pool, demand.lanes
        with self._lock:
            for name, lane in lanes.items():
                line = self._line(name)
                if line.delayed and (due := line.promote(now)) is not None:
                    next_due = due - now if next_due is None else min(next_due, due - now)
                states[name] = line.state
                if line.waiting and (room := line.may_start(lane, now)) > 0:
                    open_[line] = room
            # Half of the turns of a pool that is not busy start nothing: they only tell of ends.
            if not open_:
                return Claimed((), refused, states, next_due)
            taken, deferred = take(open_, demand.unknown_tasks, demand.quarantine)
            claims = [row.start(pool, now, now + lanes[row.queue].lease) for row in taken]
        for name in {row.queue for row in taken}:
            self.notifier.publish("room", name)
        return Claimed(claims, refused, states, next_due, deferred)

    def renew(self, pool: str, held: Mapping[str, int], lease: float) -> Renewed:
        until = self.clock() + lease
        lost, cancel = [], []
        with self._lock:
            for id, attempt in held.items():
                if (row := self._running(id, attempt)) is None or row.pool != pool:
                    lost.append(id)
                    continue
                row.lease_until = until
                if row.cancel_requested:
                    cancel.append(id)
        return Renewed(lost, cancel)

    def settle(self, outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
        return self._settle_all(outcomes, self.clock())

    def _settle_all(self, outcomes: Sequence[Outcome], now: float) -> Sequence[Outcome]:
        refused: list[Outcome] = []
        ended: list[Row] = []
        rows: list[Row] = []
        with self._lock:
            for outcome in outcomes:
                row = self._running(outcome.id, outcome.attempt)
                if row is None or (outcome.pool and outcome.pool != row.pool):
                    refused.append(outcome)
                elif outcome.status is SUCCESSFUL and not outcome.flags:
                    # What the rule says too, for the many.
                    row.result, row.error, row.lease_until = outcome.result, None, None
                    self._end(row, SUCCESSFUL, now)
                    ended.append(row)
                else:
                    self._settle(row, outcome, now)
                    rows.append(row)
        if rows:
            self._notify(rows, ended)
        elif ended:
            self._tell_ends(ended)
        return refused

    # A job's ways back

    def reconcile(self, pool: str, held: Collection[str]) -> Collection[str]:
        now = self.clock()
        with self._lock:
            rows = [row for row in self._all_running() if row.pool == pool and row.id not in held]
            for row in rows:
                self._settle(row, released(row, LOST_REPLY), now)
        self._notify(rows)
        return [row.id for row in rows]

    def rescue(
        self,
        limit: int = 500,
        *,
        outage: tuple[float, float] | None = None,
        max_lease_left: float | None = None,
    ) -> Sequence[Rescued]:
        now = self.clock()
        rescued: list[Rescued] = []
        with self._lock:
            if max_lease_left is not None:
                self._shorten_leases(now, max_lease_left)
            late = (row for row in self._all_running() if (row.lease_until or 0) < now)
            rows = list(itertools.islice(late, limit))
            for row in rows:
                pool = row.pool
                after = self._settle(row, expired(row, row.lease_until, outage), now)
                rescued.append(Rescued(row.id, row.queue, row.task, row.attempt, pool, after.status))
        self._notify(rows)
        return rescued

    def cancel(self, ids: Collection[str]) -> Mapping[str, JobStatus]:
        now = self.clock()
        before: dict[str, JobStatus] = {}
        rows: list[Row] = []
        with self._lock:
            for id in ids:
                if (row := self._find(id)) is None:
                    continue
                before[id] = row.status
                if row.status is RUNNING:
                    row.cancel_requested = True
                elif not row.status.ended:
                    line = self._line(row.queue)
                    line.drop(row)
                    self._end(row, CANCELLED, now)
                    line.compact()
                    rows.append(row)
        self._notify(rows, room=True)
        if any(status is RUNNING for status in before.values()):
            self.notifier.publish("work", None)
        return before

    def retry(self, ids: Collection[str]) -> Collection[str]:
        now = self.clock()
        rows: list[Row] = []
        with self._lock:
            for id in ids:
                row = self._find(id)
                if row is None or row.status not in (FAILED, CANCELLED):
                    continue
                self._ended.pop(id, None)
                self._live[id] = row
                row.order_key = order_key(self._order(row.queue), row.priority, row.sequence)
                self._settle(row, retried(row), now)
                rows.append(row)
        self._notify(rows)
        return [row.id for row in rows]

    def prune(self, *, older_than: float, failed_older_than: float, limit: int = 500) -> int:
        now = self.clock()
        ages = {SUCCESSFUL: older_than}
        with self._lock:
            old = [
                row
                for row in self._ended.values()
                if now - (row.ended_at or now) > ages.get(row.status, failed_older_than)
            ][:limit]
            for row in old:
                del self._ended[row.id]
        return len(old)

    # Looking

    def query(self, query: JobQuery) -> Sequence[JobRecord]:
        with self._lock:
            rows = [row for row in self._candidates(query) if _matches(row, query)]
            by = attrgetter(SORTED_BY[query.sorting], "sequence")
            rows.sort(key=by, reverse=query.sorting in ("newest", "ended"))
            records = [row.record() for row in rows[query.offset : query.offset + query.limit]]
        return records if query.payload else [record._replace(**NO_PAYLOAD) for record in records]

    def _candidates(self, query: JobQuery) -> Iterable[Row]:
        if query.ids is not None:
            return (row for id in query.ids if (row := self._find(id)) is not None)
        return itertools.chain(self._live.values(), self._ended.values())

    def position(self, id: str) -> int | None:
        with self._lock:
            row = self._find(id)
            if row is None or row.status is not WAITING:
                return None
            mine = (row.order_key, row.sequence)
            waiting = self._line(row.queue).rows_waiting()
            return sum((other.order_key, other.sequence) < mine for other in waiting)

    def stats(self, queues: Sequence[QueueSettings]) -> Mapping[str, QueueStats]:
        now = self.clock()
        pools = self.pools()
        with self._lock:
            return {queue.name: self._line(queue.name).stats(queue, now, pools) for queue in queues}

    def queues(self) -> Collection[str]:
        with self._lock:
            return {
                line.name
                for line in self._lines.values()
                if line.waiting or line.delayed_count or line.running
            }

    @property
    def wakers(self) -> int:
        """How many waits for the end of jobs there are, of those that hold the jobs themselves."""
        with self._lock:
            return sum(len(row.wakers) for row in self._live.values())

    # Live values and pools

    def sync(self, pool: str, queues: Collection[str]) -> Synced:
        with self._lock:
            return self._sync(pool, queues)

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
        with self._lock:
            line = self._line(queue.name)
            line.state.must_be(expected)
            before = line.state.order or queue.order
            line.state = replace(line.state, version=line.state.version + 1, **changes)
            after = line.state.order or queue.order
            if after != before:
                line.reorder(after)
            state = line.state
        self.notifier.publish("work", queue.name)
        self.notifier.publish("room", queue.name)
        return state

    def heartbeat(self, pool: PoolRecord) -> Synced:
        with self._lock:
            self._pools[pool.id] = (pool, self.clock())
            return self._sync(pool.id, pool.queues)

    def retire(self, pool: str) -> None:
        with self._lock:
            self._pools.pop(pool, None)

    def pools(self) -> Sequence[PoolRecord]:
        now = self.clock()
        with self._lock:
            self._pools = self._alive(now)
            return [replace(pool, age=max(0.0, now - seen)) for pool, seen in self._pools.values()]

    # Inside (all of it with the lock held)

    def _sync(self, pool: str, queues: Collection[str]) -> Synced:
        asked = [row.id for row in self._all_running() if row.cancel_requested and row.pool == pool]
        return Synced({name: self._line(name).state for name in queues}, asked)

    def _shorten_leases(self, now: float, max_lease_left: float) -> None:
        """Let no lease of a pool that is not known to be alive have more than so many seconds left."""
        alive = self._alive(now)
        for row in self._all_running():
            if (row.lease_until or 0) > now + max_lease_left and row.pool not in alive:
                row.lease_until = now + max_lease_left

    def _alive(self, now: float) -> dict[str, tuple[PoolRecord, float]]:
        return {id: (p, seen) for id, (p, seen) in self._pools.items() if abs(now - seen) < POOL_ALIVE}

    def _line(self, name: str) -> Line:
        line = self._lines.get(name)
        if line is None:
            line = self._lines[name] = Line(name)
        return line

    def _find(self, id: str) -> Row | None:
        return self._live.get(id) or self._ended.get(id)

    def _running(self, id: str, attempt: int) -> Row | None:
        row = self._live.get(id)
        return row if row is not None and row.status is RUNNING and row.attempt == attempt else None

    def _fitting(self, line: Line, maxsize: int, specs: Sequence[JobSpec], now: float) -> int:
        room = maxsize - line.waiting
        for fitting, spec in enumerate(specs):
            if spec.eligible_at(now) > now or self._find(spec.id):
                continue
            if room <= 0:
                return fitting
            room -= 1
        return len(specs)

    def _enter(self, line: Line, spec: JobSpec, order: Order, now: float) -> Row:
        line.sequence += 1
        row = Row(spec, line.name, line.sequence, order_key(order, spec.priority, line.sequence), now)
        self._live[row.id] = row
        if row.eligible_at > now:
            line.delay(row)
        else:
            line.put(row)
        return row

    def _settle(self, row: Row, outcome: Outcome, now: float) -> NextState:
        """Let a job become what its latest attempt's outcome makes of it."""
        after = next_state(outcome, crashes=row.crashes, cancel_requested=row.cancel_requested, now=now)
        row.settle(outcome, after, now)
        if after.status is WAITING:
            self._line(row.queue).put(row)
        elif after.status is DELAYED:
            self._line(row.queue).delay(row)
        else:
            self._end(row, after.status, now)
        return after

    def _end(self, row: Row, status: JobStatus, now: float) -> None:
        row.ended_at = now
        row.status = status  # last: others read the row without the lock
        self._lines[row.queue].running.pop(row.id, None)
        del self._live[row.id]
        self._ended[row.id] = row
        if len(self._ended) > KEPT:
            self._ended.popitem(last=False)

    def _all_running(self) -> list[Row]:
        return [row for line in self._lines.values() for row in line.running.values()]

    def _order(self, queue: str) -> Order:
        settings = get_settings().queues.get(queue)
        return self._line(queue).state.order or (settings.order if settings else "priority")

    def _notify(self, rows: Sequence[Row], ended: Sequence[Row] = (), *, room: bool = False) -> None:
        """Publish what changed; called without the lock."""
        for queue in {row.queue for row in rows if room or not row.status.ended}:
            self.notifier.publish("work", queue)
            if room:
                self.notifier.publish("room", queue)
        self._tell_ends([*ended, *(row for row in rows if row.status.ended)])

    def _tell_ends(self, rows: Sequence[Row]) -> None:
        """Wake those who wait for these jobs to end; called without the lock."""
        for row in rows:
            if row.wakers:
                row.wake_all()
        if rows:  # and those who found a job by its id
            self.notifier.publish("ended", [row.id for row in rows])


def _matches(row: Row, query: JobQuery) -> bool:
    return (
        (query.queue is None or row.queue == query.queue)
        and (query.status is None or row.status is query.status)
        and (query.task is None or row.task == query.task)
        and (query.order != "ended" or row.ended_at is not None)
    )
