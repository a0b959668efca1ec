"""What a push and a job cost, counted and not timed: nothing may cost more than ``MOST`` says."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from django.db import connection, connections

from jobify_django import Job, QueueFull, queue, task
from jobify_django.outcome import succeeded
from jobify_django.pool import serving
from jobify_django.pool.workers import EAGER
from jobify_django.runtime import MACHINE
from jobify_django.stores.base import Store
from jobify_django.stores.database import listener, server, watermark
from jobify_django.stores.value import Demand, Lane, PoolQueue, PoolRecord
from jobify_django.waiting.result import ResultWaits
from tests.child import PATIENCE, until
from tests.claims import POOL
from tests.cost import Cost, Meter, metered
from tests.workshop import Configure, at_work, database, elsewhere, memory, notice_nothing

MOST: dict[str, dict[str, Cost]] = {
    # Statements, round trips, transactions. Who makes something cheaper writes the new figures here.
    "postgresql": {
        "push": Cost(6, 1, 1),
        "push that takes the last place": Cost(11, 2, 2),
        "push to a full queue": Cost(16, 2, 2),
        "push_many of 500": Cost(6, 1, 1),
        "claim of nothing": Cost(8, 1, 1),
        "a lone job: push, claim, end": Cost(24, 5, 5),
        "10 end, 10 start": Cost(9, 3, 3),
        "100 end, 100 start": Cost(9, 3, 3),
        "a look at an end": Cost(1, 1, 1),
        "a lone job, awaited": Cost(31, 12, 12),
        "heartbeat": Cost(1, 1, 1),
        "an idle minute": Cost(60, 60, 60),
        "an idle minute, told of nothing": Cost(120, 120, 120),
    },
    "mysql": {
        "push": Cost(8, 8, 1),
        "push that takes the last place": Cost(8, 8, 1),
        "push to a full queue": Cost(12, 12, 2),
        "push_many of 500": Cost(8, 8, 1),
        "claim of nothing": Cost(1, 1, 1),
        "a lone job: push, claim, end": Cost(19, 19, 4),
        "10 end, 10 start": Cost(16, 16, 1),
        "100 end, 100 start": Cost(106, 106, 1),
        "a look at an end": Cost(1, 1, 1),
        "a lone job, awaited": Cost(30, 30, 11),
        "heartbeat": Cost(2, 2, 2),
        "an idle minute, told of nothing": Cost(160, 160, 160),
    },
    "sqlite": {
        "push": Cost(5, 0, 1),
        "push that takes the last place": Cost(4, 0, 1),
        "push to a full queue": Cost(6, 0, 2),
        "push_many of 500": Cost(504, 0, 1),
        "claim of nothing": Cost(1, 0, 0),
        "a lone job: push, claim, end": Cost(14, 0, 3),
        "10 end, 10 start": Cost(6, 0, 1),
        "100 end, 100 start": Cost(6, 0, 1),
        "a look at an end": Cost(1, 0, 0),
        "a lone job, awaited": Cost(20, 0, 3),
        "heartbeat": Cost(4, 0, 1),
        "an idle minute": Cost(300, 0, 45),
        "an idle minute, told of nothing": Cost(400, 0, 45),
    },
}
SPEED = 20
"""How many times faster a pool's time goes while an idle minute is counted."""


@task
def note(value: int = 0) -> None: ...


@pytest.fixture
def meter(jobify: Configure, monkeypatch: pytest.MonkeyPatch) -> Iterator[Meter]:
    """A meter, while nothing is left out for it was done a moment ago, or done for it was long ago."""
    notice_nothing(monkeypatch)
    monkeypatch.setattr(listener, "DEBOUNCE", 0.0)
    monkeypatch.setattr(watermark, "SLOW", PATIENCE)
    monkeypatch.setattr(server, "MEASURE_EVERY", 3600.0)
    monkeypatch.setattr(ResultWaits, "shortest_poll", PATIENCE)
    monkeypatch.setattr(ResultWaits, "longest_poll", PATIENCE)
    with metered() as meter:
        yield meter


def the_store() -> Store:
    return queue().store


def push(jobs: int = 1) -> Job[Any]:
    for _ in range(jobs):
        job = note.push()
    return job


def start(want: int = 1, ends: Any = ()) -> Any:
    return the_store().claim(Demand(POOL, {"default": Lane(want, 60.0)}), [succeeded(one) for one in ends])


def live(job: Job[Any]) -> None:
    """Let a job be claimed, and end, each by itself."""
    (claimed,) = start().claims
    assert claimed.id == job.id
    assert list(the_store().settle([succeeded(claimed)])) == []


def ended() -> Job[Any]:
    job = push()
    live(job)
    return job


def refused() -> None:
    with pytest.raises(QueueFull):
        push()


def turn(jobs: int) -> Callable[[], object]:
    push(jobs)
    running = start(jobs).claims
    push(jobs)

    def both() -> None:
        claimed = start(jobs, running)
        assert (len(claimed.claims), list(claimed.refused)) == (jobs, [])

    return both


