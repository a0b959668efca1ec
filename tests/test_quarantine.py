"""Jobs that ran when a process died are tried one at a time, and hold up nobody for long."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from jobify_django import Job, JobStatus, queue
from jobify_django.job import Claim
from jobify_django.pool import idle_check, quarantine
from jobify_django.pool.quarantine import CHECK_AGAIN, QUARANTINE, QuarantineRule
from jobify_django.pool.slots import ProcessSlots, Slots
from jobify_django.runtime import MACHINE
from jobify_django.testing import FakeClock
from jobify_django.testing.conformance.ground import a_queue
from tests.child import PATIENCE, until
from tests.claims import claim, die
from tests.workshop import Configure, Gate, at_work, both, database, do, held, pushed

HOUR = 3600.0


def in_quarantine(deaths: int = 1, **using: Any) -> tuple[Job[Any], Gate]:
    """Push a job that waits at a gate, and let so many pools die while they run it."""
    job, gate = held(**using)
    store = queue(using.get("queue", "default")).store
    for death in range(deaths):
        (claimed,) = die(store, queue=job.queue, quarantine="alone" if death else "skip")
        assert claimed.id == job.id
        store.rescue()
    return job, gate


def ended(job: Job[Any]) -> JobStatus:
    job.wait(timeout=PATIENCE)
    return job.status


@pytest.fixture
def endless(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """No quarantine is over before a test says so."""
    monkeypatch.setattr(quarantine, "QUARANTINE", HOUR)
    return monkeypatch


@both
def test_a_job_in_quarantine_runs_alone_until_it_ends(jobify: Configure, endless: pytest.MonkeyPatch) -> None:
    unproven, gate = in_quarantine(priority=5)
    another, second = in_quarantine(priority=4)
    fresh, third = held()
    with at_work() as shop:
        gate.reached()
        shop.turn(5)
        assert not second.began.is_set()
        assert not third.began.is_set()
        gate.open()
        second.reached()
        shop.turn(5)
        assert not third.began.is_set()
        second.open()
        third.open()
        assert {ended(job) for job in (unproven, another, fresh)} == {JobStatus.SUCCESSFUL}


@both
def test_a_job_in_quarantine_that_has_run_for_a_while_runs_beside_others(
    jobify: Configure, endless: pytest.MonkeyPatch
) -> None:
    _, gate = in_quarantine()
    fresh = pushed(lambda: None)
    with at_work():
        gate.reached()
        endless.setattr(quarantine, "QUARANTINE", 0.0)
        assert ended(fresh) is JobStatus.SUCCESSFUL


@both
def test_a_job_in_quarantine_waits_for_what_has_just_started_and_what_is_behind_it_waits_too(
    jobify: Configure, endless: pytest.MonkeyPatch
) -> None:
    unproven, gate = in_quarantine()
    _, first = held(priority=5)
    with at_work() as shop:
        first.reached()
        fresh = pushed(lambda: None, priority=-5)
        shop.turn(5)
        assert not gate.began.is_set()
        fresh.refresh()
        assert fresh.status is JobStatus.WAITING
        first.open()
        gate.reached()
        gate.open()
        assert ended(unproven) is ended(fresh) is JobStatus.SUCCESSFUL


@both
def test_a_job_in_quarantine_starts_beside_what_has_run_for_a_while(
    jobify: Configure, endless: pytest.MonkeyPatch
) -> None:
    _, gate = in_quarantine()
    _, first = held(priority=5)
    with at_work():
        first.reached()
        endless.setattr(quarantine, "QUARANTINE", 0.0)
        gate.reached()


@both
def test_a_job_that_goes_before_a_job_in_quarantine_is_not_held_up_by_it(
    jobify: Configure, endless: pytest.MonkeyPatch
) -> None:
    _, gate = in_quarantine()
    _, first = held(priority=5)
    with at_work() as shop:
        first.reached()
        shop.turn(5)
        assert ended(pushed(lambda: None, priority=1)) is JobStatus.SUCCESSFUL
        assert not gate.began.is_set()


@both
def test_a_pool_goes_on_when_another_one_has_taken_the_job_in_quarantine(
    jobify: Configure, endless: pytest.MonkeyPatch
) -> None:
    unproven, _ = in_quarantine()
    _, first = held(priority=5)
    with at_work() as shop:
        first.reached()
        fresh = pushed(lambda: None, priority=-5)
        shop.turn(5)
        (claimed,) = claim(queue().store, pool="another-pool", lease=HOUR)
        assert claimed.id == unproven.id
        assert ended(fresh) is JobStatus.SUCCESSFUL


@both
def test_no_job_in_quarantine_starts_beside_one_that_may_crash_no_more(
    jobify: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quarantine, "QUARANTINE", 0.0)
    _, gate = in_quarantine(deaths=2)
    unproven, second = in_quarantine(priority=-1)
    with at_work() as shop:
        gate.reached()
        assert ended(pushed(lambda: None, priority=-5)) is JobStatus.SUCCESSFUL
        shop.turn(5)
        assert not second.began.is_set()
        gate.open()
        second.open()
        assert ended(unproven) is JobStatus.SUCCESSFUL


@database
def test_a_job_in_quarantine_has_the_process_for_itself_whatever_its_store(
    jobify: Configure, endless: pytest.MonkeyPatch
) -> None:
    jobify(QUEUES={"quick": {"STORE": "memory"}})
    _, gate = in_quarantine()
    with at_work() as shop:
        gate.reached()
        fresh = pushed(lambda: None, queue="quick")
        pools = {pool.store.alias: pool for pool in shop.service.pools}
        turns = pools["memory"].turns
        until(lambda: pools["memory"].turns > turns + 1, "its turns")
        fresh.refresh()
        assert fresh.status is JobStatus.WAITING
        gate.open()
        assert ended(fresh) is JobStatus.SUCCESSFUL


@database
def test_a_queue_with_a_job_in_quarantine_that_has_to_wait_is_not_dry(
    jobify: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quarantine, "QUARANTINE", 0.0)
    monkeypatch.setattr(idle_check, "UNCLAIMED_FOR", 0.0)
    jobify(QUEUES={"quick": {"STORE": "memory"}})
    _, gate = in_quarantine(deaths=2, queue="quick")
    unproven, second = in_quarantine()
    queue().pause()
    with at_work() as shop:
        gate.reached()
        pool = next(pool for pool in shop.service.pools if pool.store.alias == "database")
        # Not in the middle of a turn that began before.
        turns = pool.turns
        until(lambda: pool.turns > turns + 1, "turns beside that job")
        queue().resume()
        turns = pool.turns
        dry = asyncio.run_coroutine_threadsafe(pool.until_idle(), shop.loop)
        until(lambda: pool.turns > turns + 2, "its turns")
        assert not dry.done()
        assert not second.began.is_set()
        gate.open()
        second.open()
        assert ended(unproven) is JobStatus.SUCCESSFUL
        assert dry.result(PATIENCE) == []


# When, to the second


@pytest.fixture
def clock() -> FakeClock:
    """The clock that processes measure their own time on."""
    return FakeClock(0.0)


def a_process(clock: FakeClock) -> tuple[QuarantineRule, Slots]:
    """Return the rule of a process with one queue, and its slots."""
    of_process = ProcessSlots(replace(MACHINE, monotonic=clock))
    made = Slots(a_queue(), 10, of_process)
    return QuarantineRule(of_process), made


def start(slots: Slots, crashes: int = 0) -> None:
    """Let a job start now."""
    slots.take(Claim("id", 1, "default", "app.tasks.a", "[[],{}]", 0, 0.0, 0.0, 0.0, crashes), do)


def test_nothing_starts_for_as_long_as_a_quarantine_takes(clock: FakeClock) -> None:
    process, slots = a_process(clock)
    start(slots)
    assert process.seconds_alone == 0
    start(slots, crashes=1)
    assert process.seconds_alone == QUARANTINE
    clock.advance(QUARANTINE - 1)
    assert process.seconds_alone == 1
    clock.advance(1)
    assert process.seconds_alone == 0
    assert process.choice == "alone"


def test_a_job_in_quarantine_waits_until_the_newest_job_has_run_for_as_long_as_a_quarantine_takes(
    clock: FakeClock,
) -> None:
    process, slots = a_process(clock)
    assert process.choice == "alone"
    start(slots)
    clock.advance(QUARANTINE - 1)
    start(slots)
    clock.advance(1)
    assert process.choice == "defer"
    clock.advance(QUARANTINE - 1)
    assert process.choice == "alone"


def test_a_job_in_quarantine_does_not_wait_for_ever_for_jobs_that_keep_starting(clock: FakeClock) -> None:
    process, slots = a_process(clock)
    for _ in range(3):
        start(slots)
        clock.advance(QUARANTINE / 3)
        assert process.choice == "defer"
        process.note_deferred()
    start(slots)
    clock.advance(QUARANTINE / 3)
    assert process.choice == "alone"


def test_how_long_one_job_in_quarantine_has_waited_says_nothing_of_a_later_one(clock: FakeClock) -> None:
    process, slots = a_process(clock)
    process.note_deferred()
    clock.advance(QUARANTINE + CHECK_AGAIN)
    start(slots)
    assert process.choice == "defer"
    process.note_deferred()
    assert process.choice == "defer"
