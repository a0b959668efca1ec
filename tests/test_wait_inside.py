"""Waiting for a job from inside a job: an error at once where nobody is left to run it."""

from __future__ import annotations

from typing import Any

import pytest

from jobify_django import queue
from jobify_django.exceptions import WaitDeadlock
from jobify_django.stores.value import PoolQueue, PoolRecord
from tests.child import PATIENCE
from tests.workshop import Configure, at_work, both, held, pushed


def leaf() -> str:
    return "done"


def waits_for_a_child() -> str:
    child = pushed(leaf)
    try:
        child.wait(timeout=PATIENCE)
    except WaitDeadlock as error:
        return str(error)
    return str(child.result())


async def awaits_a_child() -> str:
    child = await pushed(leaf)
    try:
        return str(await child)
    except WaitDeadlock as error:
        return str(error)


def outcome(job: Any) -> str:
    job.wait(timeout=PATIENCE)
    return str(job.result())


every_kind = pytest.mark.parametrize("parent", [waits_for_a_child, awaits_a_child], ids=["def", "async def"])


@both
@every_kind
def test_a_job_that_waits_for_one_nobody_else_could_run_gets_an_error(jobify: Configure, parent: Any) -> None:
    jobify(WORKERS=1)
    with at_work():
        assert "every worker that serves it is taken by a job that waits" in outcome(pushed(parent))


@both
@every_kind
def test_a_job_waits_for_another_while_a_worker_is_left(jobify: Configure, parent: Any) -> None:
    jobify(WORKERS=2)
    with at_work():
        assert outcome(pushed(parent)) == "done"


@both
@every_kind
def test_a_chain_of_jobs_ends_where_no_worker_is_left(jobify: Configure, parent: Any) -> None:
    jobify(WORKERS=2)

    def first() -> str:
        return outcome(pushed(parent))

    with at_work():
        assert "every worker that serves it is taken" in outcome(pushed(first))


@both
def test_a_job_waits_for_one_that_has_ended_or_runs(jobify: Configure) -> None:
    jobify(WORKERS=2)
    running, gate = held()

    def parent() -> str:
        gate.open()
        return str(running.wait(timeout=PATIENCE))

    with at_work():
        gate.reached()
        assert outcome(pushed(parent)) == "None"
    jobify(WORKERS=1)
    ended = pushed(leaf)
    with at_work():
        ended.wait(timeout=PATIENCE)
        assert outcome(pushed(lambda: outcome(ended))) == "done"


@both
def test_a_job_waits_for_another_that_another_pool_could_run(
    jobify: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobify(WORKERS=1)
    store = queue().store
    other = PoolRecord("another", "elsewhere", 1, "code", 0.0, {"default": PoolQueue(1, 0, 0)})
    real = store.pools
    monkeypatch.setattr(store, "pools", lambda: [*real(), other])

    def parent() -> str:
        child = pushed(leaf)
        try:
            child.wait(timeout=0.01)
        except WaitDeadlock:
            return "refused"
        except TimeoutError:
            return "waited"
        return "ended"

    with at_work():
        assert outcome(pushed(parent)) == "waited"
