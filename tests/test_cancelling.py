"""A running ``async def`` that is told to end: once for each reason."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from jobify_django import Job, JobStatus, queue
from jobify_django.pool import upkeep
from tests.child import PATIENCE, until
from tests.claims import release
from tests.workshop import Configure, Workshop, a_gate, at_work, both, pushed


@pytest.fixture
def brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chores that come round soon."""
    for name in ("HEARTBEAT_EVERY", "TUNE_EVERY", "RESCUE_EVERY", "RETRY_AFTER"):
        monkeypatch.setattr(upkeep, name, 0.05)


class Slow:
    """An ``async def`` that takes its time to end once it is cancelled, and counts how often it is."""

    def __init__(self) -> None:
        self.began, self.cleanup = a_gate(), a_gate()
        self.cancelled: list[threading.Event] = [threading.Event() for _ in range(5)]
        self.times = 0

    async def run(self) -> None:
        try:
            await self._wait(self.began.apass_through)
        finally:
            await self._wait(self.cleanup.apass_through)

    async def _wait(self, gate: Any) -> None:
        try:
            await gate()
        except asyncio.CancelledError:
            self.cancelled[self.times].set()
            self.times += 1
            raise


def record(job: Job[Any]) -> Any:
    return queue().store.get([job.id])[job.id]


def looks(shop: Workshop, verb: str, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Return what the pool's store answers to this verb from now on."""
    answers: list[Any] = []
    work = getattr(shop.pool.store, verb)

    def note(*given: Any, **named: Any) -> Any:
        answer = work(*given, **named)
        answers.append(answer)
        return answer

    monkeypatch.setattr(shop.pool.store, verb, note)
    return answers


@both
def test_a_job_that_ends_slowly_is_cancelled_once_however_often_the_wish_is_seen(
    jobify: Configure, brisk: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobify(LEASE=1)
    slow = Slow()
    with at_work() as shop:
        job = pushed(slow.run)
        slow.began.reached()
        assert job.cancel()
        slow.cleanup.reached()
        cancels = looks(shop, "sync", monkeypatch)
        renewals = looks(shop, "renew", monkeypatch)
        until(lambda: len(cancels) >= 3 and len(renewals) >= 2, "more looks at the wish")
        assert all(job.id in answer.cancel_requested for answer in cancels)
        slow.cleanup.open()
        job.wait(timeout=PATIENCE)
    assert job.status is JobStatus.CANCELLED
    assert slow.times == 1


@both
def test_a_stopping_pool_cancels_a_job_once_more_that_does_not_end(jobify: Configure, brisk: None) -> None:
    slow = Slow()
    with at_work(grace=0):
        job = pushed(slow.run)
        slow.began.reached()
        assert job.cancel()
        slow.cleanup.reached()
    assert slow.cancelled[1].is_set()
    assert slow.times == 2


@both
def test_a_job_that_was_cancelled_and_is_then_lost_is_reported_lost_once(
    jobify: Configure, brisk: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    jobify(LEASE=1, WORKERS=1)
    slow = Slow()
    with at_work() as shop:
        job = pushed(slow.run)
        slow.began.reached()
        assert job.cancel()
        slow.cleanup.reached()
        # It does not end at its second cancellation either.
        stubborn = shop.pool.completer.running(job.id)
        assert stubborn is not None
        stubborn.task = None
        queue().pause()
        release(queue().store, [job.record()], shop.pool.id, "a test took it")
        until(lambda: f"event=lost id={job.id}" in caplog.text, "the report")
        renewals = looks(shop, "renew", monkeypatch)
        until(lambda: len(renewals) >= 2, "more renewals")
        slow.cleanup.open()
    assert caplog.text.count("event=lost") == 1
