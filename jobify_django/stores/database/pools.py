"""The pools: their heartbeats, which of them are alive, and what each must know of tuning and cancels."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial

from jobify_django.stores.database.columns import NEW_POOL, POOL, STATE, column_list, to_pool, to_state
from jobify_django.stores.database.connection import Connection, placeholders
from jobify_django.stores.database.reading import queues_text
from jobify_django.stores.database.transaction import Transactions
from jobify_django.stores.value import POOL_ALIVE, PoolRecord, QueueState, Synced

ALIVE = f"SELECT {column_list(POOL)} FROM jobify_pool WHERE seen_at > ? AND seen_at < ? ORDER BY started_at"
# A row has a queue's name and live values, or the id of a job.
STATES = f"SELECT NULL AS id, name, {STATE} FROM jobify_queue WHERE name IN "
# Of no queue, so that the columns keep their types: MariaDB makes decimals of numbers and plain NULLs.
ASKED_TO_CANCEL = f"""
    SELECT id, NULL, {STATE} FROM jobify_job LEFT JOIN jobify_queue ON 1 = 0
    WHERE status = 'running' AND pool = ? AND cancel_requested"""


class PoolRegistry(Transactions):
    """The verbs ``heartbeat``, ``retire``, ``pools`` and ``sync``."""

    def heartbeat(self, pool: PoolRecord) -> None:
        now = self.clock()
        values = (pool.id, pool.host, pool.pid, pool.kind, pool.started_at, now, queues_text(pool.queues))
        self._write(lambda db: self._heartbeat(db, values))

    def _heartbeat(self, db: Connection, values: Sequence[object]) -> None:
        changed = "seen_at = excluded.seen_at, queues = excluded.queues"
        db.execute(f"{NEW_POOL} ON CONFLICT (id) DO UPDATE SET {changed}", values)

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
    def _sync(pool: str, queues: Collection[str], db: Connection) -> Synced:
        states = {name: QueueState(name) for name in queues}
        asked: list[str] = []
        terms = [STATES + placeholders(queues)] * bool(queues) + [ASKED_TO_CANCEL] * bool(pool)
        values = (*queues, *([pool] if pool else []))
        rows = db.execute(" UNION ALL ".join(terms), values).fetchall() if terms else []
        for id, name, *state in rows:
            if id is None:
                states[name] = to_state(name, *state)
            else:
                asked.append(id)
        return Synced(states, asked)
