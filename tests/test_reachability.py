"""What a pool that could not reach the store makes of leases that ran out meanwhile."""

from __future__ import annotations

import pytest

from jobify_django import queue
from jobify_django.job import JobSpec, new_id
from jobify_django.pool import upkeep
from jobify_django.pool.reachability import Reachability
from jobify_django.stores.base import Store
from jobify_django.stores.value import PoolQueue, PoolRecord
from tests.child import PATIENCE, until
from tests.claims import claim
from tests.workshop import Configure, at_work, do, faulty, held, named, trouble

NOW = 1_800_000_000.0
WAIT = 2.0


def a_presence(*seen: float) -> Reachability:
    reachability = Reachability(gap=3.0, wait=WAIT)
    for at in seen:
        reachability.reached(NOW + at)
    return reachability


def test_a_pool_that_has_just_started_waits_and_then_charges() -> None:
    reachability = a_presence(0.0, 1.0)
    assert reachability.wait(NOW) == WAIT
    assert reachability.wait(NOW + 1.5) == 0.5
    assert reachability.wait(NOW + WAIT) == 0
    assert reachability.outage is None


def test_a_pool_that_never_saw_the_store_rescues_nothing() -> None:
    reachability = a_presence()
    assert reachability.wait(NOW) == WAIT
    reachability.fail()
    assert reachability.wait(NOW + 100) == WAIT


def test_a_pool_that_looks_often_enough_never_was_away() -> None:
    reachability = a_presence(*range(0, 30, 3))
    assert (reachability.wait(NOW + 30), reachability.outage) == (0, None)


def test_after_a_failure_a_pool_waits_from_the_first_look_that_goes_through() -> None:
    reachability = a_presence(0.0, 3.0)
    reachability.fail()
    assert reachability.wait(NOW + 4) == WAIT
    reachability.reached(NOW + 5)
    assert reachability.wait(NOW + 6) == 1.0
    assert reachability.wait(NOW + 7) == 0
    assert reachability.outage == (NOW + 3, NOW + 5 + WAIT)


@pytest.mark.parametrize("gap", [3.5, -3.5], ids=["forward", "back"])
def test_a_pool_that_stood_still_or_whose_clock_was_set_was_away_too(gap: float) -> None:
    reachability = a_presence(0.0, 3.0, 3.0 + gap)
    assert reachability.wait(NOW + 3 + gap) == WAIT
    assert reachability.wait(NOW + 3 + gap + WAIT) == 0
    assert reachability.outage == (NOW + 3, NOW + 3 + gap + WAIT)


def test_an_outage_before_all_of_another_is_rescued_goes_on_with_it() -> None:
    reachability = a_presence(0.0)
    for back in (10.0, 20.0):
        reachability.fail()
        reachability.reached(NOW + back)
    assert reachability.outage == (NOW, NOW + 20 + WAIT)
    reachability.rescued_all()
    reachability.reached(NOW + 23)
    reachability.fail()
    reachability.reached(NOW + 24)
    assert reachability.outage == (NOW + 23, NOW + 24 + WAIT)


# A pool


@pytest.fixture
def brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HEARTBEAT_EVERY", "TUNE_EVERY", "RESCUE_EVERY", "RETRY_AFTER"):
        monkeypatch.setattr(upkeep, name, 0.05)


def of_another_pool(store: Store, lease: float) -> str:
    """Let a job be held by a pool that runs elsewhere; return its id."""
    store.heartbeat(PoolRecord("elsewhere", "host", 1, "code", 1.0, {"default": PoolQueue(1, 1, 0)}))
    spec = JobSpec(new_id(), do.name, f'[["{named(lambda: 1)}"],{{}}]', 99)
    store.add(queue().settings, [spec])
    (claimed,) = claim(store, pool="elsewhere", lease=lease)
    assert claimed.id == spec.id
    return spec.id


def an_outage_of_a_minute(store: Store) -> None:
    """Let nobody reach the store for a minute of its clock."""
    # A pool that has not looked yet cannot know what was before, and charges.
    until(lambda: trouble.done["heartbeat"] >= 2, "two looks that go through")
    trouble.break_down("claim", "settle", "renew", "heartbeat", "sync", "rescue", "prune")
    until(lambda: trouble.met["sync"] >= 2, "two looks that fail")
    clock = store.clock
    store.clock = lambda: clock() + 60
    trouble.clear()


@faulty
def test_who_is_back_first_leaves_the_others_time_to_renew(jobify: Configure, brisk: None) -> None:
    jobify(LEASE=600, WORKERS=1)
    store = queue().store
    other = of_another_pool(store, 30.0)
    with at_work() as shop:
        an_outage_of_a_minute(store)
        for _ in range(3):
            # Each heartbeat comes with all that is due.
            until(lambda: [pool for pool in store.pools() if pool.id == shop.pool.id], "a report")
            goal = trouble.done["heartbeat"] + 2
            until(lambda goal=goal: trouble.done["heartbeat"] >= goal, "another round of all chores")
            shop.turn()
        assert list(store.renew("elsewhere", {other: 1}, 600.0).lost) == []
    assert store.get([other])[other].history == ()


@faulty
def test_a_lease_that_ran_out_in_an_outage_is_rescued_and_not_charged(jobify: Configure, brisk: None) -> None:
    jobify(LEASE=1, WORKERS=2)
    store = queue().store
    other = of_another_pool(store, 30.0)
    with at_work():
        mine, gate = held()
        gate.reached()
        an_outage_of_a_minute(store)
        until(lambda: store.get([other])[other].attempt == 2, "the rescue")
        gate.open()
        mine.wait(timeout=PATIENCE)
    assert [one.charged for one in store.get([other])[other].history] == [False]
    assert store.get([other])[other].crashes == 0
    # The pool's own job was renewed in time, although its lease had run out a minute ago.
    assert (mine.record().attempt, mine.record().history) == (1, ())
