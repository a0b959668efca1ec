"""Measuring queues: how many jobs of each status, and how long the first one has waited."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from jobify_django.conf import QueueSettings
from jobify_django.stores.database.claim import QUEUES
from jobify_django.stores.database.connection import Connection, Row, chunks
from jobify_django.stores.database.pools import PoolRegistry
from jobify_django.stores.database.reading import timestamp_or_none
from jobify_django.stores.value import PoolRecord, QueueState, QueueStats

OF = "FROM jobify_job j WHERE j.queue = w.queue AND j.status ="
STATS = f"""
    SELECT w.queue, (SELECT count(*) {OF} 'waiting'), (SELECT count(*) {OF} 'delayed'),
           (SELECT count(*) {OF} 'delayed' AND eligible_at <= ?), (SELECT count(*) {OF} 'running'),
           (SELECT min(eligible_at) {OF} 'waiting'), (SELECT min(eligible_at) {OF} 'delayed')
    FROM (%s) w"""


class Measuring(PoolRegistry):
    """The verb ``stats``."""

    def stats(self, queues: Sequence[QueueSettings]) -> Mapping[str, QueueStats]:
        return self._read(partial(self._stats, queues, self.clock()))

    def _stats(self, queues: Sequence[QueueSettings], now: float, db: Connection) -> dict[str, QueueStats]:
        pools = self._pools(now, db)
        names = [queue.name for queue in queues]
        states = self._sync("", names, db).states
        numbers: dict[str, Row] = {}
        for part in chunks(names, QUEUES):
            lines = " UNION ALL ".join(["SELECT ? AS queue"] * len(part))
            for queue, *row in db.execute(STATS % lines, (now, *part)).fetchall():
                numbers[queue] = tuple(row)
        return {q.name: _to_stats(q, numbers[q.name], states[q.name], pools, now) for q in queues}


def _to_stats(
    queue: QueueSettings, numbers: Row, state: QueueState, pools: Sequence[PoolRecord], now: float
) -> QueueStats:
    waiting, delayed, due, running, *firsts = numbers
    began = [at for first in firsts if (at := timestamp_or_none(first)) is not None and at <= now]
    live = state.applied_to(queue)
    return QueueStats(
        queue=queue.name,
        waiting=waiting + due,
        delayed=delayed - due,
        running=running,
        workers=live.workers,
        maxsize=live.maxsize,
        order=live.order,
        paused=state.paused,
        oldest_wait=max(0.0, now - min(began, default=now)),
        pools=[pool for pool in pools if queue.name in pool.queues],
        state=state,
    )
