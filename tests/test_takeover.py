"""One asks the store for many who wait. When it cannot, another one does, and nobody is refused unlooked."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Generator
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import connections

from jobify_django import JobStatus, QueueFull, WaitTimeout, queue, task
from jobify_django.conf import get_settings
from jobify_django.job import JobSpec, new_id
from jobify_django.outcome import succeeded
from jobify_django.pool.slots import RunningJob
from jobify_django.push.admission import Admission
from jobify_django.push.push import plan_of
from jobify_django.push.waits import PushWaits
from jobify_django.runtime import MACHINE
from jobify_django.stores.base import Store
from jobify_django.waiting.result import ResultWaits, until_ended
from jobify_django.waiting.waker import BlockingCall, LoopWaker, Pause, Steps, Waker, arun
from tests.child import PATIENCE
from tests.claims import claim, release
from tests.workshop import Configure, a_gate, both, database, memory


@task
def note(value: Any = None) -> Any:
    return value


class Counted(Waker):
    """A waker that counts how often it is used."""

    woken = 0

    def wake(self) -> None:
        self.woken += 1


class Waiter:
    """A wait that does nothing by itself: the test decides when its calls are run and when it wakes."""

    def __init__(self, steps: Callable[[Waker], Steps[Any]]) -> None:
        self.waker = Counted()
        self.outcome: Any = None
        self.error: Any = None
        self.calls = 0
        self._steps: Generator[Any, Any, Any] = steps(self.waker)
        self.step: Any = None
        self.go_on()

    def call(self, times: int | None = None) -> Waiter:
        """Run so many of its calls, or all until it pauses or ends."""
        while isinstance(self.step, BlockingCall) and times != 0:
            self.calls += 1
            self.go_on(self.step.function())
            times = None if times is None else times - 1
        return self

    def wake(self) -> Waiter:
        """Let its pause end, and run its calls."""
        assert isinstance(self.step, Pause)
        self.go_on()
        return self.call()

    def close(self) -> None:
        self._steps.close()

    def go_on(self, value: Any = None) -> None:
        """Let it go on to what it needs next."""
        try:
            self.step = self._steps.send(value)
        except StopIteration as stop:
            self.outcome, self.step = stop.value or "done", None
        except (QueueFull, WaitTimeout) as error:
            self.outcome, self.error, self.step = type(error), error, None


class Clock:
    """The time of those who wait, which passes when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def until_awake(self, waiter: Waiter) -> None:
        """Let the waiter's pause pass."""
        assert isinstance(waiter.step, Pause)
        assert waiter.step.seconds is not None, "it pauses without end"
        self.now += waiter.step.seconds


@pytest.fixture
def clock(jobify: Configure) -> Clock:
    made = Clock()
    jobify.run_on(replace(MACHINE, monotonic=made.monotonic))
    return made


@pytest.fixture
def deaf(monkeypatch: pytest.MonkeyPatch) -> None:
    """No notification arrives, as between processes on a store without any."""
    monkeypatch.setattr(Store, "listen", lambda store, kind, listener: lambda: None)


def the_store() -> Store:
    return queue().store


def the_line() -> PushWaits:
    return the_store().process_local(PushWaits, "default")


def waiting() -> int:
    return queue().stats().waiting


def succeed(job: Any) -> None:
    (started,) = claim(the_store())
    assert started.id == job.id
    the_store().settle([succeeded(started)])


def make_room(jobs: int = 1) -> None:
    assert len(claim(the_store(), jobs)) == jobs


def a_wait(job: Any, timeout: float | None = None) -> Waiter:
    return Waiter(partial(until_ended, the_store(), job.id, None, timeout))


def a_push(timeout: float | None = None, priority: int = 0) -> Waiter:
    return Waiter(an_admission(timeout, priority).steps)


def an_admission(timeout: float | None = None, priority: int = 0) -> Admission:
    return Admission(plan_of(note.using(timeout=timeout)), [a_spec(priority)])


def a_spec(priority: int = 0) -> JobSpec:
    return JobSpec(new_id(), note.name, "[[],{}]", priority)


def a_leader_that_cannot_ask(job: Any) -> Waiter:
    """A wait whose call for all is due, and does not get its turn on a thread."""
    leader = a_wait(job).call(2)
    assert isinstance(leader.step, BlockingCall)
    return leader


