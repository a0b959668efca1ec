"""One queue in memory: its waiting jobs, its delayed ones, and its running ones."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Collection, Mapping, Sequence

from jobify_django.conf import QueueSettings
from jobify_django.job import DELAYED, WAITING
from jobify_django.ordering import Order, order_key
from jobify_django.stores.memory.row import Row
from jobify_django.stores.value import Lane, PoolRecord, Quarantine, QueueState, QueueStats


class Line:
    """A heap of waiting rows, a heap of delayed ones, and the running ones.

    A row that leaves a heap early stays in it and is passed over when it surfaces; ``compact`` keeps
    such leftovers fewer than the rows that count.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.state = QueueState(name)
        self.waiting = 0
        self.sequence = 0
        self.running: dict[str, Row] = {}
        self._heap: list[tuple[int, int, Row]] = []
        self.delayed: list[tuple[float, int, Row]] = []
        self.delayed_count = 0

    def put(self, row: Row) -> None:
        """Let a job wait, a new one or a returned one."""
        if row.status is not WAITING:
            row.status = WAITING
            row.pool = ""
            self.running.pop(row.id, None)
        self.waiting += 1
        heapq.heappush(self._heap, (row.order_key, row.sequence, row))

    def delay(self, row: Row) -> None:
        """Let a job wait until it is eligible, a new one or a returned one."""
        row.status = DELAYED
        row.pool = ""
        self.running.pop(row.id, None)
        self.delayed_count += 1
        heapq.heappush(self.delayed, (row.eligible_at, row.sequence, row))

    def may_start(self, lane: Lane, now: float) -> int:
        """Return how many jobs may start now."""
        if self.state.paused or not self.waiting:
            return 0
        if lane.max_running is None:
            return lane.want
        leased = sum((row.lease_until or 0) >= now for row in self.running.values())
        return min(lane.want, lane.max_running - leased)

    def quarantined(self, unknown_tasks: Collection[str]) -> Row | None:
        """Return the job that is first in the queue, if it is in quarantine; at least one must wait."""
        heap = self._heap
        while heap[0][2].status is not WAITING:
            heapq.heappop(heap)
        first = heap[0][2]
        if first.task in unknown_tasks:
            known = [
                entry for entry in heap if entry[2].status is WAITING and entry[2].task not in unknown_tasks
            ]
            if not known:
                return None
            first = min(known)[2]
        return first if first.crashes else None

    def take(self, want: int, unknown_tasks: Collection[str], quarantined: Row | None = None) -> list[Row]:
        """Take jobs that are not in quarantine, or this one that is."""
        taken: list[Row] = []
        passed: list[tuple[int, int, Row]] = []
        heap, running = self._heap, self.running
        while heap and len(taken) < want:
            entry = heapq.heappop(heap)
            row = entry[2]
            # Not one that left early, nor one whose second entry this is.
            if row.status is WAITING and row.id not in running:
                if row.task in unknown_tasks or (
                    row.crashes if quarantined is None else row is not quarantined
                ):
                    passed.append(entry)
                    continue
                running[row.id] = row
                taken.append(row)
        for entry in passed:
            heapq.heappush(heap, entry)
        self.waiting -= len(taken)
        return taken

    def promote(self, now: float) -> float | None:
        """Let the delayed jobs that are due wait; return when the next one is due."""
        while self.delayed and self.delayed[0][0] <= now:
            at, _, row = heapq.heappop(self.delayed)
            # Not one that left early, nor one that is delayed anew.
            if row.status is DELAYED and row.eligible_at == at:
                self.delayed_count -= 1
                self.put(row)
        return self.delayed[0][0] if self.delayed else None

    def drop(self, row: Row) -> None:
        """Note that a job which has not started is about to end."""
        if row.status is WAITING:
            self.waiting -= 1
        else:
            self.delayed_count -= 1

    def compact(self) -> None:
        """Remove the entries of rows that left their heap early, if there are many."""
        if len(self._heap) > 2 * self.waiting + 64:
            self._heap = [entry for entry in self._heap if entry[2].status is WAITING]
            heapq.heapify(self._heap)
        if len(self.delayed) > 2 * self.delayed_count + 64:
            self.delayed = [e for e in self.delayed if e[2].status is DELAYED and e[2].eligible_at == e[0]]
            heapq.heapify(self.delayed)

    def reorder(self, order: Order) -> None:
        """Put every job where this order wants it."""
        delayed = (entry[2] for entry in self.delayed)
        for row in itertools.chain(self.rows_waiting(), delayed, self.running.values()):
            row.order_key = order_key(order, row.priority, row.sequence)
        self._heap = [(row.order_key, row.sequence, row) for row in self.rows_waiting()]
        heapq.heapify(self._heap)

    def rows_waiting(self) -> list[Row]:
        """Return the jobs that wait, in no order."""
        return list({id(e[2]): e[2] for e in self._heap if e[2].status is WAITING}.values())

    def stats(self, queue: QueueSettings, now: float, pools: Sequence[PoolRecord]) -> QueueStats:
        """Return the state of the queue."""
        self.promote(now)
        live = self.state.applied_to(queue)
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


def take(
    lines: Mapping[Line, int], unknown_tasks: Collection[str], quarantine: Quarantine
) -> tuple[list[Row], bool]:
    """Take as many jobs of each line; return them, and whether none was taken because one
    in quarantine is first."""
    for line in lines if quarantine != "skip" else ():
        if (row := line.quarantined(unknown_tasks)) is not None:
            return ([], True) if quarantine == "defer" else (line.take(1, unknown_tasks, row), False)
    return [row for line, want in lines.items() for row in line.take(want, unknown_tasks)], False
