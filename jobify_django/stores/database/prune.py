"""Pruning: jobs that ended long ago are deleted, and pools that died without retiring."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from jobify_django.job import CANCELLED, FAILED, SUCCESSFUL, JobStatus
from jobify_django.stores.database.connection import Connection, change_by_ids
from jobify_django.stores.database.transaction import Transactions

FORGET_POOLS = 600.0
"""Seconds after its last heartbeat in which a pool that has not retired is kept."""


class Pruning(Transactions):
    """The verb ``prune``."""

    def prune(self, *, older_than: float, failed_older_than: float, limit: int = 500) -> int:
        now = self.clock()
        failed = now - failed_older_than
        before = {SUCCESSFUL: now - older_than, FAILED: failed, CANCELLED: failed}
        self._forget_pools(now)
        if not self._read(lambda db: _ended(db, before, 1)):
            return 0
        return self._write(partial(self._prune, before, limit))

    def _forget_pools(self, now: float) -> None:
        seen = (now - FORGET_POOLS, now + FORGET_POOLS)
        gone = "FROM jobify_pool WHERE seen_at < ? OR seen_at > ?"
        if self._read(lambda db: db.execute(f"SELECT 1 {gone}", seen).fetchone()):
            self._write(lambda db: db.execute(f"DELETE {gone}", seen))

    def _prune(self, before: Mapping[JobStatus, float], limit: int, db: Connection) -> int:
        # Locked, and looked at again once they are: a retry may have got hold of some of them first.
        old = _ended(db, before, limit, self._skip_locked)
        change_by_ids(db, "DELETE FROM jobify_job WHERE id IN ", old)
        return len(old)


def _ended(db: Connection, before: Mapping[JobStatus, float], limit: int, lock: str = "") -> list[str]:
    """Return the ids of jobs that ended so before a moment of each status."""
    ids: list[str] = []
    for status, until in before.items():
        if limit > len(ids):
            old = f"SELECT id FROM jobify_job WHERE status = '{status}' AND ended_at < ? LIMIT ? {lock}"
            ids += [id for (id,) in db.execute(old, (until, limit - len(ids))).fetchall()]
    return ids
