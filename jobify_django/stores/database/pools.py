"""The pools: their heartbeats, which of them are alive, and what each must know of tuning and cancels."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from functools import partial
from typing import Any

from jobify_django.stores.database.columns import (
    NEW_POOL,
    POOL,
    STATE,
    STATE_NAMES,
    column_list,
    to_pool,
    to_state,
)
from jobify_django.stores.database.connection import Connection, placeholders
from jobify_django.stores.database.reading import queues_text, timestamp_or_none
from jobify_django.stores.database.transaction import Transactions
from jobify_django.stores.value import POOL_ALIVE, PoolRecord, QueueState, Synced

ALIVE = f"SELECT {column_list(POOL)} FROM jobify_pool WHERE seen_at > ? AND seen_at < ? ORDER BY started_at"
# Two SELECTs, each one look-up in the index: SQLite reads all running rows for both in one.
LEASES = """
    (SELECT min(lease_until) FROM jobify_job WHERE status = 'running'),
    (SELECT max(lease_until) FROM jobify_job WHERE status = 'running')"""
# A row has a queue's name and live values, or the id of a job, or neither, and the leases.
STATES = f"SELECT NULL AS id, name, {STATE} %s FROM jobify_queue WHERE name IN "
# Of no queue, so that the columns keep their types: MariaDB makes decimals of numbers and plain NULLs.
ASKED_TO_CANCEL = f"""
    SELECT id, NULL, {STATE} %s FROM jobify_job LEFT JOIN jobify_queue ON 1 = 0
    WHERE status = 'running' AND pool = ? AND cancel_requested"""
# First, for the same reason.
LEASES_LEFT = f"""
    SELECT NULL AS id, NULL AS name, {STATE}, {LEASES}
    FROM (SELECT 1 AS one) one LEFT JOIN jobify_queue ON 1 = 0"""
BEAT = f"{NEW_POOL} ON CONFLICT (id) DO UPDATE SET seen_at = excluded.seen_at, queues = excluded.queues"


class PoolRegistry(Transactions):
    """The verbs ``heartbeat``, ``retire``, ``pools`` and ``sync``."""

    def heartbeat(self, pool: PoolRecord) -> Synced:
        now = self.clock()
        values = (pool.id, pool.host, pool.pid, pool.kind, pool.started_at, now, queues_text(pool.queues))
        return self._do_apart(lambda db: self._heartbeat(db, pool, values))

    def _heartbeat(self, db: Connection, pool: PoolRecord, values: Sequence[object]) -> Synced:
        db.execute(BEAT, values)
        return self._sync(pool.id, pool.queues, db, leases=True)

    def retire(self, pool: str) -> None:
        self._write(lambda db: db.execute("DELETE FROM jobify_pool WHERE id = ?", (pool,)))

    def pools(self) -> Sequence[PoolRecord]:
        return self._read(partial(self._pools, self.clock()))

    @staticmethod
    def _pools(now: float, db: Connection) -> list[PoolRecord]:
        rows = db.execute(ALIVE, (now - POOL_ALIVE, now + POOL_ALIVE)).fetchall()
        return [to_pool(row, now) for row in rows]

    def sync(self, pool: str, queues: Collection[str]) -> Synced:
        return self._read(partial(self._sync, pool, queues))

    @staticmethod
    def _sync(
        pool: str,
        queues: Collection[str],
        db: Connection,
        *,
        leases: bool = False,
        along: str = "",
        values: Sequence[object] = (),
    ) -> Synced:
        """Read it in one statement, which begins with ``along`` and its values."""
        nothing = ", NULL, NULL" if leases else ""
        terms = [LEASES_LEFT] * leases
        terms += [STATES % nothing + placeholders(queues)] * bool(queues)
        terms += [ASKED_TO_CANCEL % nothing] * bool(pool)
        values = (*values, *queues, *([pool] if pool else []))
        rows = db.execute(along + " UNION ALL ".join(terms), values).fetchall() if terms else []
        return _synced(rows, queues)


def _synced(rows: Iterable[Sequence[Any]], queues: Collection[str]) -> Synced:
    states = {name: QueueState(name) for name in queues}
    asked: list[str] = []
    leases: tuple[float | None, float | None] | None = None
    for id, name, *values in rows:
        if id is not None:
            asked.append(id)
        elif name is not None:
            states[name] = to_state(name, *values[: len(STATE_NAMES)])
        else:
            first, last = values[len(STATE_NAMES) :]
            leases = (timestamp_or_none(first), timestamp_or_none(last))
    return Synced(states, asked, leases)
