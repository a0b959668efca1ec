"""What grows with the settings: two thousand queues in one process, a thousand workers, long lists of ids."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from io import StringIO
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import connection
from django.test import Client
from django.urls import reverse

from jobify_django import queue
from jobify_django.conf import get_settings
from jobify_django.job import JobSpec, JobStatus, new_id
from jobify_django.outcome import succeeded
from jobify_django.stores.base import Store
from jobify_django.stores.value import Demand, Lane, PoolQueue, PoolRecord
from tests.child import PATIENCE
from tests.claims import release
from tests.workshop import Configure, at_work, database, do, named, pushed

pytestmark = database

MANY = 2_000
NAMES = [f"q{number:04d}" for number in range(MANY)]
SOME = (NAMES[0], NAMES[MANY // 2], NAMES[-1])


@pytest.fixture
def store(jobify: Configure) -> Store:
    jobify(QUEUES={name: {"WORKERS": 1} for name in NAMES}, MAXSIZE=100_000)
    return queue(NAMES[0]).store


def add(store: Store, name: str, jobs: int = 1, **values: Any) -> list[str]:
    specs = [JobSpec(new_id(), "t", "[[],{}]", **values) for _ in range(jobs)]
    assert store.add(get_settings().queue(name), specs).taken == jobs
    return [spec.id for spec in specs]


def demand(names: Iterable[str], want: int, **options: Any) -> Demand:
    return Demand("p", {name: Lane(want, 30.0) for name in names}, **options)


@contextmanager
def statements() -> Iterator[list[str]]:
    """The statements that are run in the block, on this thread."""
    seen: list[str] = []

    def note(execute: Callable[..., Any], sql: str, *rest: Any) -> Any:
        seen.append(sql)
        return execute(sql, *rest)

    with connection.execute_wrapper(note):
        yield seen


def test_a_claim_of_two_thousand_queues_takes_the_jobs_of_all(store: Store) -> None:
    ids = [id for name in SOME for id in add(store, name)]
    (late,) = add(store, NAMES[7], delay=60.0)
    claimed = store.claim(demand(NAMES, 5))
    assert [claim.id for claim in claimed.claims] == ids
    assert set(claimed.states) == set(NAMES)
    assert claimed.next_due is not None
    assert 50 < claimed.next_due <= 60
    outcomes = [succeeded(claim) for claim in claimed.claims]
    again = store.claim(demand(NAMES, 5), outcomes)
    assert (again.claims, again.refused) == ([], [])
    assert store.get([late])[late].status is JobStatus.DELAYED


def test_a_claim_in_parts_keeps_limits_orders_and_tasks_that_are_not_known(store: Store) -> None:
    capped, ordered = NAMES[1_500], NAMES[1_501]
    mine = add(store, capped, 10)
    low, high = add(store, ordered, 3, priority=-1), add(store, ordered, 3, priority=1)
    wanted = demand(NAMES, 5, unknown_tasks=["u1", "u2"])
    wanted = wanted._replace(lanes={**wanted.lanes, capped: Lane(5, 30.0, 3)})
    claims = store.claim(wanted).claims
    assert [claim.id for claim in claims if claim.queue == capped] == mine[:3]
    assert [claim.id for claim in claims if claim.queue == ordered] == [*high, *low[:2]]
    assert not [c for c in store.claim(wanted._replace(unknown_tasks=())).claims if c.queue == capped]


def test_a_suspect_of_any_part_is_claimed_alone(store: Store) -> None:
    from jobify_django.models import Job

    (suspect,) = add(store, NAMES[-1])
    add(store, NAMES[0])
    Job.objects.filter(id=suspect).update(crashes=1)
    assert store.claim(demand(NAMES, 5, quarantine="defer")).deferred
    assert [claim.id for claim in store.claim(demand(NAMES, 5)).claims] == [suspect]


@pytest.mark.parametrize("number", [1, 100])
def test_a_look_at_ordinarily_many_queues_is_one_statement(store: Store, number: int) -> None:
    names = NAMES[:number]
    store.claim(demand(names, 1))  # a server's clock is measured at first
    with statements() as seen:
        store.claim(demand(names, 1))
    assert len(seen) == 1
    with statements() as seen:
        store.stats([get_settings().queue(name) for name in names])
    assert len(seen) == 3
    with statements() as seen:
        store.sync("p", names)
    assert len(seen) == 1


def test_two_thousand_queues_are_counted_in_a_few_statements(store: Store) -> None:
    add(store, NAMES[-1], 2)
    add(store, NAMES[-1], 1, delay=60.0)
    store.claim(demand([NAMES[-1]], 1))
    with statements() as seen:
        stats = store.stats(list(get_settings().queues.values()))
    assert len(seen) < 40
    assert set(stats) == {*NAMES, "default"}
    last = stats[NAMES[-1]]
    assert (last.waiting, last.delayed, last.running) == (1, 1, 1)
    assert stats[NAMES[0]].waiting == 0


def test_a_pool_serves_two_thousand_queues(store: Store) -> None:
    jobs = [pushed(lambda: 7, queue=name) for name in SOME]
    with at_work() as shop:
        for job in jobs:
            job.wait(timeout=PATIENCE)
        queue(NAMES[-1]).tune(workers=3)
        shop.turn()
        assert shop.pool.slots[NAMES[-1]].size == 3


def test_the_pages_and_commands_show_two_thousand_queues(store: Store) -> None:
    client = Client()
    client.force_login(User.objects.create_superuser("root"))
    served = dict.fromkeys(NAMES, PoolQueue(1, 0, 0))
    store.heartbeat(PoolRecord("pool", "h", 1, "code", store.clock(), served))
    with statements() as seen:
        page = client.get(reverse("admin:jobify_django_overview_changelist")).content.decode()
    assert all(f">{name}</a>" in page for name in SOME)
    assert len(seen) < 60
    out = StringIO()
    with statements() as seen:
        call_command("jobs", "status", "--format", "json", stdout=out)
    assert [row["queue"] for row in json.loads(out.getvalue())] == ["default", *NAMES]
    assert len(seen) < 60


# Many jobs in the hands of one pool, and long lists of ids


def test_a_thousand_workers_hold_renew_and_finish_their_jobs(store: Store) -> None:
    name = NAMES[0]
    ids = add(store, name, 2_500)
    claims = store.claim(demand([name], 2_500)).claims
    assert [claim.id for claim in claims] == ids
    held = {claim.id: claim.attempt for claim in claims}
    renewed = store.renew("p", {**held, "none": 1}, 60.0)
    assert list(renewed.lost) == ["none"]
    store.cancel(ids[:1_200])
    assert set(store.renew("p", held, 60.0).cancel_requested) == set(ids[:1_200])
    outcomes = [succeeded(claim, f"{number}") for number, claim in enumerate(claims)]
    assert store.settle(outcomes[:1_500]) == []
    given = release(store, claims[1_500:], "p")
    assert sorted(given) == sorted(ids[1_500:])
    cancelled = store.cancel(ids)
    assert len(cancelled) == 2_500
    assert len(store.retry(ids)) == 1_000
    assert len(store.get(ids)) == 2_500
    assert store.prune(older_than=-10.0, failed_older_than=-10.0, limit=2_000) == 1_500


def test_a_thousand_tasks_that_are_not_known_are_passed_over(store: Store) -> None:
    unknown = [f"deploy.tasks.of_tomorrow_{number}" for number in range(1_000)]
    ids = add(store, NAMES[-1])
    claims = store.claim(demand(NAMES, 1, unknown_tasks=unknown)).claims
    assert [claim.id for claim in claims] == ids


def test_many_large_jobs_are_pushed_at_once(store: Store) -> None:
    large = "x" * 200_000
    calls = [(named(lambda: None) + large,) for _ in range(150)]  # 30 MB
    jobs = do.using(queue=NAMES[0]).push_many(calls)
    assert len(store.get([job.id for job in jobs])) == 150
