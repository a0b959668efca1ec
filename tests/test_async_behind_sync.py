"""A plain ``def`` around an ``async def``: the job runs to its end, with what an async job gets."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import pytest
from asgiref.sync import async_to_sync, markcoroutinefunction

from jobify_django import Job, JobFailed, JobStatus, WaitDeadlock, task
from jobify_django.job import JobSpec
from jobify_django.pool.claim_loop import ThreadClaimLoop
from jobify_django.pool.pool import Pool
from jobify_django.stores.memory import MemoryStore
from jobify_django.testing.conformance.ground import a_queue
from tests.child import PATIENCE, until
from tests.workshop import (
    Configure,
    Workshop,
    a_gate,
    actions,
    at_work,
    both,
    connection_of_the_orm,
    database,
    elsewhere,
    memory,
    named,
)

variable: ContextVar[str] = ContextVar("variable", default="clean")
threads: list[str] = []
gates: list[Any] = []


def logged(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def inner(*args: Any, **kwargs: Any) -> Any:
        threads.append(threading.current_thread().name)
        variable.set("set by the decorator")
        if gates:
            gates.pop().pass_through()
        return function(*args, **kwargs)

    return inner


def bare(function: Callable[..., Any]) -> Callable[..., Any]:
    def inner(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return inner


def abare(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    async def inner(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return inner


async def play(name: str) -> Any:
    return await actions[name]()


@task
@logged
async def wrapped(name: str) -> Any:
    return await play(name)


@task(name="tests.behind.bare")
@bare
async def hidden(name: str) -> Any:
    return await play(name)


@task
@abare
@logged
async def twice(name: str) -> Any:
    return await play(name)


@task
def returning(name: str) -> Any:
    return play(name)


@task
@markcoroutinefunction
def marked(name: str) -> Any:
    threads.append(threading.current_thread().name)
    return play(name)


@task
@logged
def synced(name: str) -> Any:
    return async_to_sync(play)(name)


WAYS = [wrapped, hidden, twice, returning, marked]
every_way = pytest.mark.parametrize("way", WAYS, ids=["wraps", "bare", "async", "returned", "marked"])


@pytest.fixture(autouse=True)
def _clear() -> None:
    threads.clear()
    gates.clear()


def pushed(action: Callable[[], Any], way: Any = wrapped) -> Job[Any]:
    job: Job[Any] = way.push(named(action))
    return job


def run(action: Callable[[], Any], way: Any = wrapped) -> Any:
    job = pushed(action, way)
    job.wait(timeout=PATIENCE)
    return job.result()


def cancel(job: Job[Any], shop: Workshop) -> None:
    """Cancel a job that runs, and do at once what its pool does when it next looks."""
    running = shop.pool.completer.running(job.id)
    assert running is not None
    assert job.cancel()
    running.stop("cancel")


@both
@every_way
def test_it_runs_to_its_end_on_the_pools_loop(jobify: Configure, way: Any) -> None:
    loops: list[Any] = []

    async def look() -> str:
        await asyncio.sleep(0)
        loops.append(asyncio.get_running_loop())
        return "done"

    with at_work() as shop:
        assert run(look, way) == "done"

    assert loops == [shop.loop]


@memory
def test_the_decorator_runs_on_a_thread_and_what_it_marks_as_async_on_the_loop(jobify: Configure) -> None:
    async def nothing() -> None: ...

    with at_work():
        run(nothing, wrapped)
        run(nothing, marked)

    assert [name.startswith("jobify-worker") for name in threads] == [True, False]
    assert [one.is_async for one in WAYS] == [False, False, True, False, True]


@both
def test_async_to_sync_in_a_decorator_goes_on_on_its_thread(jobify: Configure) -> None:
    async def look() -> str:
        return "done"

    with at_work() as shop:
        assert run(look, synced) == "done"
        assert shop.pool.slots["default"].busy == 0


@memory
def test_it_has_the_context_of_its_decorator_and_leaves_it_to_nobody(jobify: Configure) -> None:
    async def look() -> str:
        return variable.get()

    with at_work():
        assert run(look, wrapped) == "set by the decorator"
        assert run(look, returning) == "clean"


@both
def test_what_it_raises_fails_it(jobify: Configure) -> None:
    async def fail() -> None:
        await asyncio.sleep(0)
        raise ValueError("it broke")

    with at_work():
        with pytest.raises(JobFailed, match="it broke") as caught:
            run(fail)
        assert "in fail" in caught.value.traceback


@both
def test_it_is_cancelled_where_it_awaits(jobify: Configure) -> None:
    gate = a_gate()

    with at_work() as shop:
        job = pushed(gate.apass_through)
        gate.reached()
        cancel(job, shop)
        job.wait(timeout=PATIENCE)

    assert job.status is JobStatus.CANCELLED


@both
def test_one_that_is_cancelled_in_its_decorator_is_never_begun(jobify: Configure) -> None:
    gate = a_gate()
    gates.append(gate)
    began: list[int] = []

    async def begin() -> None:
        began.append(1)

    with at_work() as shop:
        job = pushed(begin)
        gate.reached()
        cancel(job, shop)
        gate.open()
        job.wait(timeout=PATIENCE)

    assert (job.status, began) == (JobStatus.CANCELLED, [])


@both
def test_it_is_handed_back_where_it_awaits(jobify: Configure) -> None:
    gate = a_gate()

    with at_work(grace=0):
        job = pushed(gate.apass_through)
        gate.reached()

    assert job.record().status is JobStatus.WAITING


@both
def test_a_wait_inside_it_that_would_never_end_is_told_so(jobify: Configure) -> None:
    jobify(WORKERS=1, MAXSIZE=10, PUSH_TIMEOUT=10)

    async def nothing() -> None: ...

    async def wait() -> str:
        job = await wrapped.apush(named(nothing))
        try:
            await job
        except WaitDeadlock:
            return "told"
        return "waited"

    with at_work():
        assert run(wait) == "told"


@database
def test_its_orm_calls_have_a_thread_of_their_own_that_ends_with_it(jobify: Configure) -> None:
    seen: list[Any] = []

    async def look() -> int:
        seen.append(await connection_of_the_orm())
        return 0

    with at_work():
        assert run(look) == 0

    assert [one.connection for one in seen] == [None]


@memory
def test_its_worker_is_taken_until_it_ends_and_its_thread_is_not(jobify: Configure) -> None:
    jobify(WORKERS=1)
    gate = a_gate()

    with at_work() as shop:
        first = pushed(gate.apass_through)
        gate.reached()
        second = pushed(gate.apass_through)
        shop.turn(3)
        assert (first.record().status, second.record().status) == (JobStatus.RUNNING, JobStatus.WAITING)
        assert (shop.pool.slots["default"].busy, shop.pool.workers.threads.idle) == (1, 1)


class Unstarted(ThreadClaimLoop):
    """A driver whose turns the test makes itself."""

    def start(self) -> None: ...

    def wake(self) -> None: ...


def test_what_a_closed_loop_cannot_go_on_with_is_handed_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobify_django.pool.pool.AsyncClaimLoop", Unstarted)
    monkeypatch.setattr("jobify_django.pool.upkeep.Upkeep.start", lambda upkeep, loop: None)
    pool = Pool(MemoryStore("memory"), [a_queue()])
    elsewhere(lambda: asyncio.run(pool.start()))
    pool.store.add(a_queue(), [JobSpec("a", returning.name, '[["nobody"],{}]')])

    pool.step()
    until(lambda: pool.completer.empty, "the word of its thread")
    pool.step()

    record = pool.store.get(["a"])["a"]
    assert (record.status, record.crashes) == (JobStatus.WAITING, 0)
    pool.workers.threads.resize(0)
