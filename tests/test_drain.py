"""A pool that is told to stop while its claim is under way."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from jobify_django import JobStatus
from jobify_django.pool.phase import Phase
from jobify_django.stores import stores
from jobify_django.stores.memory import MemoryStore
from jobify_django.stores.value import Claimed
from tests.child import PATIENCE, until
from tests.workshop import Configure, Gate, a_gate, at_work, pushed

gates: list[Gate] = []


class SlowMemory(MemoryStore):
    """The memory store as one across a network: what has been claimed takes a while to come."""

    blocking = True

    def claim(self, *args: Any, **kwargs: Any) -> Claimed:
        claimed = super().claim(*args, **kwargs)
        if claimed.claims and gates:
            gates.pop().pass_through()
        return claimed


slow = pytest.mark.parametrize("jobify", ["tests.test_drain.SlowMemory"], indirect=True)


@pytest.fixture
def gate() -> Any:
    gates.append(a_gate())
    yield gates[0]
    gates.clear()


def status(id: str) -> JobStatus:
    return stores["tests.test_drain.SlowMemory"].get([id])[id].status


@slow
@pytest.mark.parametrize("kind", ["def", "async"])
def test_what_a_claim_brings_after_the_stop_has_the_grace(jobify: Configure, gate: Gate, kind: str) -> None:
    jobify()
    ran = threading.Event()

    async def arun() -> None:
        ran.set()

    with at_work(grace=PATIENCE) as shop:
        job = pushed(arun if kind == "async" else ran.set)
        gate.reached()
        stopping = asyncio.run_coroutine_threadsafe(shop.service.drain(PATIENCE), shop.loop)
        until(lambda: shop.pool.phase >= Phase.DRAINING, "the drain")
        gate.open()
        assert stopping.result(PATIENCE) == []

    assert ran.is_set()
    assert status(job.id) is JobStatus.SUCCESSFUL


@slow
@pytest.mark.parametrize("kind", ["def", "async"])
def test_what_a_claim_brings_after_the_grace_is_handed_back_unrun(
    jobify: Configure, gate: Gate, kind: str
) -> None:
    jobify()
    ran = threading.Event()

    async def arun() -> None:
        ran.set()

    with at_work(grace=PATIENCE) as shop:
        job = pushed(arun if kind == "async" else ran.set)
        gate.reached()
        stopping = asyncio.run_coroutine_threadsafe(shop.service.drain(0), shop.loop)
        until(lambda: shop.pool.phase >= Phase.RELEASING, "the end of the grace")
        gate.open()
        assert stopping.result(PATIENCE) == [job.id]

    assert not ran.is_set()
    assert status(job.id) is JobStatus.WAITING