def a_head_that_cannot_ask() -> Waiter:
    head = a_push().call(1)
    assert the_line().waiting == 1
    assert isinstance(head.step, BlockingCall)
    return head


# Waits


@both
@pytest.mark.usefixtures("deaf")
def test_a_leader_that_cannot_ask_is_replaced(jobify: Configure, clock: Clock) -> None:
    job = note.push()
    leader, other = a_leader_that_cannot_ask(job), a_wait(job).call()
    succeed(job)
    clock.until_awake(other)
    assert other.wake().outcome.status is JobStatus.SUCCESSFUL
    leader.close()


@both
@pytest.mark.usefixtures("deaf")
def test_who_has_waited_longest_replaces_the_leader_first(jobify: Configure, clock: Clock) -> None:
    job = note.push()
    leader = a_leader_that_cannot_ask(job)
    waits = [a_wait(job).call() for _ in range(4)]
    recheck_after = [wait.step.seconds for wait in waits]
    assert recheck_after == sorted(recheck_after)
    assert len(set(recheck_after)) == 4
    clock.until_awake(waits[0])
    calls = [wait.calls for wait in waits]
    waits[0].wake()
    assert [wait.wake().calls for wait in waits[1:]] == calls[1:], "two ask for all"
    for wait in (leader, *waits):
        wait.close()


@both
@pytest.mark.usefixtures("deaf")
def test_a_leader_whose_call_takes_long_is_not_replaced(jobify: Configure, clock: Clock) -> None:
    job = note.push()
    leader, other = a_leader_that_cannot_ask(job), a_wait(job).call()
    asked, real_get = other.calls, the_store().get

    def get(ids: Any) -> Any:
        clock.until_awake(other)
        other.wake()
        return real_get(ids)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(the_store(), "get", get)
        leader.call(1)
    assert other.calls == asked
    for wait in (leader, other):
        wait.close()


@both
@pytest.mark.usefixtures("deaf")
def test_no_wait_times_out_for_a_job_that_has_ended(jobify: Configure, clock: Clock) -> None:
    job = note.push()
    leader, other = a_leader_that_cannot_ask(job), a_wait(job, timeout=0.5).call()
    succeed(job)
    clock.until_awake(other)
    assert other.wake().outcome.status is JobStatus.SUCCESSFUL
    leader.close()


@both
def test_a_leader_that_leaves_wakes_its_heir(jobify: Configure, clock: Clock) -> None:
    job, others = note.push(), note.push()
    leader = a_wait(job, timeout=0.01).call()
    successor, third = a_wait(others).call(), a_wait(others).call()
    clock.until_awake(leader)
    assert leader.wake().outcome is WaitTimeout
    assert (successor.waker.woken, third.waker.woken) == (1, 0)
    for wait in (third, successor):
        wait.close()
    assert (successor.waker.woken, third.waker.woken) == (1, 0)


@database
@pytest.mark.usefixtures("deaf")
def test_a_wait_ends_although_the_leaders_own_thread_is_busy(jobify: Configure) -> None:
    job, gate = note.push(), a_gate()

    async def request() -> None:
        wait = asyncio.create_task(job.await_end())
        while not the_waits().busy:  # noqa: ASYNC110 - another thread's doing
            await asyncio.sleep(0)
        work = asyncio.create_task(sync_to_async(gate.pass_through)())
        await asyncio.gather(wait, work)
        await sync_to_async(connections.close_all)()

    thread = threading.Thread(target=lambda: asyncio.run(request()))
    thread.start()
    gate.reached()
    succeed(job)
    job.wait(timeout=PATIENCE)
    assert thread.is_alive()
    gate.open()
    thread.join(PATIENCE)


def the_waits() -> ResultWaits:
    return the_store().process_local(ResultWaits)


# Pushes


@both
@pytest.mark.usefixtures("deaf")
def test_a_head_that_cannot_ask_is_passed_over_in_order_until_it_can(jobify: Configure, clock: Clock) -> None:
    jobify(MAXSIZE=1)
    note.push()
    head = a_head_that_cannot_ask()
    second, third = a_push().call(), a_push().call()
    make_room()
    assert second.step.seconds < third.step.seconds
    clock.until_awake(second)
    second.wake()
    clock.until_awake(second)
    assert second.wake().outcome == "done"
    assert head.call().wake().outcome is None
    make_room()
    assert third.wake().outcome is None, "the head's place in the line was lost"
    assert head.wake().outcome == "done"
    third.close()


