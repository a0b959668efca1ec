"""How long a pool rests that has nothing to do: long while it is told of changes, and short otherwise."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from types import SimpleNamespace

import pytest

from jobify_django import queue
from jobify_django.management import heartbeat
from jobify_django.management.heartbeat import Heartbeat
from jobify_django.pool import turn
from jobify_django.pool.turn import POLL, POLL_WHILE_HEARING
from jobify_django.runtime import MACHINE
from jobify_django.stores.base import Store
from tests.child import PATIENCE, until
from tests.claims import claim
from tests.workshop import Configure, at_work, database, do, named, notice_nothing, pushed


class Rests:
    """How long the claim loop was ready to wait, each time: what its thread's waits were given."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def event(self) -> threading.Event:
        rests = self.seconds

        class Noted(threading.Event):
            def wait(self, timeout: float | None = None) -> bool:
                if threading.current_thread().name == "jobify-pool" and timeout is not None:
                    rests.append(timeout)
                return super().wait(timeout)

        return Noted()

    def last(self) -> float:
        return max(self.seconds[-2:], default=0.0)  # beside it there is the moment in which it gathers


@pytest.fixture
def rests(jobify: Configure) -> Rests:
    rests = Rests()
    jobify.run_on(replace(MACHINE, event=rests.event))
    return rests


def hearing(monkeypatch: pytest.MonkeyPatch, *, hears: bool) -> None:
    monkeypatch.setattr(Store, "hears", property(lambda store: hears))


@database
def test_a_pool_that_is_told_of_changes_looks_rarely(
    jobify: Configure, rests: Rests, monkeypatch: pytest.MonkeyPatch
) -> None:
    hearing(monkeypatch, hears=True)
    with at_work():
        until(lambda: rests.last() == POLL_WHILE_HEARING, "a long rest")
        job = pushed(lambda: None)
        job.wait(timeout=PATIENCE)
        until(lambda: rests.last() == POLL_WHILE_HEARING, "another long rest")


@database
def test_a_pool_that_is_told_of_nothing_looks_each_second(
    jobify: Configure, rests: Rests, monkeypatch: pytest.MonkeyPatch
) -> None:
    notice_nothing(monkeypatch)
    with at_work() as shop:
        shop.turn(3)
        until(lambda: rests.last() == POLL, "a rest")
    assert max(rests.seconds) == POLL


@database
def test_a_pool_that_may_not_start_what_waits_looks_each_second(
    jobify: Configure, rests: Rests, monkeypatch: pytest.MonkeyPatch
) -> None:
    hearing(monkeypatch, hears=True)
    jobify(QUEUES={"default": {"MAX_RUNNING": 1}})
    do.push(named(lambda: None))
    (elsewhere,) = claim(queue().store, max_running=1)
    do.push(named(lambda: None))
    with at_work() as shop:
        shop.turn(3)
        until(lambda: rests.last() == POLL, "a rest")
    assert max(rests.seconds) == POLL
    assert elsewhere.attempt == 1


@database
def test_a_long_rest_ends_when_a_delayed_job_is_due(
    jobify: Configure, rests: Rests, monkeypatch: pytest.MonkeyPatch
) -> None:
    hearing(monkeypatch, hears=True)
    monkeypatch.setattr(turn, "POLL_WHILE_HEARING", 600.0)
    pushed(lambda: None, delay=300.0)
    with at_work() as shop:
        # Both at once: a turn that comes between, woken by the push's own notification, is no rest.
        until(lambda: 200.0 < rests.last() <= 300.0 and shop.pool.rests, "a rest until it is due")


class Shown(Heartbeat):
    def __init__(self) -> None:
        self.times = 0

    def show(self) -> None:
        self.times += 1

    def end(self) -> None:
        pass


@pytest.mark.parametrize(("rests_now", "shown"), [(True, True), (False, False)], ids=["rests", "hangs"])
def test_a_pool_that_rests_shows_its_heartbeat_and_one_that_hangs_does_not(
    monkeypatch: pytest.MonkeyPatch, rests_now: bool, shown: bool
) -> None:
    monkeypatch.setattr(heartbeat, "EVERY", 0.0)
    sign = Shown()

    class Pool:
        turns = 7
        rests = rests_now

    async def look() -> None:
        task = asyncio.create_task(sign.show_while_turning(SimpleNamespace(pools=[Pool()])))  # type: ignore[arg-type]
        for _ in range(20):  # each turn of the loop is one look
            await asyncio.sleep(0)
        task.cancel()

    asyncio.run(look())
    assert (sign.times > 1) == shown
