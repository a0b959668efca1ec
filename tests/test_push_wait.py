"""Pushing into a full queue: who waits, for how long, in which order, and what is left of who gave up."""

from __future__ import annotations

import asyncio
import gc
import logging
import random
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import Group
from django.db import connections, transaction

from jobify_django import Job, JobStatus, QueueFull, queue, task
from jobify_django.job import JobSpec, new_id
from jobify_django.push.admission import Admission
from jobify_django.push.push import plan_of
from jobify_django.push.waits import PushWaits
from jobify_django.runtime import MACHINE
from jobify_django.stores.base import Store
from jobify_django.stores.database import DatabaseStore
from jobify_django.stores.value import JobQuery
from jobify_django.waiting.waker import BlockingCall, Waker
from tests.child import PATIENCE, until
from tests.claims import claim
from tests.workshop import Configure, a_gate, at_work, both, database, held, memory, notice_nothing, pushed

gone = pytest.raises(asyncio.CancelledError)


@task
def note(value: Any) -> Any:
    return value


class Quiet(Waker):
    """A waker that wakes nobody."""

    def wake(self) -> None:
        pass


def the_store() -> Store:
    return queue().store


def line(name: str = "default") -> PushWaits:
    return the_store().process_local(PushWaits, name)


def waiting() -> int:
    return queue().stats().waiting


def values() -> list[Any]:
    """Return the arguments of the waiting jobs, in claim order."""
    found = the_store().query(JobQuery(status=JobStatus.WAITING))
    return [Job(the_store(), r.queue, r).args[0] for r in found]


def make_room(jobs: int = 1) -> None:
    """Start so many of the waiting jobs."""
    assert len(claim(the_store(), jobs)) == jobs


class Pushes:
    """Pushes in threads of their own, started one after the other."""

    def __init__(self) -> None:
        self.done: list[Any] = []
        self.refused: list[QueueFull] = []
        self._threads: list[threading.Thread] = []

    def start(self, push: Callable[[], Any], name: Any = None) -> threading.Thread:
        """Start a push that has to wait, and return once it stands in the line."""
        before = line().waiting

        def work() -> None:
            try:
                push()
            except QueueFull as full:
                self.refused.append(full)
            else:
                self.done.append(name)
            finally:
                connections.close_all()

        thread = threading.Thread(target=work, daemon=True)
        self._threads.append(thread)
        thread.start()
        until(lambda: line().waiting == before + 1, "the push in the line")
        return thread

    def finish(self) -> None:
        for thread in self._threads:
            thread.join(PATIENCE)
            assert not thread.is_alive(), "a push waits for ever"


@pytest.fixture
def pushes() -> Any:
    made = Pushes()
    yield made
    made.finish()


# How long


@both
def test_a_push_waits_until_there_is_room(jobify: Configure, pushes: Pushes) -> None:
    jobify(MAXSIZE=1, PUSH_TIMEOUT=PATIENCE)
    note.push(1)
    pushes.start(lambda: note.push(2))
    assert waiting() == 1
    make_room()
    pushes.finish()
    assert values() == [2]


@both
def test_a_push_without_a_limit_waits_until_there_is_room(jobify: Configure, pushes: Pushes) -> None:
    jobify(MAXSIZE=1, PUSH_TIMEOUT=None)
    note.push(1)
    pushes.start(lambda: note.push(2))
    make_room()
    pushes.finish()
    assert values() == [2]


@both
def test_a_push_that_waited_too_long_says_how_full_the_queue_is(jobify: Configure) -> None:
    jobify(MAXSIZE=2, PUSH_TIMEOUT=0.01)
    note.push_many([(1,), (2,)])
    with pytest.raises(QueueFull, match=r"2 jobs wait and maxsize is 2\. .* 0.01 s") as got:
        note.push(3)
    full = got.value
    assert (full.queue, full.depth, full.maxsize, full.retry_after) == ("default", 2, 2, 1)
    assert (full.taken, full.pushed) == (0, [])
    assert values() == [1, 2]
    assert not line().busy


