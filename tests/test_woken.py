"""Who waits is woken: tests in which nobody polls, so that no poll can stand in for a lost wake-up."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connections, transaction

from jobify_django import Job, JobStatus, queue, task
from jobify_django.job import Claim
from jobify_django.push.waits import PushWaits
from jobify_django.stores.base import Store
from jobify_django.testing.conformance.ground import outcome
from jobify_django.waiting.result import ResultWaits
from tests.child import PATIENCE, until
from tests.claims import claim, release
from tests.test_push_wait import Pushes
from tests.workshop import Configure, Workshop, at_work, awaiting, both, database, notice_nothing

NEVER = 3600.0
LONGER = 2 * PATIENCE
"""Seconds of a timeout that the test does not wait for: whoever gives up may look once more."""


@task
def note(value: int = 0) -> int:
    return value


@pytest.fixture(autouse=True)
def no_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pools, pushes and waits look again when they are told to, and not before."""
    monkeypatch.setattr("jobify_django.pool.turn.POLL", NEVER)
    for waits in (PushWaits, ResultWaits):
        for name in ("shortest_poll", "longest_poll"):
            monkeypatch.setattr(waits, name, NEVER)
    # Nor does what watches for the writes of other processes.
    notice_nothing(monkeypatch)


@pytest.fixture
def pushes() -> Any:
    made = Pushes()
    yield made
    made.finish()


def the_store() -> Store:
    return queue().store


def watched() -> int:
    return awaiting(the_store())


def start(lease: float = 60.0) -> Claim:
    (started,) = claim(the_store(), lease=lease)
    return started


def end(started: Claim, status: JobStatus = JobStatus.SUCCESSFUL) -> None:
    the_store().settle([outcome(started, status)])


# Room


ROOM: dict[str, Callable[[Job[Any]], object]] = {
    "a job starts": lambda job: start(),
    "a job is cancelled": lambda job: job.cancel(),
    "the queue is made longer": lambda job: queue().tune(maxsize=2),
}


@both
@pytest.mark.parametrize("how", ROOM)
def test_a_push_that_waits_is_woken_by_room(jobify: Configure, pushes: Pushes, how: str) -> None:
    jobify(MAXSIZE=1, PUSH_TIMEOUT=LONGER)
    first = note.push(0)
    pushes.start(lambda: note.push(1))
    ROOM[how](first)
    pushes.finish()
    assert not pushes.refused
    assert len(pushes.done) == 1


@both
def test_every_push_in_the_line_is_woken_in_its_turn(jobify: Configure, pushes: Pushes) -> None:
    """The one that got in wakes the next, which may find room too."""
    jobify(MAXSIZE=3, PUSH_TIMEOUT=LONGER)
    for value in range(3):
        note.push(value)
    for value in range(3, 6):
        pushes.start(lambda value=value: note.push(value))
    claims = claim(the_store(), 3)
    assert len(claims) == 3  # and one word of room for all three
    pushes.finish()
    assert not pushes.refused
    assert queue().stats().waiting == 3


# Ends


class Waits:
    """Waits on threads of their own."""

    def __init__(self) -> None:
        self.ended: list[Any] = []
        self._threads: list[threading.Thread] = []

    def start(self, job: Job[Any]) -> None:
        """Start a wait, and return once it is one of those who wait."""
        before = watched()

        def work() -> None:
            try:
                job.wait(timeout=LONGER)
                self.ended.append(job.id)
            finally:
                connections.close_all()

        thread = threading.Thread(target=work, daemon=True)
        self._threads.append(thread)
        thread.start()
        until(lambda: watched() == before + 1, "the wait")

    def finish(self) -> None:
        for thread in self._threads:
            thread.join(PATIENCE)
            assert not thread.is_alive(), "a wait was not woken"


ENDS: dict[str, Callable[[Job[Any]], object]] = {
    "succeeds": lambda job: end(start()),
    "fails": lambda job: end(start(), JobStatus.FAILED),
    "is cancelled": lambda job: job.cancel(),
}


@both
@pytest.mark.parametrize("how", ENDS)
def test_a_wait_is_woken_when_its_job(jobify: Configure, how: str) -> None:
    """Those who wait behind it are woken too, each by the end of its own job."""
    jobs = [note.push(value) for value in range(3)]
    waits = Waits()
    for job in jobs:
        waits.start(job)
    for job in jobs:
        ENDS[how](job)
    waits.finish()
    assert sorted(waits.ended) == sorted(job.id for job in jobs)


# Work


def failed_before() -> Job[Any]:
    job = note.push()
    end(start(), JobStatus.FAILED)
    return job


def at_another_pool() -> Job[Any]:
    job = note.push()
    start()
    return job


def left_behind() -> Job[Any]:
    job = note.push()
    start(lease=-1.0)
    return job


def while_paused() -> Job[Any]:
    queue().pause()
    return note.push()


def push_in_a_transaction(shop: Workshop) -> Job[Any]:
    with transaction.atomic():
        job = note.push()
        shop.turn()  # which sees nothing of it
    return job


WORK: dict[str, tuple[Callable[[], Job[Any] | None], Callable[[Any], Any]]] = {
    "is pushed": (lambda: None, lambda _: note.push()),
    "is retried": (failed_before, lambda job: the_store().retry([job.id])),
    "is released": (at_another_pool, lambda job: release(the_store(), [job.record()])),
    "is rescued": (left_behind, lambda _: the_store().rescue()),
    "is resumed": (while_paused, lambda _: queue().resume()),
}


@both
@pytest.mark.parametrize("how", WORK)
def test_an_idle_pool_is_woken_when_a_job(jobify: Configure, how: str) -> None:
    before, then = WORK[how]
    job = before()
    with at_work() as shop:
        shop.turn(3)  # it has looked, and found nothing to do
        done = then(job)
        job = job or done
        assert job is not None
        until(lambda: job.record().status is JobStatus.SUCCESSFUL, "the end of a job that nobody polls for")


@database
def test_an_idle_pool_is_woken_by_the_commit_of_a_push(jobify: Configure) -> None:
    with at_work() as shop:
        shop.turn(3)
        job = push_in_a_transaction(shop)
        until(lambda: job.record().status is JobStatus.SUCCESSFUL, "the end of a job that nobody polls for")
