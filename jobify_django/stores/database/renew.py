"""Renewing the leases of the jobs that a pool runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from jobify_django.stores.database.connection import Connection
from jobify_django.stores.database.transaction import Transactions
from jobify_django.stores.value import Renewed


class Renewing(Transactions):
    """The verb ``renew``."""

    def renew(self, pool: str, held: Mapping[str, int], lease: float) -> Renewed:
        found = self.write(partial(self._renew_all, pool, held, lease)) if held else {}
        return Renewed([id for id in held if id not in found], [id for id, cancel in found.items() if cancel])

    def _renew_all(self, pool: str, held: Mapping[str, int], lease: float, db: Connection) -> dict[str, bool]:
        return self._renew(db, pool, sorted(held.items()), self.clock() + lease)

    def _renew(
        self, db: Connection, pool: str, held: Sequence[tuple[str, int]], until: float
    ) -> dict[str, bool]:
        """Extend leases; return for each job still held whether it is asked to cancel."""
        raise NotImplementedError