def test_the_time_until_a_push_finds_the_queue_full_counts_too(jobify: Configure) -> None:
    now = 1000.0
    jobify.run_on(replace(MACHINE, monotonic=lambda: now))
    jobify(MAXSIZE=1)
    note.push(1)
    spec = JobSpec(new_id(), note.name, "[[2], {}]")
    steps = Admission(plan_of(note.using(timeout=10)), [spec]).steps(Quiet())
    step = next(steps)

    def go_on() -> None:
        nonlocal step, now
        while isinstance(step, BlockingCall):
            found = step.function()
            now += 8  # as if the look had waited for a thread
            step = steps.send(found)

    with pytest.raises(QueueFull, match="waited 10 s"):
        go_on()


@memory
@pytest.mark.parametrize(("timeout", "seconds"), [(0, 1), (2.5, 3), (None, 10), (3600, 30)])
def test_retry_after_goes_by_the_queues_patience(
    jobify: Configure, timeout: float | None, seconds: int
) -> None:
    jobify(MAXSIZE=1, PUSH_TIMEOUT=timeout)
    note.push(1)
    with pytest.raises(QueueFull) as got:
        note.using(timeout=0).push(2)
    assert got.value.retry_after == seconds


@both
def test_a_push_with_timeout_0_never_waits(jobify: Configure) -> None:
    jobify(MAXSIZE=1, PUSH_TIMEOUT=PATIENCE)
    note.push(1)
    with pytest.raises(QueueFull, match="The push was not to wait"):
        note.using(timeout=0).push(2)


@both
def test_no_push_passes_those_who_wait_although_there_is_room(jobify: Configure, pushes: Pushes) -> None:
    jobify(MAXSIZE=1, PUSH_TIMEOUT=PATIENCE)
    note.push(1)
    pushes.start(lambda: note.push(2))
    with pytest.raises(QueueFull, match="not to wait"):
        note.using(timeout=0).push(3)
    make_room()


@both
def test_too_many_waiting_pushes_are_refused_at_once(jobify: Configure, pushes: Pushes) -> None:
    jobify(MAXSIZE=1, PUSH_TIMEOUT=PATIENCE, MAX_WAITING_PUSHES=2)
    note.push(0)
    for value in (1, 2):
        pushes.start(lambda value=value: note.push(value))
    with pytest.raises(QueueFull, match=r"2 pushes of this process wait already \(MAX_WAITING_PUSHES\)"):
        note.push(3)
    make_room()
    until(lambda: line().waiting == 1, "one taken")
    make_room()


# Who first


@both
@pytest.mark.parametrize("order", ["fifo", "priority"])
def test_waiting_pushes_are_taken_in_the_order_they_came(
    jobify: Configure, pushes: Pushes, order: str
) -> None:
    jobify(MAXSIZE=1, PUSH_TIMEOUT=PATIENCE, ORDER=order)
    note.push(0)
    for value in range(1, 6):
        pushes.start(lambda value=value: note.push(value), value)
    for value in range(1, 6):
        make_room()
        until(lambda value=value: values() == [value], f"push {value}")
    make_room()
    pushes.finish()
    assert pushes.done == [1, 2, 3, 4, 5]


@both
def test_a_higher_priority_waits_in_front(jobify: Configure, pushes: Pushes) -> None:
    jobify(MAXSIZE=1, PUSH_TIMEOUT=PATIENCE)
    note.push(0)
    for value in (1, 5, 3, 5.5):
        pushes.start(lambda value=value: note.using(priority=int(value)).push(value))
    for value in (5, 5.5, 3, 1):
        make_room()
        until(lambda value=value: values() == [value], f"push {value}")


@both
def test_in_a_fifo_queue_priority_does_not_matter_in_the_line(jobify: Configure, pushes: Pushes) -> None:
    jobify(MAXSIZE=1, PUSH_TIMEOUT=PATIENCE, ORDER="fifo")
    note.push(0)
    for value in (1, 5):
        pushes.start(lambda value=value: note.using(priority=value).push(value))
    for value in (1, 5):
        make_room()
        until(lambda value=value: values() == [value], f"push {value}")


