"""Where a retried job stands, in a queue whose order the settings give, and in one whose order was tuned."""

from __future__ import annotations

import pytest

from jobify_django import queue, task
from jobify_django.ordering import Order
from tests.claims import claim as take
from tests.workshop import Configure, both

PLACES = {"priority": [0, 1, 2], "fifo": [0, 1, 2], "lifo": [2, 1, 0]}
"""Of three jobs, the second of which is retried: with the key of another order it would be first or last."""


@task
def note() -> None: ...


@both
@pytest.mark.parametrize("settings_say", [None, *PLACES])
@pytest.mark.parametrize("tuned", [None, *PLACES])
def test_a_retried_job_stands_where_the_order_in_force_puts_it(
    jobify: Configure, settings_say: Order | None, tuned: Order | None
) -> None:
    jobify(**({"ORDER": settings_say} if settings_say else {}))
    if tuned:
        queue().tune(order=tuned)
    store = queue().store
    jobs = [note.using(priority=priority).push() for priority in (10, 9, 8)]
    assert jobs[1].cancel()
    assert list(store.retry([jobs[1].id])) == [jobs[1].id]
    claims = take(store, 3)
    ids = [job.id for job in jobs]
    assert [ids.index(claim.id) for claim in claims] == PLACES[tuned or settings_say or "priority"]
