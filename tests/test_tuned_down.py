"""Workers tuned down while a job waits, in a push, for room that only another worker could make."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from jobify_django import Job, JobStatus, queue
from jobify_django.pool import upkeep
from tests.child import PATIENCE, until
from tests.workshop import Configure, a_gate, at_work, both, do, held, named, pushed


def ended(job: Job[Any]) -> JobStatus:
    job.wait(timeout=PATIENCE)
    return job.status


@both
@pytest.mark.parametrize("kind", ["def", "async"])
def test_a_push_that_waits_without_a_worker_left_is_refused_and_the_queue_moves_on(
    jobify: Configure, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(upkeep, "TUNE_EVERY", 0.05)
    jobify(WORKERS=2, MAXSIZE=1)
    gate = a_gate()
    name = named(lambda: None)
    pushing = threading.Event()
    child = do.using(timeout=None)

    def push() -> None:
        gate.pass_through()
        pushing.set()
        child.push(name)

    async def apush() -> None:
        await gate.apass_through()
        pushing.set()
        await child.apush(name)

    with at_work() as shop:
        parent = pushed(push if kind == "def" else apush)
        gate.reached()
        other, worker = held()
        worker.reached()
        waiting = pushed(lambda: "moved on")
        gate.open()
        running = shop.pool.completer.running(parent.id)
        assert running is not None
        until(lambda: running.waits, "the push's wait")
        queue().tune(workers=1)
        until(lambda: shop.pool.slots["default"].size == 1, "the new size")
        assert ended(parent) is JobStatus.FAILED
        worker.open()
        assert ended(other) is JobStatus.SUCCESSFUL
        assert ended(waiting) is JobStatus.SUCCESSFUL

    assert parent.error is not None
    assert parent.error.type.endswith("QueueFull")
    assert "no worker of this queue is left here" in parent.error.message


@both
def test_a_push_that_waits_while_a_worker_is_left_goes_on(
    jobify: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobify_django.push.admission.CHECK_WORKERS_EVERY", 0.01)
    monkeypatch.setattr(upkeep, "TUNE_EVERY", 0.05)
    jobify(WORKERS=3, MAXSIZE=1)
    gate = a_gate()
    name = named(lambda: None)

    def push() -> None:
        gate.pass_through()
        do.using(timeout=None).push(name)

    with at_work() as shop:
        parent = pushed(push)
        gate.reached()
        pairs = []
        for _ in range(2):  # one after the other: there is one place
            pairs.append(held())
            pairs[-1][1].reached()
        waiting = pushed(lambda: None)
        gate.open()
        running = shop.pool.completer.running(parent.id)
        assert running is not None
        until(lambda: running.waits, "the push's wait")
        queue().tune(workers=2)
        until(lambda: shop.pool.slots["default"].size == 2, "the new size")
        shop.turn(3)
        for job, worker in pairs:
            worker.open()
            assert ended(job) is JobStatus.SUCCESSFUL
        assert {ended(waiting), ended(parent)} == {JobStatus.SUCCESSFUL}