@both
def test_a_delayed_job_passes_the_line_because_it_takes_no_room(jobify: Configure, pushes: Pushes) -> None:
    jobify(MAXSIZE=1, PUSH_TIMEOUT=PATIENCE)
    note.push(0)
    pushes.start(lambda: note.push(1))
    assert note.using(delay=60, timeout=0).push(2).status is JobStatus.DELAYED
    make_room()


@both
def test_who_gives_up_at_the_head_of_the_line_wakes_the_next(jobify: Configure, pushes: Pushes) -> None:
    jobify(MAXSIZE=1, PUSH_TIMEOUT=PATIENCE)
    note.push(0)
    gave_up = pushes.start(lambda: note.using(timeout=0.2).push(1))
    pushes.start(lambda: note.push(2))
    gave_up.join(PATIENCE)
    make_room()
    pushes.finish()
    assert values() == [2]
    assert [full.queue for full in pushes.refused] == ["default"]


@both
def test_room_for_two_made_at_once_lets_two_in(jobify: Configure, pushes: Pushes) -> None:
    jobify(MAXSIZE=2, PUSH_TIMEOUT=None)
    note.push_many([(0,), (0,)])
    for value in (1, 2):
        pushes.start(lambda value=value: note.push(value))
    make_room(2)
    pushes.finish()
    assert values() == [1, 2]


@both
def test_raising_maxsize_lets_waiting_pushes_in(jobify: Configure, pushes: Pushes) -> None:
    jobify(MAXSIZE=1, PUSH_TIMEOUT=PATIENCE)
    note.push(0)
    for value in (1, 2):
        pushes.start(lambda value=value: note.push(value))
    queue().tune(maxsize=3)
    pushes.finish()
    assert values() == [0, 1, 2]


@both
def test_cancelling_a_waiting_job_lets_a_waiting_push_in(jobify: Configure, pushes: Pushes) -> None:
    jobify(MAXSIZE=1, PUSH_TIMEOUT=PATIENCE)
    job = note.push(0)
    pushes.start(lambda: note.push(1))
    assert job.cancel()
    pushes.finish()
    assert values() == [1]


@database
def test_room_made_by_another_connection_is_noticed(jobify: Configure, pushes: Pushes) -> None:
    jobify(MAXSIZE=1, PUSH_TIMEOUT=PATIENCE)
    note.push(0)
    pushes.start(lambda: note.push(1))
    # Another instance has no way to tell ours, as another process has none.
    assert claim(DatabaseStore("elsewhere"))
    pushes.finish()
    assert values() == [1]


# Many at once


@both
def test_push_many_tells_which_jobs_were_taken_before_the_room_ran_out(jobify: Configure) -> None:
    jobify(MAXSIZE=3)
    with pytest.raises(QueueFull, match="3 of the jobs were taken and will run") as got:
        note.push_many([(value,) for value in range(5)])
    assert got.value.taken == 3
    assert [job.args for job in got.value.pushed] == [[0], [1], [2]]
    assert [job.position() for job in got.value.pushed] == [0, 1, 2]
    assert values() == [0, 1, 2]


@both
def test_push_many_larger_than_the_queue_goes_in_bit_by_bit(jobify: Configure, pushes: Pushes) -> None:
    jobify(MAXSIZE=3, PUSH_TIMEOUT=PATIENCE)
    ids: list[Any] = []
    pushes.start(lambda: ids.extend(note.push_many([(value,) for value in range(10)])))
    seen = []
    while len(seen) < 10:
        until(waiting, "some more")
        assert waiting() <= 3
        seen += values()[:1]
        make_room()
    pushes.finish()
    assert seen == list(range(10))
    assert [job.args[0] for job in ids] == list(range(10))


@database
def test_push_many_in_a_transaction_is_all_or_none(jobify: Configure) -> None:
    jobify(MAXSIZE=3, PUSH_TIMEOUT=PATIENCE)
    with transaction.atomic():
        with pytest.raises(QueueFull, match="never waits inside an open transaction") as got:
            note.push_many([(value,) for value in range(5)])
        assert got.value.taken == 0
        note.push_many([(1,), (2,)])
    assert values() == [1, 2]


# Inside a transaction


