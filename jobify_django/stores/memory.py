"""Jobs in this process's memory: fast, exact, and gone with the process."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from jobify_django.conf import QueueSettings, get_settings
from jobify_django.job import (
    CANCELLED,
    DELAYED,
    FAILED,
    RUNNING,
    SUCCESSFUL,
    WAITING,
    Claim,
    Interruption,
    JobError,
    JobRecord,
    JobSpec,
    JobStatus,
)
from jobify_django.ordering import Order, order_key
from jobify_django.outcome import CRASH_LIMIT, LEASE_RAN_OUT, RAN_OUT_AWAY, Outcome, crash_error
from jobify_django.stores.base import Store
from jobify_django.stores.value import (
    POOL_ALIVE,
    Added,
    Claimed,
    PoolRecord,
    QueueState,
    QueueStats,
    Renewed,
    Rescued,
)

KEPT = 1_000
"""Ended jobs kept for looking at. Older ones are known only to those who hold their ``Job``."""


class MemoryStore(Store):
    """Jobs in dictionaries and heaps behind one lock, for pushes from any thread or event loop."""

    blocking = False
    shared = False

    def __init__(self, alias: str = "memory", clock: Callable[[], float] = time.time) -> None:
        super().__init__(alias, clock)
        self._lock = threading.Lock()
        self._lines: dict[str, _Line] = {}
        self._live: dict[str, _Row] = {}
        self._ended: OrderedDict[str, _Row] = OrderedDict()
        self._pools: dict[str, tuple[PoolRecord, float]] = {}

    # A job's way

    def add(
        self,
        queue: QueueSettings,
        specs: Sequence[JobSpec],
        *,
        whole: bool = False,
        patience: float | None = None,
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
                if whole and fitting < len(specs):
                    return Added(0, line.waiting, maxsize, (), order, now)
                specs = specs[:fitting]
            anchors = [self._find(spec.id) or self._enter(line, spec, order, now) for spec in specs]
            added = make_added((len(anchors), line.waiting, maxsize, anchors, order, now))
        if anchors:
            self.hints.work(queue.name)
        return added

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
        refused = self.finish(outcomes) if outcomes else ()
        now = self.clock()
        states: dict[str, QueueState] = {}
        dues: list[float] = []
        open_: dict[_Line, int] = {}
        with self._lock:
            for name, want in wants.items():
                line = self._line(name)
                line.promote(now)
                states[name] = line.state
                if name in caps:
                    want = min(want, caps[name] - line.held(now))
                if want > 0 and line.waiting and not line.state.paused:
                    open_[line] = want
                if (due := line.next_due()) is not None:
                    dues.append(max(0.0, due - now))
            taken, held = _take(open_, unknown, suspects)
            claims = [row.start(pool, now, now + lease[row.queue]) for row in taken]
        for name in {row.queue for row in taken}:
            self.hints.room(name)
        return Claimed(claims, refused, states, min(dues, default=None), held)

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

    def finish(self, outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
        now = self.clock()
        refused: list[Outcome] = []
        ended: list[str] = []
        with self._lock:
            for outcome in outcomes:
                if (row := self._running(outcome.id, outcome.attempt)) is None:
                    refused.append(outcome)
                    continue
                row.result, row.error = outcome.result, outcome.error
                self._end(row, outcome.status, now)
                ended.append(row.id)
        if ended:
            self.hints.ended(ended)
        return refused

    # A job's ways back

    def release(self, pool: str, held: Mapping[str, int], reason: str) -> Collection[str]:
        with self._lock:
            mine = (self._running(id, attempt) for id, attempt in held.items())
            rows = [row for row in mine if row is not None and row.pool == pool]
            self._give_back(rows, reason)
        self._tell(rows)
        return [row.id for row in rows]

    def release_unknown(self, pool: str, known: Collection[str]) -> Collection[str]:
        with self._lock:
            rows = [
                row
                for line in self._lines.values()
                for row in list(line.running.values())
                if row.pool == pool and row.id not in known
            ]
            self._give_back(rows, "the reply to its claim was lost")
        self._tell(rows)
        return [row.id for row in rows]

    def rescue(
        self,
        limit: int = 500,
        *,
        away: tuple[float, float] | None = None,
        longest: float | None = None,
    ) -> Sequence[Rescued]:
        now = self.clock()
        rescued: list[Rescued] = []
        with self._lock:
            if longest is not None:
                self._cut_down(now, longest)
            running = (row for line in self._lines.values() for row in line.running.values())
            rows = list(itertools.islice((r for r in running if (r.lease_until or 0) < now), limit))
            for row in rows:
                charged = not ran_out_away(row.lease_until, away)
                if charged:
                    row.crashes += 1
                row.interrupted(LEASE_RAN_OUT if charged else RAN_OUT_AWAY, now, charged=charged)
                pool = row.pool
                if charged and row.crashes >= CRASH_LIMIT:
                    row.error = crash_error(row.crashes)
                    self._end(row, FAILED, now)
                else:
                    self._come_back(row, now)
                rescued.append(Rescued(row.id, row.queue, row.task, row.attempt, pool, row.status))
        self._tell(rows)
        return rescued

    def cancel(self, ids: Collection[str]) -> Mapping[str, JobStatus]:
        now = self.clock()
        before: dict[str, JobStatus] = {}
        rows: list[_Row] = []
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
        self._tell(rows, room=True)
        if any(status is RUNNING for status in before.values()):
            self.hints.work(None)
        return before

    def cancels(self, pool: str) -> Collection[str]:
        with self._lock:
            return [
                row.id
                for line in self._lines.values()
                for row in line.running.values()
                if row.cancel_requested and row.pool == pool
            ]

    def retry(self, ids: Collection[str]) -> Collection[str]:
        now = self.clock()
        rows: list[_Row] = []
        with self._lock:
            for id in ids:
                row = self._find(id)
                if row is None or row.status not in (FAILED, CANCELLED):
                    continue
                self._ended.pop(id, None)
                self._live[id] = row
                line = self._line(row.queue)
                settings = get_settings().queues.get(row.queue)
                order = line.state.order or (settings.order if settings else "priority")
                row.order_key = order_key(order, row.priority, row.sequence)
                row.again(now)
                line.put(row)
                rows.append(row)
        self._tell(rows)
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

    def get(self, ids: Collection[str]) -> Mapping[str, JobRecord]:
        with self._lock:
            return {id: row.record() for id in ids if (row := self._find(id))}

    def find(
        self,
        *,
        queue: str | None = None,
        status: JobStatus | None = None,
        task: str | None = None,
        limit: int = 100,
    ) -> Sequence[JobRecord]:
        with self._lock:
            rows = [
                row
                for row in itertools.chain(self._live.values(), self._ended.values())
                if (queue is None or row.queue == queue)
                and (status is None or row.status is status)
                and (task is None or row.task == task)
            ]
            if status is WAITING:
                rows.sort(key=lambda row: (row.order_key, row.sequence))
            else:
                rows.sort(key=lambda row: (row.pushed_at, row.sequence), reverse=True)
            return [row.record() for row in rows[:limit]]

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

    # Live values and pools

    def states(self, queues: Collection[str]) -> Mapping[str, QueueState]:
        with self._lock:
            return {name: self._line(name).state for name in queues}

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
        self.hints.work(queue.name)
        self.hints.room(queue.name)
        return state

    def beat(self, pool: PoolRecord) -> None:
        with self._lock:
            self._pools[pool.id] = (pool, self.clock())

    def retire(self, pool: str) -> None:
        with self._lock:
            self._pools.pop(pool, None)

    def pools(self) -> Sequence[PoolRecord]:
        now = self.clock()
        with self._lock:
            self._pools = self._alive(now)
            return [replace(pool, age=max(0.0, now - seen)) for pool, seen in self._pools.values()]

    # Inside (all of it with the lock held)

    def _cut_down(self, now: float, longest: float) -> None:
        """Let no lease of a pool that is not known to be alive have more than so many seconds left."""
        alive = self._alive(now)
        for line in self._lines.values():
            for row in line.running.values():
                if (row.lease_until or 0) > now + longest and row.pool not in alive:
                    row.lease_until = now + longest

    def _alive(self, now: float) -> dict[str, tuple[PoolRecord, float]]:
        return {id: (p, seen) for id, (p, seen) in self._pools.items() if abs(now - seen) < POOL_ALIVE}

    def _line(self, name: str) -> _Line:
        line = self._lines.get(name)
        if line is None:
            line = self._lines[name] = _Line(name)
        return line

    def _find(self, id: str) -> _Row | None:
        return self._live.get(id) or self._ended.get(id)

    def _running(self, id: str, attempt: int) -> _Row | None:
        row = self._live.get(id)
        return row if row is not None and row.status is RUNNING and row.attempt == attempt else None

    def _fitting(self, line: _Line, maxsize: int, specs: Sequence[JobSpec], now: float) -> int:
        room = maxsize - line.waiting
        for fitting, spec in enumerate(specs):
            if spec.eligible_at(now) > now or self._find(spec.id):
                continue
            if room <= 0:
                return fitting
            room -= 1
        return len(specs)

    def _enter(self, line: _Line, spec: JobSpec, order: Order, now: float) -> _Row:
        line.sequence += 1
        row = _Row(spec, line.name, line.sequence, order_key(order, spec.priority, line.sequence), now)
        self._live[row.id] = row
        if row.eligible_at > now:
            line.delay(row)
        else:
            line.put(row)
        return row

    def _give_back(self, rows: Iterable[_Row], reason: str) -> None:
        now = self.clock()
        for row in rows:
            row.interrupted(reason, now, charged=False)
            self._come_back(row, now)

    def _come_back(self, row: _Row, now: float) -> None:
        """Let a running job wait again, unless somebody asked for its end."""
        if row.cancel_requested:
            self._end(row, CANCELLED, now)
        else:
            self._line(row.queue).put(row)

    def _end(self, row: _Row, status: JobStatus, now: float) -> None:
        row.status = status
        row.ended_at = now
        row.lease_until = None
        self._lines[row.queue].running.pop(row.id, None)
        del self._live[row.id]
        self._ended[row.id] = row
        if len(self._ended) > KEPT:
            self._ended.popitem(last=False)

    def _tell(self, rows: Sequence[_Row], *, room: bool = False) -> None:
        """Hint at what changed; called without the lock."""
        for queue in {row.queue for row in rows}:
            self.hints.work(queue)
            if room:
                self.hints.room(queue)
        if ended := [row.id for row in rows if row.status.ended]:
            self.hints.ended(ended)


class _Row:
    """A job in memory."""

    __slots__ = (
        "arguments",
        "attempt",
        "cancel_requested",
        "crashes",
        "eligible_at",
        "ended_at",
        "error",
        "history",
        "id",
        "lease_until",
        "order_key",
        "pool",
        "priority",
        "pushed_at",
        "queue",
        "result",
        "sequence",
        "started_at",
        "status",
        "task",
    )

    def __init__(self, spec: JobSpec, queue: str, sequence: int, key: int, now: float) -> None:
        self.id, self.task, self.arguments, self.priority, delay, at = spec
        self.queue = queue
        self.sequence = sequence
        self.order_key = key
        self.pushed_at = now
        self.eligible_at = now if delay == 0.0 and at is None else spec.eligible_at(now)
        self.status = WAITING
        self.attempt = 0
        self.crashes = 0
        self.started_at: float | None = None
        self.ended_at: float | None = None
        self.lease_until: float | None = None
        self.pool = ""
        self.cancel_requested = False
        self.result: str | None = None
        self.error: JobError | None = None
        self.history: tuple[Interruption, ...] = ()

    def __lt__(self, other: object) -> bool:
        return False  # heaps compare rows only where key and sequence are the same row's

    def start(self, pool: str, now: float, until: float) -> Claim:
        self.status = RUNNING
        self.attempt += 1
        self.pool = pool
        self.started_at = now
        self.lease_until = until
        return make_claim(
            (
                self.id,
                self.attempt,
                self.queue,
                self.task,
                self.arguments,
                self.priority,
                self.pushed_at,
                self.eligible_at,
                now,
                self.crashes,
            )
        )

    def interrupted(self, reason: str, now: float, *, charged: bool) -> None:
        self.history = (*self.history, Interruption(self.attempt, reason, now, self.pool, charged))

    def again(self, now: float) -> None:
        self.interrupted("retried by hand", now, charged=False)
        self.crashes = 0
        self.ended_at = None
        self.result = self.error = None
        self.cancel_requested = False
        self.eligible_at = now

    def record(self) -> JobRecord:
        return make_record(
            (
                self.id,
                self.queue,
                self.task,
                self.arguments,
                self.priority,
                self.status,
                self.sequence,
                self.attempt,
                self.crashes,
                self.pushed_at,
                self.eligible_at,
                self.started_at,
                self.ended_at,
                self.lease_until,
                self.pool,
                self.cancel_requested,
                self.result,
                self.error,
                self.history,
            )
        )


class _Line:
    """One queue: a heap of waiting rows, a heap of delayed ones, and the running ones.

    A row that leaves a heap early stays in it and is passed over when it surfaces; ``compact`` keeps
    such leftovers fewer than the rows that count.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.state = QueueState(name)
        self.waiting = 0
        self.sequence = 0
        self.running: dict[str, _Row] = {}
        self._heap: list[tuple[int, int, _Row]] = []
        self.delayed: list[tuple[float, int, _Row]] = []
        self.delayed_count = 0

    def put(self, row: _Row) -> None:
        """Let a job wait, a new one or one that comes back."""
        if row.status is not WAITING:
            row.status = WAITING
            row.lease_until = None
            row.pool = ""
            self.running.pop(row.id, None)
        self.waiting += 1
        heapq.heappush(self._heap, (row.order_key, row.sequence, row))

    def delay(self, row: _Row) -> None:
        row.status = DELAYED
        self.delayed_count += 1
        heapq.heappush(self.delayed, (row.eligible_at, row.sequence, row))

    def held(self, now: float) -> int:
        return sum((row.lease_until or 0) >= now for row in self.running.values())

    def suspect(self, unknown: Collection[str]) -> _Row | None:
        """Return the job that is first in line, if it is a suspect; at least one must wait."""
        heap = self._heap
        while heap[0][2].status is not WAITING:
            heapq.heappop(heap)
        first = heap[0][2]
        if first.task in unknown:
            known = [entry for entry in heap if entry[2].status is WAITING and entry[2].task not in unknown]
            if not known:
                return None
            first = min(known)[2]
        return first if first.crashes else None

    def take(self, want: int, unknown: Collection[str], suspect: _Row | None = None) -> list[_Row]:
        """Take jobs that are no suspects, or this one that is."""
        taken: list[_Row] = []
        passed: list[tuple[int, int, _Row]] = []
        heap, running = self._heap, self.running
        while heap and len(taken) < want:
            entry = heapq.heappop(heap)
            row = entry[2]
            # Not one that left early, nor one whose second entry this is.
            if row.status is WAITING and row.id not in running:
                if row.task in unknown or (row.crashes if suspect is None else row is not suspect):
                    passed.append(entry)
                    continue
                running[row.id] = row
                taken.append(row)
        for entry in passed:
            heapq.heappush(heap, entry)
        self.waiting -= len(taken)
        return taken

    def promote(self, now: float) -> None:
        while self.delayed and self.delayed[0][0] <= now:
            row = heapq.heappop(self.delayed)[2]
            if row.status is DELAYED:
                self.delayed_count -= 1
                self.put(row)

    def next_due(self) -> float | None:
        return self.delayed[0][0] if self.delayed else None

    def drop(self, row: _Row) -> None:
        if row.status is WAITING:
            self.waiting -= 1
        else:
            self.delayed_count -= 1

    def compact(self) -> None:
        if len(self._heap) > 2 * self.waiting + 64:
            self._heap = [entry for entry in self._heap if entry[2].status is WAITING]
            heapq.heapify(self._heap)
        if len(self.delayed) > 2 * self.delayed_count + 64:
            self.delayed = [entry for entry in self.delayed if entry[2].status is DELAYED]
            heapq.heapify(self.delayed)

    def reorder(self, order: Order) -> None:
        delayed = (entry[2] for entry in self.delayed)
        for row in itertools.chain(self.rows_waiting(), delayed, self.running.values()):
            row.order_key = order_key(order, row.priority, row.sequence)
        self._heap = [(row.order_key, row.sequence, row) for row in self.rows_waiting()]
        heapq.heapify(self._heap)

    def rows_waiting(self) -> list[_Row]:
        return list({id(e[2]): e[2] for e in self._heap if e[2].status is WAITING}.values())

    def stats(self, queue: QueueSettings, now: float, pools: Sequence[PoolRecord]) -> QueueStats:
        self.promote(now)
        live = self.state.over(queue)
        return QueueStats(
            queue=self.name,
            waiting=self.waiting,
            delayed=self.delayed_count,
            running=len(self.running),
            workers=live.workers,
            maxsize=live.maxsize,
            order=live.order,
            paused=self.state.paused,
            oldest_wait=max([0.0, *(now - row.eligible_at for row in self.rows_waiting())]),
            pools=[pool for pool in pools if self.name in pool.queues],
            state=self.state,
        )


def _take(
    open_: Mapping[_Line, int], unknown: Collection[str], suspects: Suspects
) -> tuple[list[_Row], bool]:
    """Take as many jobs of each line; return them, and whether a suspect holds them back."""
    for line in open_ if suspects != "pass" else ():
        if (suspect := line.suspect(unknown)) is not None:
            return ([], True) if suspects == "wait" else (line.take(1, unknown, suspect), False)
    return [row for line, want in open_.items() for row in line.take(want, unknown)], False
