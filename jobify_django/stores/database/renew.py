"""Renewing the leases of jobs that a pool runs."""

from __future__ import annotations

from collections.abc import Mapping

from jobify_django.stores.database.connection import Connection, Held
from jobify_django.stores.database.transaction import Transactions
from jobify_django.stores.value import Renewed


class Renewing(Transactions):
    """The verb ``renew``."""

    def renew(self, pool: str, held: Mapping[str, int], lease: float) -> Renewed:
        if not held:
            return Renewed()
        jobs = sorted(held.items())
        found = self._renew_all(pool, jobs, lease)
        return Renewed([id for id in held if id not in found], [id for id, cancel in found.items() if cancel])

    def _renew_all(self, pool: str, held: Held, lease: float) -> dict[str, bool]:
        return self._write(lambda db: self._renew(db, pool, held, self.clock() + lease))

    def _renew(self, db: Connection, pool: str, held: Held, until: float) -> dict[str, bool]:
        """Extend leases; return for each job still held whether it is asked to cancel."""
        raise NotImplementedError