@database
def test_inside_a_transaction_a_full_queue_refuses_at_once_and_the_transaction_goes_on(
    jobify: Configure,
) -> None:
    jobify(MAXSIZE=1, PUSH_TIMEOUT=None)
    note.push(1)
    with transaction.atomic():
        Group.objects.create(name="before")
        with pytest.raises(QueueFull, match="Let the transaction roll back, or push after it"):
            note.push(2)
        Group.objects.create(name="after")
    assert Group.objects.count() == 2
    assert values() == [1]


@database
def test_inside_a_transaction_a_push_does_not_join_those_who_wait(jobify: Configure, pushes: Pushes) -> None:
    jobify(MAXSIZE=1, PUSH_TIMEOUT=None)
    note.push(0)
    pushes.start(lambda: note.push(1))
    with (
        transaction.atomic(),
        pytest.raises(QueueFull, match="never waits inside an open transaction"),
    ):
        note.push(2)
    make_room()


@database
def test_a_job_pushed_in_a_transaction_is_gone_when_that_rolls_back(jobify: Configure) -> None:
    class Undo(Exception):
        pass

    def roll_back() -> None:
        with transaction.atomic():
            jobs.append(note.push(1))
            assert waiting() == 1
            raise Undo

    jobs: list[Any] = []
    with pytest.raises(Undo):
        roll_back()
    assert waiting() == 0
    assert the_store().get([jobs[0].id]) == {}
    assert queue().store.repair() is False


@database
def test_a_job_pushed_in_a_transaction_is_gone_when_its_savepoint_rolls_back(jobify: Configure) -> None:
    jobify(MAXSIZE=2)
    with transaction.atomic():
        note.push(1)
        with transaction.atomic():
            note.push(2)
            transaction.set_rollback(True)
        note.push(3)
    assert values() == [1, 3]
    assert queue().store.repair() is False


