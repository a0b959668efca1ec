"""What a pool asks of a store, in the words of a test: a claim of one queue, and jobs handed back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from jobify_django.job import Claim
from jobify_django.outcome import Attempt, released
from jobify_django.stores.base import Store
from jobify_django.stores.value import Demand, Lane

POOL = "a-pool"


def claim(
    store: Store,
    want: int = 1,
    *,
    pool: str = POOL,
    queue: str = "default",
    lease: float = 60.0,
    max_running: int | None = None,
    **options: Any,
) -> list[Claim]:
    """Claim up to ``want`` jobs of a queue."""
    lanes = {queue: Lane(want, lease, max_running)}
    return list(store.claim(Demand(pool, lanes, **options)).claims)


def die(store: Store, want: int = 1, *, pool: str = "dead-pool", **options: Any) -> list[Claim]:
    """Claim as a pool does that dies at once: the leases have run out."""
    return claim(store, want, pool=pool, lease=-1.0, **options)


def release(
    store: Store, attempts: Iterable[Attempt], pool: str = POOL, reason: str = "its pool stopped"
) -> list[str]:
    """Hand jobs back; return the ids of those that the pool held."""
    outcomes = [released(attempt, reason, pool=pool) for attempt in attempts]
    refused = store.settle(outcomes)
    return [outcome.id for outcome in outcomes if outcome not in refused]
