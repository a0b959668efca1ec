"""``until_idle``: it returns once nothing is left that the process could run, and says what is left."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest

from jobify_django import Job, JobStatus, queue, task
from jobify_django.conf import get_settings
from jobify_django.job import Claim, JobSpec, new_id
from jobify_django.outcome import succeeded
from jobify_django.pool import idle_check
from jobify_django.stores.base import Store
from jobify_django.stores.value import Demand
from tests.child import PATIENCE, until
from tests.claims import claim
from tests.workshop import Configure, Workshop, a_gate, at_work, both, database, faulty, held, pushed, trouble


@task
def note() -> None: ...


def the_store() -> Store:
    return queue().store


def end_of(shop: Workshop) -> Future[Any]:
    """Ask the service for the end of its work."""
    return asyncio.run_coroutine_threadsafe(shop.service.until_idle(), shop.loop)


def left_of(shop: Workshop) -> list[tuple[str, int, str]]:
    return [tuple(one) for one in end_of(shop).result(PATIENCE)]


def ended(job: Job[Any]) -> JobStatus:
    job.wait(timeout=PATIENCE)
    return job.status


def push_unknown(*names: str) -> None:
    specs = [JobSpec(new_id(), name, "[[],{}]") for name in names]
    the_store().add(get_settings().queue("default"), specs)


def held_by_another() -> Claim:
    """Let another pool hold the only place of ``MAX_RUNNING``."""
    note.push()
    (claimed,) = claim(the_store(), pool="another-pool", lease=600.0, max_running=1)
    return claimed


@both
def test_nothing_is_left_of_what_could_be_run(jobify: Configure) -> None:
    jobs = [pushed(lambda: None) for _ in range(3)]
    note.using(delay=3600).push()  # not due, so not left
    with at_work() as shop:
        assert left_of(shop) == []
        assert {ended(job) for job in jobs} == {JobStatus.SUCCESSFUL}
        later = pushed(lambda: None)
        assert left_of(shop) == []
        assert ended(later) is JobStatus.SUCCESSFUL


@both
def test_jobs_of_a_paused_queue_are_left(jobify: Configure) -> None:
    jobify(QUEUES={"default": {}, "mail": {}})
    note.push_many([()] * 2)
    other = pushed(lambda: None, queue="mail")
    queue().pause()
    with at_work() as shop:
        assert left_of(shop) == [("default", 2, "the queue is paused")]
        assert ended(other) is JobStatus.SUCCESSFUL


@both
def test_jobs_of_tasks_that_are_not_known_here_are_left(jobify: Configure) -> None:
    push_unknown("old.one", "old.two", "old.one")
    known = pushed(lambda: None)
    with at_work() as shop:
        assert left_of(shop) == [
            ("default", 3, "no task of this name is registered here: 'old.one', 'old.two'")
        ]
        assert ended(known) is JobStatus.SUCCESSFUL


@both
def test_jobs_behind_the_max_running_of_another_pool_are_waited_for(
    jobify: Configure, caplog: pytest.LogCaptureFixture
) -> None:
    jobify(MAX_RUNNING=1)
    caplog.set_level("INFO")
    held = held_by_another()
    job = pushed(lambda: None)
    with at_work() as shop:
        end = end_of(shop)
        until(lambda: "event=waits-for-others queue=default jobs=1 max_running=1" in caplog.text)
        shop.turn(3)
        assert not end.done()
        assert caplog.text.count("event=waits-for-others") == 1
        the_store().settle([succeeded(held)])
        assert end.result(PATIENCE) == []
        assert ended(job) is JobStatus.SUCCESSFUL


@both
def test_a_job_that_could_not_be_claimed_for_long_is_left(
    jobify: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as one whose row somebody has locked."""
    monkeypatch.setattr(idle_check, "UNCLAIMED_FOR", 0.0)
    note.push()
    claims = the_store().claim

    def pass_over(demand: Demand, outcomes: Any = ()) -> Any:
        lanes = {name: lane._replace(want=0) for name, lane in demand.lanes.items()}
        return claims(demand._replace(lanes=lanes), outcomes)

    monkeypatch.setattr(the_store(), "claim", pass_over)
    with at_work() as shop:
        assert left_of(shop) == [("default", 1, "no worker here could claim them")]


@faulty
def test_a_store_that_is_away_is_not_taken_for_an_empty_one(jobify: Configure) -> None:
    trouble.break_down("stats")
    queue().pause()
    note.push()
    with at_work() as shop:
        end = end_of(shop)
        until(lambda: trouble.met["stats"], "the look at what is left")
        assert not end.done()
        trouble.clear()
        assert [left.jobs for left in end.result(PATIENCE)] == [1]


@database
def test_a_job_of_one_store_that_pushes_into_another_is_no_end_of_the_work(jobify: Configure) -> None:
    jobify(QUEUES={"default": {}, "quick": {"STORE": "memory"}})
    first, second = a_gate(), a_gate()

    def push_on() -> None:
        first.pass_through()
        pushed(second.pass_through)

    with at_work() as shop:
        pools = {pool.store.alias: pool for pool in shop.service.pools}
        pushed(push_on, queue="quick")
        first.reached()
        end = end_of(shop)
        turn(pools["database"].turns, lambda: pools["database"].turns)
        first.open()
        second.reached()
        for pool in pools.values():
            pool.wake()
            turn(pool.turns, lambda pool=pool: pool.turns)
        assert not end.done()
        second.open()
        assert end.result(PATIENCE) == []


def turn(before: int, now: Callable[[], int]) -> None:
    until(lambda: now() > before + 1, "its turns")


@both
def test_a_budget_that_is_used_up_leaves_nothing_to_say(jobify: Configure) -> None:
    note.push_many([()] * 3)
    with at_work(max_jobs=2) as shop:
        assert left_of(shop) == []
        assert queue().stats().waiting == 1


@both
def test_a_running_job_is_waited_for(jobify: Configure) -> None:
    _, gate = held()
    with at_work() as shop:
        gate.reached()
        end = end_of(shop)
        shop.turn()
        assert not end.done()
        gate.open()
        assert end.result(PATIENCE) == []
