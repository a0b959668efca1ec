"""Rescuing jobs whose lease ran out from their pools."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from jobify_django.outcome import lease_ran_out
from jobify_django.stores.database.columns import RECORD, to_record
from jobify_django.stores.database.connection import Connection, change_by_ids
from jobify_django.stores.database.pools import Presence
from jobify_django.stores.database.settle import Back, Settling
from jobify_django.stores.value import Rescued

# Two SELECTs, each one look-up in the index: SQLite reads all running rows for both in one.
LEASES = """
    SELECT (SELECT min(lease_until) FROM jobify_job WHERE status = 'running'),
           (SELECT max(lease_until) FROM jobify_job WHERE status = 'running')"""
EXPIRED = f"""
    SELECT {RECORD} FROM jobify_job WHERE status = 'running' AND lease_until < ?
    ORDER BY lease_until LIMIT ?"""
AHEAD = "SELECT id, pool FROM jobify_job WHERE status = 'running' AND lease_until > ?"
CUT_DOWN = "UPDATE jobify_job SET lease_until = ? WHERE id IN "


class Rescuing(Settling, Presence):
    """The verb ``rescue``."""

    def rescue(
        self,
        limit: int = 500,
        *,
        away: tuple[float, float] | None = None,
        longest: float | None = None,
    ) -> Sequence[Rescued]:
        now = self.clock()
        first, last = self._read(lambda db: db.execute(LEASES).fetchone())
        if longest is not None and last is not None and last > now + longest:
            self._write(partial(self._cut_down, longest))
        if first is None or first >= now:
            return []
        back = self._write(partial(self._rescue, limit, away))
        self._tell_back(back)
        return [Rescued(job.id, job.queue, job.task, job.attempt, job.pool, status) for job, status in back]

    def _rescue(self, limit: int, away: tuple[float, float] | None, db: Connection) -> list[Back]:
        now = self.clock()
        rows = db.execute(f"{EXPIRED} {self._unlocked}", (now, limit)).fetchall()
        jobs = [to_record(row) for row in rows]
        return self._come_back(db, [(lease_ran_out(job, job.lease_until, away), job) for job in jobs], now)

    def _cut_down(self, longest: float, db: Connection) -> None:
        """Let no lease of a pool that is not known to be alive have more than so many seconds left."""
        now = self.clock()
        alive = {pool.id for pool in self._pools(now, db)}
        found = db.execute(f"{AHEAD} {self._unlocked}", (now + longest,)).fetchall()
        change_by_ids(db, CUT_DOWN, [id for id, pool in found if pool not in alive], now + longest)
