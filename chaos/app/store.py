"""The database store with a watch: how long claims and renewals take, in the ledger ``calls``."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from chaos.ledger import Ledger
from jobify_django.outcome import Outcome
from jobify_django.stores.database import DatabaseStore
from jobify_django.stores.value import Claimed, Demand, Renewed


class TimedStore(DatabaseStore):
    """A database store that takes down each claim that brought jobs, and each renewal."""

    def __init__(self, alias: str) -> None:
        super().__init__(alias)
        self._calls = Ledger("calls")

    def claim(self, demand: Demand, outcomes: Sequence[Outcome] = ()) -> Claimed:
        began = time.perf_counter()
        claimed = super().claim(demand, outcomes)
        if claimed.claims:
            self._calls.write("C", demand.pool, len(claimed.claims), f"{time.perf_counter() - began:.6f}")
        return claimed

    def renew(self, pool: str, held: Mapping[str, int], lease: float) -> Renewed:
        renewed = super().renew(pool, held, lease)
        if held:
            self._calls.write("R", pool, len(held), len(renewed.lost))
        return renewed