def awaited() -> None:
    """A job's whole life, while another thread waits for it."""
    job = push()
    waits = threading.Thread(target=elsewhere, args=(lambda: job.wait(timeout=PATIENCE),))
    waits.start()
    if the_store().shared:  # a job in memory wakes its own waits, and nothing is asked for that
        until(lambda: the_store().notifier.has_listeners("ended"), "the wait")
    live(job)
    waits.join(PATIENCE)


SERVED = {"default": PoolQueue(1, 0, 0)}
VERBS: dict[str, Callable[[], Callable[[], object]]] = {
    "push": lambda: push,
    "push that takes the last place": lambda: (push(19), push)[1],
    "push to a full queue": lambda: (push(20), refused)[1],
    "push_many of 500": lambda: lambda: note.push_many([(number,) for number in range(500)]),
    "claim of nothing": lambda: start,
    "a lone job: push, claim, end": lambda: ended,
    "10 end, 10 start": lambda: turn(10),
    "100 end, 100 start": lambda: turn(100),
    "a look at an end": lambda: ended().wait,
    "heartbeat": lambda: lambda: the_store().heartbeat(PoolRecord(POOL, "host", 1, "code", 1.0, SERVED)),
    "a lone job, awaited": lambda: awaited,
}


def prepare(jobify: Configure, name: str) -> None:
    """Make a store that has been used: the queue's row is there, and a server's clock is known."""
    jobify(MAXSIZE=20 if "place" in name or "full" in name else 10_000)
    live(push())


def hold(name: str, cost: Cost) -> None:
    most = MOST[connection.vendor][name]
    assert all(spent <= bound for spent, bound in zip(cost, most, strict=True)), f"{name}: {cost}, not {most}"


@database
@pytest.mark.parametrize("name", VERBS)
def test_nothing_costs_more_than_it_should(jobify: Configure, meter: Meter, name: str) -> None:
    prepare(jobify, name)
    hold(name, meter.of(VERBS[name]()))


@memory
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("name", VERBS)
def test_in_memory_no_database_is_asked(jobify: Configure, name: str) -> None:
    prepare(jobify, name)
    with metered() as meter:
        assert meter.of(VERBS[name]()) == Cost(0, 0, 0)


@task
async def anote() -> None: ...


@memory
def test_in_memory_a_lone_job_takes_few_rounds_of_its_event_loop(jobify: Configure) -> None:
    rounds = 0

    def count() -> None:
        nonlocal rounds
        rounds += 1
        asyncio.get_running_loop().call_soon(count)

    async def push_and_wait() -> int:
        async with serving():
            await (await anote.apush())  # the first push looks for a pool, too
            asyncio.get_running_loop().call_soon(count)
            await asyncio.sleep(0)
            before = rounds
            await (await anote.apush())
            return rounds - before

    # One starts the job and stores its end, and one wakes who waits for it. Otherwise the job begins
    # in a round of its own, and its end is stored in the next.
    assert elsewhere(lambda: asyncio.run(push_and_wait())) <= (2 if EAGER else 4)


class Hurried(threading.Event):
    def wait(self, timeout: float | None = None) -> bool:
        return super().wait(timeout if timeout is None else timeout / SPEED)


HURRIED = replace(
    MACHINE,
    clock=lambda: MACHINE.clock() + MACHINE.monotonic() * (SPEED - 1),
    monotonic=lambda: MACHINE.monotonic() * SPEED,
    sleep=lambda seconds: MACHINE.sleep(seconds / SPEED),
    event=Hurried,
)


@database
@pytest.mark.parametrize("told", [True, False], ids=["told of changes", "told of nothing"])
def test_an_idle_pool_asks_for_little(jobify: Configure, monkeypatch: pytest.MonkeyPatch, told: bool) -> None:
    if not told:
        notice_nothing(monkeypatch)
    elif connection.vendor == "mysql" or driver() == "psycopg2":
        pytest.skip("nothing tells of other processes' writes there")
    monkeypatch.setattr(listener, "ECHO_TIMEOUT", PATIENCE * SPEED)
    monkeypatch.setattr(server, "PRECISE_READING", PATIENCE * SPEED)
    monkeypatch.setattr(watermark, "SLOW", PATIENCE * SPEED)
    jobify.run_on(HURRIED)
    with metered() as meter, at_work() as shop:
        push().wait(timeout=PATIENCE * SPEED)
        until(lambda: the_store().pools() and shop.pool.completer.empty, "a pool with nothing to do")
        until(lambda: the_store().hears == told, "a pool that knows whether it is told of changes")
        shop.turn()
        began, before = HURRIED.monotonic(), meter.total
        until(lambda: HURRIED.monotonic() - began >= 60, "a minute")
        spent, minutes = meter.total.since(before), (HURRIED.monotonic() - began) / 60
    # A busy machine makes the minute longer, and the pool does less in it.
    most = MOST[connection.vendor]["an idle minute" if told else "an idle minute, told of nothing"]
    assert all(one <= bound * minutes for one, bound in zip(spent, most, strict=True)), (spent, minutes)


def driver() -> str:
    wrapper: Any = connections["default"]
    name: str = wrapper.Database.__name__
    return name
