"""How many statements a verb takes: few, and as many for many jobs as for one, as the contract tells."""

from __future__ import annotations

from collections.abc import Callable, Collection

import pytest
from django.db import connection

from jobify_django.job import Claim, JobSpec, new_id
from jobify_django.outcome import Outcome, released, succeeded
from jobify_django.stores.base import Store
from jobify_django.stores.database import DatabaseStore
from jobify_django.stores.value import Demand, JobQuery, Lane
from jobify_django.testing.conformance.ground import a_queue
from tests.claims import POOL, claim, die
from tests.test_lane import said, use
from tests.workshop import database

pytestmark = database

QUEUE = a_queue()


@pytest.fixture
def store(jobify: object) -> Store:
    """A store that has been used, see there."""
    store = DatabaseStore()
    use(store)
    return store


def add(store: Store, jobs: int) -> list[str]:
    specs = [JobSpec(new_id(), "a.task", "[[],{}]") for _ in range(jobs)]
    assert store.add(QUEUE, specs).taken == jobs
    return [spec.id for spec in specs]


def running(store: Store, jobs: int) -> list[Claim]:
    add(store, jobs)
    return claim(store, jobs)


def settle(store: Store, claims: Collection[Claim], how: Callable[[Claim], Outcome] = succeeded) -> None:
    assert list(store.settle([how(one) for one in claims])) == []


LOOKS: dict[str, tuple[int, Callable[[Store], object]]] = {
    "query": (1, lambda store: store.query(JobQuery(queue="default"))),
    "query for the newest ends": (3, lambda store: store.query(JobQuery(order="ended"))),
    "get": (1, lambda store: store.get([new_id(), new_id()])),
    "count": (1, lambda store: store.count(JobQuery())),
    "position": (1, lambda store: store.position(new_id())),
    "stats": (3, lambda store: store.stats([QUEUE, a_queue("mail")])),
    "sync": (1, lambda store: store.sync(POOL, ["default", "mail"])),
    "changes": (1, lambda store: store.changes("default")),
    "pools": (1, lambda store: store.pools()),
    "claim of nothing": (1, lambda store: claim(store)),
    "rescue of nothing": (1, lambda store: store.rescue(max_lease_left=60.0)),
}


@pytest.mark.parametrize("name", LOOKS)
def test_who_only_looks_says_as_much_as_the_contract_tells(store: Store, name: str) -> None:
    statements, look = LOOKS[name]
    with said() as seen:
        look(store)
    assert len(seen) == statements


@pytest.mark.skipif(connection.vendor == "mysql", reason="MariaDB and MySQL go from queue to queue")
def test_the_queues_that_hold_jobs_are_told_by_one_statement(store: Store) -> None:
    add(store, 2)
    with said() as seen:
        assert set(store.queues()) == {"default"}
    assert len(seen) == 1


Verb = Callable[[], object]


def to_settle(store: Store, jobs: int, how: Callable[[Claim], Outcome] = succeeded) -> Verb:
    held = running(store, jobs)
    return lambda: settle(store, held, how)


def to_settle_and_claim(store: Store, jobs: int) -> Verb:
    held = running(store, jobs)
    add(store, jobs)
    demand = Demand(POOL, {"default": Lane(jobs, 60.0)})
    return lambda: store.claim(demand, [succeeded(one) for one in held])


def to_renew(store: Store, jobs: int) -> Verb:
    held = {one.id: one.attempt for one in running(store, jobs)}
    return lambda: store.renew(POOL, held, 60.0)


def to_reconcile(store: Store, jobs: int) -> Verb:
    running(store, jobs)
    return lambda: store.reconcile(POOL, ())


def to_rescue(store: Store, jobs: int) -> Verb:
    add(store, jobs)
    die(store, jobs)
    return lambda: store.rescue()


def to_cancel(store: Store, jobs: int) -> Verb:
    ids = add(store, jobs)
    return lambda: store.cancel(ids)


def to_retry(store: Store, jobs: int) -> Verb:
    ids = add(store, jobs)
    store.cancel(ids)
    return lambda: store.retry(ids)


def to_prune(store: Store, jobs: int) -> Verb:
    settle(store, running(store, jobs))
    return lambda: store.prune(older_than=-1.0, failed_older_than=-1.0)


CHANGES: dict[str, Callable[[Store, int], Verb]] = {
    "add": lambda store, jobs: lambda: add(store, jobs),
    "claim": lambda store, jobs: (add(store, jobs), lambda: claim(store, jobs))[1],
    "settle": to_settle,
    "settle jobs that come back": lambda store, jobs: to_settle(store, jobs, lambda one: released(one, "")),
    "settle and claim": to_settle_and_claim,
    "renew": to_renew,
    "reconcile": to_reconcile,
    "rescue": to_rescue,
    "cancel": to_cancel,
    "retry": to_retry,
    "prune": to_prune,
}
ONE_BY_ONE = {"sqlite": {"add"}, "mysql": {"settle", "settle and claim"}}
"""The verbs that take a statement for each job."""

MOST = 9
"""Statements of a verb that changes one job."""


@pytest.mark.parametrize("name", CHANGES)
def test_many_jobs_take_no_more_statements_than_one(store: Store, name: str) -> None:
    counts = {}
    # The many first: some of the others would have come back before, and those are not like the rest.
    for jobs in (20, 1):
        change = CHANGES[name](store, jobs)
        with said() as seen:
            change()
        counts[jobs] = len(seen)
    more = 19 if name in ONE_BY_ONE.get(connection.vendor, ()) else 0
    assert counts[20] == counts[1] + more
    assert counts[1] + 1 <= MOST  # with the commit
