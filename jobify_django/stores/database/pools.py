"""The pools: their heartbeats, which of them are alive, and what each must know of tuning and cancels."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from functools import partial

from jobify_django.stores.database.columns import (
    NEW_POOL,
    POOL,
    STATE,
    STATE_NAMES,
    column_list,
    to_pool,
    to_state,
)
from jobify_django.stores.database.connection import Connection, Row, placeholders
from jobify_django.stores.database.reading import queues_text, timestamp_or_none
from jobify_django.stores.database.transaction import Transactions
from jobify_django.stores.value import POOL_ALIVE, PoolRecord, QueueState, Synced

ALIVE = f"SELECT {column_list(POOL)} FROM jobify_pool WHERE seen_at > ? AND seen_at < ? ORDER BY started_at"
# They read the index of running jobs, of which there are no more than workers.
LEASES = (
    "(SELECT min(lease_until) FROM jobify_job WHERE status = 'running')",
    "(SELECT max(lease_until) FROM jobify_job WHERE status = 'running')",
)
# A row has a queue's name and live values; or the id of a job; or neither, and what is asked along.
# First, and of no queue, so that the columns keep their types: MariaDB makes decimals of numbers and plain
# NULLs.
ALONG = f"""
    SELECT NULL AS id, NULL AS name, {STATE}, %s FROM (SELECT 1 AS one) one LEFT JOIN jobify_queue ON 1 = 0"""
STATES = f"SELECT NULL AS id, name, {STATE} %s FROM jobify_queue WHERE name IN "
ASKED_TO_CANCEL = f"""
    SELECT id, NULL, {STATE} %s FROM jobify_job LEFT JOIN jobify_queue ON 1 = 0
    WHERE status = 'running' AND pool = ? AND cancel_requested"""
BEAT = f"{NEW_POOL} ON CONFLICT (id) DO UPDATE SET seen_at = excluded.seen_at, queues = excluded.queues"


class PoolRegistry(Transactions):
    """The verbs ``heartbeat``, ``retire``, ``pools`` and ``sync``."""

    _beat = BEAT

    def heartbeat(self, pool: PoolRecord) -> Synced:
        now = self.clock()
        values = (pool.id, pool.host, pool.pid, pool.kind, pool.started_at, now, queues_text(pool.queues))
        return self._do_apart(lambda db: self._heartbeat(db, pool, values))

    def _heartbeat(self, db: Connection, pool: PoolRecord, values: Sequence[object]) -> Synced:
        db.execute(self._beat, values)
        statement, known = what_to_know(pool.id, pool.queues, LEASES)
        return synced(db.execute(statement, known).fetchall(), pool.queues)

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
        statement, values = what_to_know(pool, queues)
        return synced(db.execute(statement, values).fetchall() if statement else (), queues)


def what_to_know(pool: str, queues: Collection[str], along: Sequence[str] = ()) -> tuple[str, Row]:
    """Return a SELECT of what ``sync`` tells, and its values; ``along`` are columns to be read with it."""
    nothing = ", NULL" * len(along)
    terms = [ALONG % ", ".join(along)] * bool(along)
    terms += [STATES % nothing + placeholders(queues)] * bool(queues)
    terms += [ASKED_TO_CANCEL % nothing] * bool(pool)
    return " UNION ALL ".join(terms), (*queues, *([pool] if pool else []))


def synced(rows: Iterable[Row], queues: Collection[str]) -> Synced:
    """Return what such a SELECT has found; the first two columns along, if there are any, are ``LEASES``."""
    states = {name: QueueState(name) for name in queues}
    asked: list[str] = []
    leases: tuple[float | None, float | None] | None = None
    for id, name, *rest in rows:
        state, along = rest[: len(STATE_NAMES)], rest[len(STATE_NAMES) :]
        if id is not None:
            asked.append(id)
        elif name is not None:
            states[name] = to_state(name, *state)
        else:
            leases = (timestamp_or_none(along[0]), timestamp_or_none(along[1]))
    return Synced(states, asked, leases)