@both
@pytest.mark.usefixtures("deaf")
def test_those_before_who_can_ask_come_first_when_a_head_is_passed_over(
    jobify: Configure, clock: Clock
) -> None:
    jobify(MAXSIZE=1)
    note.push()
    head = a_head_that_cannot_ask()
    second, third = a_push().call(), a_push().call()
    make_room()
    clock.until_awake(third)
    third.wake()
    assert second.waker.woken == 1
    assert second.wake().outcome == "done"
    assert third.wake().outcome is None
    for push in (head, third):
        push.close()


@both
@pytest.mark.usefixtures("deaf")
@pytest.mark.parametrize("timeout", [0, 0.9])
def test_no_push_is_refused_for_a_head_that_cannot_ask(
    jobify: Configure, clock: Clock, timeout: float
) -> None:
    jobify(MAXSIZE=1)
    note.push()
    head = a_head_that_cannot_ask()
    make_room()
    clock.now += 0.6
    push = a_push(timeout).call()
    if timeout:
        clock.until_awake(push)
        push.wake()
    assert push.outcome == "done"
    head.close()


@both
@pytest.mark.usefixtures("deaf")
def test_no_push_is_refused_because_too_many_wait_while_the_head_cannot_ask(
    jobify: Configure, clock: Clock
) -> None:
    jobify(MAXSIZE=1, MAX_WAITING_PUSHES=1)
    note.push()
    head = a_head_that_cannot_ask()
    make_room()
    clock.now += 0.6
    assert a_push().call().outcome == "done"
    head.close()


@both
@pytest.mark.usefixtures("deaf")
def test_pushes_that_time_out_behind_a_head_that_asks_ask_nothing(jobify: Configure, clock: Clock) -> None:
    jobify(MAXSIZE=1)
    note.push()
    head = a_push().call()
    pushes = [a_push(timeout=3).call() for _ in range(20)]
    before = [push.calls for push in pushes]
    while clock.now < 1003.01:
        clock.until_awake(head)
        head.wake()
    assert {push.wake().outcome for push in pushes} == {QueueFull}
    assert [push.calls for push in pushes] == before
    head.close()


@both
def test_a_head_that_leaves_wakes_its_heir(jobify: Configure, clock: Clock) -> None:
    jobify(MAXSIZE=1)
    note.push()
    head, successor, third = (a_push().call() for _ in range(3))
    head.close()
    assert (successor.waker.woken, third.waker.woken) == (1, 0)
    third.close()
    assert successor.waker.woken == 1
    successor.close()


# The figures of those who are refused


def come_back(jobs: int) -> None:
    """Let jobs of a pool wait again, bound or not."""
    claims = claim(the_store(), jobs)
    specs = [a_spec() for _ in claims]
    the_store().add(get_settings().queue("default"), specs)  # past those who stand in line
    assert len(release(the_store(), claims)) == jobs


def figures(push: Waiter) -> tuple[int, int]:
    """Return how deep the refused push says the queue is, and which bound it names."""
    assert push.outcome is QueueFull
    depth, maxsize = push.error.depth, push.error.maxsize
    assert f"{depth} jobs wait and maxsize is {maxsize}" in str(push.error)
    return depth, maxsize


@both
@pytest.mark.usefixtures("deaf")
@pytest.mark.parametrize("timeout", [0, 0.4], ids=["at once", "in line"])
def test_a_push_that_never_looked_itself_is_refused_with_what_the_head_saw(
    jobify: Configure, clock: Clock, timeout: float
) -> None:
    jobify(MAXSIZE=5)
    note.push_many([()] * 5)
    head = a_push().call()
    come_back(2)
    queue().tune(maxsize=2)
    clock.until_awake(head)
    head.wake()
    push = a_push(timeout).call()
    if timeout:
        clock.now += timeout
        push.wake()
    assert figures(push) == (7, 2)
    assert push.calls <= 1  # whether a transaction is open; the head has looked
    head.close()


@both
@pytest.mark.usefixtures("deaf")
def test_a_push_that_looked_before_others_went_ahead_is_refused_with_what_they_saw(
    jobify: Configure, clock: Clock
) -> None:
    jobify(MAXSIZE=5)
    note.push_many([()] * 5)
    push = a_push(0.4).call()
    come_back(2)
    queue().tune(maxsize=2)
    urgent = a_push(priority=100).call()
    calls = push.calls
    clock.now += 0.4
    push.wake()
    assert figures(push) == (7, 2)
    assert push.calls == calls
    urgent.close()


