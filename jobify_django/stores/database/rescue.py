"""Rescuing jobs whose lease ran out from their pools."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from jobify_django.outcome import expired
from jobify_django.stores.database.columns import RECORD, to_record
from jobify_django.stores.database.connection import Connection, change_by_ids
from jobify_django.stores.database.pools import LEASES, PoolRegistry
from jobify_django.stores.database.settle import Returned, Settling
from jobify_django.stores.value import Rescued

EXPIRED = f"""
    SELECT {RECORD} FROM jobify_job WHERE status = 'running' AND lease_until < ?
    ORDER BY lease_until LIMIT ?"""
AHEAD = "SELECT id, pool FROM jobify_job WHERE status = 'running' AND lease_until > ?"
SHORTEN_LEASES = "UPDATE jobify_job SET lease_until = ? WHERE id IN "


class Rescuing(Settling, PoolRegistry):
    """The verb ``rescue``."""

    def rescue(
        self,
        limit: int = 500,
        *,
        outage: tuple[float, float] | None = None,
        max_lease_left: float | None = None,
    ) -> Sequence[Rescued]:
        now = self.clock()
        first, last = self._read(lambda db: db.execute(f"SELECT {', '.join(LEASES)}").fetchone())
        if max_lease_left is not None and last is not None and last > now + max_lease_left:
            self._write(partial(self._shorten_leases, max_lease_left))
        if first is None or first >= now:
            return []
        returned = self._write(partial(self._rescue, limit, outage))
        self._notify_returned(returned)
        return [
            Rescued(job.id, job.queue, job.task, job.attempt, job.pool, status) for job, status in returned
        ]

    def _rescue(self, limit: int, outage: tuple[float, float] | None, db: Connection) -> list[Returned]:
        now = self.clock()
        rows = db.execute(f"{EXPIRED} {self._skip_locked}", (now, limit)).fetchall()
        jobs = [to_record(row) for row in rows]
        return self._return_jobs(db, [(expired(job, job.lease_until, outage), job) for job in jobs], now)

    def _shorten_leases(self, max_lease_left: float, db: Connection) -> None:
        """Let no lease of a pool that is not known to be alive have more than so many seconds left."""
        now = self.clock()
        alive = {pool.id for pool in self._pools(now, db)}
        found = db.execute(f"{AHEAD} {self._skip_locked}", (now + max_lease_left,)).fetchall()
        change_by_ids(
            db, SHORTEN_LEASES, [id for id, pool in found if pool not in alive], now + max_lease_left
        )