@database
def test_a_commit_makes_the_job_visible_and_wakes_the_pool(
    jobify: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobify_django.pool.turn.POLL", 3600.0)  # it is woken, or not at all
    notice_nothing(monkeypatch)
    gate = a_gate()
    with at_work() as shop:
        with transaction.atomic():
            job = pushed(gate.pass_through)
            shop.turn()
            assert not gate.began.is_set()
        gate.reached()
        gate.open()
        job.wait(timeout=PATIENCE)


@memory
@pytest.mark.django_db(transaction=True)
def test_with_another_store_a_push_in_a_transaction_is_sent_at_its_commit(jobify: Configure) -> None:
    with transaction.atomic():
        job = note.push(1)
        assert waiting() == 0
    assert values() == [1]
    assert job.position() == 0


@memory
@pytest.mark.django_db(transaction=True)
def test_with_another_store_a_push_in_a_rolled_back_transaction_is_never_sent(jobify: Configure) -> None:
    with transaction.atomic():
        note.push(1)
        transaction.set_rollback(True)
    assert waiting() == 0


@memory
@pytest.mark.django_db(transaction=True)
def test_with_another_store_a_push_can_be_sent_before_the_commit(jobify: Configure) -> None:
    with transaction.atomic():
        note.using(on_commit=False).push(1)
        assert values() == [1]
        transaction.set_rollback(True)
    assert values() == [1]


@memory
@pytest.mark.django_db(transaction=True)
def test_a_deferred_push_waits_for_room_after_the_commit(jobify: Configure, pushes: Pushes) -> None:
    jobify(MAXSIZE=1, PUSH_TIMEOUT=PATIENCE)
    note.push(0)

    def commit() -> None:
        with transaction.atomic():
            Group.objects.create(name="committed")
            note.push(1)

    pushes.start(commit)
    assert Group.objects.count() == 1
    make_room()
    pushes.finish()
    assert values() == [1]


@memory
@pytest.mark.django_db(transaction=True)
def test_wrong_arguments_of_a_deferred_push_are_found_where_it_is_made(jobify: Configure) -> None:
    with transaction.atomic(), pytest.raises(TypeError, match="missing a required argument"):
        note.push()  # type: ignore[call-arg]


# From inside a job


@both
def test_a_push_from_a_job_waits_while_another_worker_can_make_room(jobify: Configure) -> None:
    jobify(WORKERS=2, MAXSIZE=1, PUSH_TIMEOUT=PATIENCE)
    gate = a_gate()

    def push() -> int:
        gate.pass_through()
        return note.push(7).priority

    with at_work():
        job = pushed(push)
        gate.reached()
        _, other = held()
        other.reached()
        note.push(1)
        gate.open()
        until(lambda: line().waiting == 1, "the job's push in the line")
        other.open()
        job.wait(timeout=PATIENCE)
        assert job.result() == 0


@both
@pytest.mark.parametrize("kind", ["def", "async"])
def test_a_push_from_a_job_is_refused_when_no_worker_would_be_left(jobify: Configure, kind: str) -> None:
    jobify(WORKERS=1, MAXSIZE=1, PUSH_TIMEOUT=None)
    gate = a_gate()

    def push() -> str:
        gate.pass_through()
        with pytest.raises(QueueFull) as got:
            note.push(7)
        return str(got.value)

    async def apush() -> str:
        await gate.apass_through()
        with pytest.raises(QueueFull) as got:
            await note.apush(7)
        return str(got.value)

    with at_work():
        job = pushed(push if kind == "def" else apush)
        gate.reached()
        note.push(1)
        gate.open()
        job.wait(timeout=PATIENCE)
        assert "every other worker of this queue here waits too" in job.result()


@both
def test_a_push_from_a_job_into_another_full_queue_waits_for_its_workers(jobify: Configure) -> None:
    jobify(WORKERS=1, PUSH_TIMEOUT=PATIENCE, QUEUES={"mail": {"MAXSIZE": 1}})

    def push() -> str:
        return note.using(queue="mail").push(2).queue

    with at_work():
        _, gate = held(queue="mail")
        gate.reached()
        note.using(queue="mail").push(1)
        job = pushed(push)
        until(lambda: line("mail").waiting == 1, "the job's push in the line")
        gate.open()
        job.wait(timeout=PATIENCE)
        assert job.result() == "mail"


@both
def test_jobs_that_all_push_into_their_own_full_queue_never_block_one_another(jobify: Configure) -> None:
    jobify(WORKERS=4, MAXSIZE=10, PUSH_TIMEOUT=PATIENCE)

    def push() -> int:
        refused = 0
        for value in range(2):
            try:
                note.push(value)
            except QueueFull:
                refused += 1
        return refused

    with at_work():
        jobs = [pushed(push) for _ in range(60)]
        for job in jobs:
            job.wait(timeout=PATIENCE)
        assert {job.status for job in jobs} == {JobStatus.SUCCESSFUL}
        until(lambda: waiting() == 0, "an empty queue")


# Given up


@both
def test_an_interrupted_push_leaves_the_line_and_no_job(jobify: Configure, pushes: Pushes) -> None:
    jobify(MAXSIZE=1, PUSH_TIMEOUT=PATIENCE)
    note.push(0)
    pushes.start(lambda: note.push(1))  # at the head, so that the one behind it only waits
    this = threading.main_thread().ident
    assert this is not None

    def interrupt() -> None:
        until(lambda: line().waiting == 2, "the push in the line")
        until(lambda: sys._current_frames()[this].f_code.co_name == "wait", "the wait")
        signal.pthread_kill(this, signal.SIGINT)

    interrupter = threading.Thread(target=interrupt)
    interrupter.start()
    with pytest.raises(KeyboardInterrupt):
        note.push(2)
    interrupter.join()
    assert line().waiting == 1
    make_room()
    pushes.finish()
    assert values() == [1]


@both
async def test_a_cancelled_push_leaves_the_line_and_no_job(jobify: Configure) -> None:
    jobify(MAXSIZE=1, PUSH_TIMEOUT=PATIENCE)
    await note.apush(0)
    waiting = asyncio.create_task(note.apush(1))
    await auntil(lambda: line().busy)
    waiting.cancel()
    with gone:
        await waiting
    assert not line().busy
    assert await in_thread(values) == [0]


@both
async def test_a_push_that_times_out_by_its_caller_leaves_no_job(jobify: Configure) -> None:
    jobify(MAXSIZE=1, PUSH_TIMEOUT=None)
    await note.apush(0)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await note.apush(1)
    assert not line().busy
    assert await in_thread(values) == [0]


@both
async def test_pushes_cancelled_at_random_leave_no_ghost_and_lose_nothing(jobify: Configure) -> None:
    jobify(MAXSIZE=5, PUSH_TIMEOUT=PATIENCE)
    chance = random.Random(7)
    pushes = [asyncio.create_task(note.apush(value)) for value in range(120)]
    taken: list[int] = []
    while not all(push.done() for push in pushes):
        for push in chance.sample(pushes, 6):
            if chance.random() < 0.5:
                push.cancel()
        claims = await in_thread(claim_some)
        taken += claims
        await asyncio.sleep(0)
    while claims := await in_thread(claim_some):
        taken += claims
    kept = {value for value, push in enumerate(pushes) if not push.cancelled()}
    assert all(push.exception() is None for push in pushes if not push.cancelled())
    assert kept <= set(taken)
    assert len(taken) == len(set(taken))
    # A push may be cancelled when its job has started already; then the job is asked to end.
    strays = set(taken) - kept
    asked = await in_thread(cancel_requested)
    assert strays == asked
    assert not line().busy
    assert await in_thread(the_store().repair) is False


@database
async def test_a_push_cancelled_while_it_looks_for_workers_leaves_no_job(
    jobify: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered, go = threading.Event(), threading.Event()
    look = the_store().pools

    def slow() -> Any:
        entered.set()
        go.wait(PATIENCE)
        return look()

    monkeypatch.setattr(the_store(), "pools", slow)
    push = asyncio.create_task(note.apush(1))
    await auntil(entered.is_set)
    push.cancel()
    go.set()
    with gone:
        await push
    assert await in_thread(values) == []


@database
async def test_a_push_cancelled_before_the_thread_has_time_for_it_ends_at_once(
    jobify: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = a_gate()
    busy = asyncio.create_task(in_thread(gate.pass_through))
    await auntil(gate.began.is_set)
    pushes = [asyncio.create_task(note.apush(value)) for value in range(3)]
    await asyncio.sleep(0)
    for push in pushes:
        push.cancel()
    # The thread is still busy: nobody may wait for it.
    await asyncio.wait(pushes, timeout=PATIENCE)
    assert [push.cancelled() for push in pushes] == [True] * 3
    gate.open()
    await busy
    assert await in_thread(values) == []


@database
async def test_a_push_cancelled_twice_takes_back_what_was_taken_all_the_same(jobify: Configure) -> None:
    jobify(MAXSIZE=2, PUSH_TIMEOUT=PATIENCE)
    push = asyncio.create_task(note.apush_many([(value,) for value in range(5)]))
    await auntil(lambda: line().busy)
    assert await in_thread(values) == [0, 1]
    gate = a_gate()
    busy = asyncio.create_task(in_thread(gate.pass_through))
    await auntil(gate.began.is_set)
    push.cancel()
    await auntil(lambda: not line().busy)
    push.cancel()  # while the taking back waits for the thread
    await asyncio.sleep(0)
    gate.open()
    await busy
    with gone:
        await push
    assert await in_thread(values) == []


@database
async def test_pushes_that_find_a_line_when_their_turn_on_the_thread_comes_ask_nothing(
    jobify: Configure, pushes: Pushes, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobify(MAXSIZE=1, PUSH_TIMEOUT=PATIENCE)
    await note.apush(0)
    asked: set[str] = set()
    add = the_store().add

    def listen(settings: Any, specs: Any, **options: Any) -> Any:
        asked.update(spec.arguments for spec in specs)
        return add(settings, specs, **options)

    monkeypatch.setattr(the_store(), "add", listen)
    gate = a_gate()
    busy = asyncio.create_task(in_thread(gate.pass_through))
    await auntil(gate.began.is_set)
    late = [asyncio.create_task(note.apush(value)) for value in (2, 3, 4)]
    await asyncio.sleep(0)
    pushes.start(lambda: note.push(1))
    await auntil(lambda: line().busy)
    gate.open()
    await busy
    await auntil(lambda: line().waiting == 4)
    assert asked == {"[[1],{}]"}
    for push in late:
        push.cancel()
    await in_thread(make_room)
    await auntil(lambda: not line().busy)
    pushes.finish()


@both
async def test_a_cancelled_push_many_takes_back_what_was_taken(jobify: Configure) -> None:
    jobify(MAXSIZE=2, PUSH_TIMEOUT=PATIENCE)
    push = asyncio.create_task(note.apush_many([(value,) for value in range(5)]))
    await auntil(lambda: line().busy)
    assert await in_thread(values) == [0, 1]
    push.cancel()
    with gone:
        await push
    assert await in_thread(values) == []


@database
async def test_cancelling_a_look_at_a_queue_is_a_cancellation(
    jobify: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered, go = threading.Event(), threading.Event()

    def slow(*args: Any) -> Any:
        entered.set()
        go.wait(PATIENCE)
        return {}

    monkeypatch.setattr(the_store(), "get", slow)
    monkeypatch.setattr(the_store(), "stats", slow)
    job = await note.apush(1)
    for look in (queue().astats, job.arefresh):
        entered.clear()
        go.clear()
        looking = asyncio.create_task(look())
        await auntil(entered.is_set)
        looking.cancel()
        go.set()
        with gone:
            await looking


async def test_a_dropped_push_many_is_reported(jobify: Configure, caplog: pytest.LogCaptureFixture) -> None:
    note.push_many([(1,), (2,)])
    gc.collect()
    (said,) = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert "tests.test_push_wait.note was never awaited, so nothing was pushed" in said.message
    assert waiting() == 0


@both
def test_pushes_of_threads_and_loops_wait_in_one_line(jobify: Configure, pushes: Pushes) -> None:
    jobify(MAXSIZE=1, PUSH_TIMEOUT=PATIENCE)
    note.push(0)
    pushes.start(lambda: note.push(1))
    pushes.start(lambda: asyncio.run(loop_push(2)))
    pushes.start(lambda: note.push(3))
    for value in (1, 2, 3):
        make_room()
        until(lambda value=value: values() == [value], f"push {value}")


async def loop_push(value: int) -> None:
    await note.apush(value)
    await in_thread(connections.close_all)


# The warning that nobody works


@both
def test_a_push_warns_once_a_queue_when_no_worker_is_alive(
    jobify: Configure, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobify_django.push.unserved.CHECK_EVERY", 0.0)
    jobify(QUEUES={"mail": {}})
    for _ in range(3):
        note.push(1)
        note.using(queue="mail").push(1)
    said = [r.message for r in caplog.records if "no worker is alive" in r.message]
    assert [message.split(":")[0] for message in said] == [
        "no worker is alive for queue 'default'",
        "no worker is alive for queue 'mail'",
    ]
    assert "runjobs" in said[0]


@both
def test_a_push_does_not_warn_while_a_worker_is_alive(
    jobify: Configure, caplog: pytest.LogCaptureFixture
) -> None:
    with at_work():
        until(lambda: queue().stats().pools, "the pool's first report")
        note.push(1).wait(timeout=PATIENCE)
    assert "no worker is alive" not in caplog.text


@both
def test_a_push_warns_when_the_only_pool_serves_other_queues(
    jobify: Configure, caplog: pytest.LogCaptureFixture
) -> None:
    jobify(QUEUES={"mail": {}})
    with at_work(queues=["mail"]):
        until(lambda: queue("mail").stats().pools, "the pool's first report")
        note.push(1)
    assert "no worker is alive for queue 'default'" in caplog.text


# Words for the async tests


async def in_thread(call: Callable[[], Any]) -> Any:
    """Run what may block where Django wants it."""
    return await sync_to_async(call)()


async def auntil(happened: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not happened():  # noqa: ASYNC110 - it happens in another thread
            await asyncio.sleep(0.005)


def claim_some() -> list[int]:
    ids = [started.id for started in claim(the_store(), 3)]
    records = the_store().get(ids)
    return [Job(the_store(), "default", records[id]).args[0] for id in ids]


def cancel_requested() -> set[int]:
    running = the_store().query(JobQuery(status=JobStatus.RUNNING, limit=1000))
    return {Job(the_store(), "default", r).args[0] for r in running if r.cancel_requested}