@both
@pytest.mark.usefixtures("deaf")
def test_of_many_that_time_out_together_behind_a_head_that_cannot_ask_one_looks(
    jobify: Configure, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobify(MAXSIZE=5)
    note.push_many([()] * 5)
    head = a_head_that_cannot_ask()
    pushes = [a_push(0.9).call() for _ in range(20)]
    come_back(2)
    queue().tune(maxsize=2)
    looks: list[int] = []
    add = the_store().add

    def count(*args: Any, **options: Any) -> Any:
        looks.append(1)
        return add(*args, **options)

    monkeypatch.setattr(the_store(), "add", count)
    clock.now += 0.9
    for push in pushes:
        push.go_on()  # all of them before any has its turn on a thread
    for push in pushes:
        push.call()
    assert {figures(push) for push in pushes} == {(7, 2)}
    assert len(looks) == 1
    head.close()


@both
@pytest.mark.usefixtures("deaf")
def test_what_a_push_of_many_was_refused_with_is_what_others_saw_last(
    jobify: Configure, clock: Clock
) -> None:
    jobify(MAXSIZE=5)
    note.push_many([()] * 4)
    specs = [a_spec() for _ in range(3)]
    many = Waiter(Admission(plan_of(note.using(timeout=0.4)), specs).steps).call()
    come_back(2)
    queue().tune(maxsize=2)
    urgent = a_push(priority=100).call()
    clock.now += 0.4
    many.wake()
    assert figures(many) == (7, 2)
    assert many.error.taken == 1
    urgent.close()


# Event loops that are gone


def left_behind(steps: Callable[[Waker], Steps[Any]], joined: Callable[[], bool]) -> Any:
    """Leave a wait on an event loop that is closed; return what keeps it from being collected."""
    loop = asyncio.new_event_loop()

    async def begin() -> asyncio.Task[Any]:
        wait = loop.create_task(arun(steps, MACHINE, blocking=False))
        while not joined():  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0)
        return wait

    wait = loop.run_until_complete(begin())
    loop.run_until_complete(asyncio.sleep(0))
    wait._log_destroy_pending = False  # type: ignore[attr-defined]
    loop.close()
    return wait


@memory
def test_a_wait_on_a_closed_loop_keeps_nobody_from_ending_a_job(jobify: Configure) -> None:
    job = note.push()
    gone = left_behind(partial(until_ended, the_store(), job.id, None, None), lambda: the_waits().busy)
    wait = a_wait(job).call()
    assert job.cancel()
    assert wait.wake().outcome.status is JobStatus.CANCELLED
    assert not the_waits().busy
    del gone


@memory
def test_a_push_on_a_closed_loop_is_out_of_the_line(jobify: Configure) -> None:
    jobify(MAXSIZE=1, MAX_WAITING_PUSHES=1)
    job = note.push()
    gone = left_behind(an_admission().steps, lambda: the_line().busy)
    push = a_push().call()
    assert (the_line().waiting, push.outcome) == (1, None)
    assert job.cancel()
    assert push.wake().outcome == "done"
    assert not the_line().busy
    del gone


def test_a_waker_of_a_closed_loop_wakes_nobody() -> None:
    loop = asyncio.new_event_loop()

    async def begin() -> tuple[LoopWaker, Any]:
        waker = LoopWaker(MACHINE)
        return waker, loop.create_task(waker.wait(None))

    waker, wait = loop.run_until_complete(begin())
    loop.run_until_complete(asyncio.sleep(0))
    wait._log_destroy_pending = False
    loop.close()
    waker.wake()
    thread = threading.Thread(target=waker.wake)
    thread.start()
    thread.join()
    assert waker.dead


def test_ending_a_job_of_a_closed_loop_raises_nothing() -> None:
    loop = asyncio.new_event_loop()
    loop.close()
    wait = SimpleNamespace(get_loop=lambda: loop, cancel=None)
    running = SimpleNamespace(stop_reasons=(), stop_reason=None, task=wait)
    RunningJob.stop(running, "cancel")  # type: ignore[arg-type]
    assert running.stop_reason == "cancel"
