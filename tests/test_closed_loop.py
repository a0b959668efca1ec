"""A pool whose event loop is closed hands back what it cannot start, and nothing raises."""

from __future__ import annotations

import asyncio

import pytest

from jobify_django import task
from jobify_django.job import JobSpec, JobStatus
from jobify_django.pool.claim_loop import ThreadClaimLoop
from jobify_django.pool.loop import call_on_loop
from jobify_django.pool.pool import Pool
from jobify_django.stores.memory import MemoryStore
from jobify_django.testing.conformance.ground import a_queue
from tests.workshop import elsewhere


@task
async def on_the_loop() -> None:
    raise AssertionError("its loop is closed")


class Unstarted(ThreadClaimLoop):
    """A claim loop whose turns the test makes itself."""

    def start(self) -> None:
        pass

    def wake(self) -> None:
        pass


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> Pool:
    """A pool that was started on a loop that is closed now, and that claims on another thread than its."""
    monkeypatch.setattr("jobify_django.pool.pool.ThreadClaimLoop", Unstarted)
    monkeypatch.setattr("jobify_django.pool.pool.AsyncClaimLoop", Unstarted)
    monkeypatch.setattr("jobify_django.pool.upkeep.Upkeep.start", lambda upkeep, loop: None)
    pool = Pool(MemoryStore("memory"), [a_queue()])
    elsewhere(lambda: asyncio.run(pool.start()))
    return pool


def test_a_pool_can_be_hurried_after_its_loop_was_closed(pool: Pool) -> None:
    pool.release_now()

    assert pool.loop.is_closed()  # so the call raised nothing, and there was nobody to tell


def test_jobs_claimed_for_a_closed_loop_are_handed_back_and_no_more_are_claimed(pool: Pool) -> None:
    pool.store.add(a_queue(), [JobSpec("a", on_the_loop.name, "[[],{}]")])

    pool.step()
    pool.step()

    record = pool.store.get(["a"])["a"]
    assert record.status is JobStatus.WAITING
    assert (record.attempt, record.crashes) == (1, 0)
    assert pool.completer.empty
    assert pool.slots["default"].busy == 0


def test_what_goes_wrong_with_an_open_loop_is_not_hidden() -> None:
    class Broken(asyncio.SelectorEventLoop):
        def call_soon_threadsafe(self, *arguments: object, **options: object) -> asyncio.Handle:
            raise RuntimeError("out of order")

    loop = Broken()
    try:
        with pytest.raises(RuntimeError, match="out of order"):
            call_on_loop(loop, print)
    finally:
        loop.close()
    assert call_on_loop(loop, print) is False
