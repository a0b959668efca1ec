"""How jobs come to their threads; and a system that refuses threads: what was claimed is handed back, and
fewer jobs run at once."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from queue import SimpleQueue
from typing import Any, NoReturn

import pytest

from jobify_django import Job, JobStatus, queue
from jobify_django.pool import Service, service, threads
from jobify_django.pool.phase import Phase
from jobify_django.pool.pool import Pool
from jobify_django.pool.workers import Workers
from jobify_django.runtime import MACHINE
from tests.child import PATIENCE, until
from tests.workshop import Configure, at_work, both, faulty, held, pushed, trouble


class Refusal:
    """Lets so many threads of a kind start, and no more. ``None``: as many as anybody likes."""

    def __init__(self) -> None:
        self.left: dict[str, int] = {}
        self.met = 0

    def allow(self, kind: str, number: int | None) -> None:
        if number is None:
            self.left.pop(kind, None)
        else:
            self.left[kind] = number

    def ask(self, name: str) -> None:
        for kind in self.left:
            if name.startswith(kind):
                if not self.left[kind]:
                    self.met += 1
                    raise RuntimeError("can't start new thread")
                self.left[kind] -= 1


@pytest.fixture
def refusal(jobify: Configure) -> Iterator[Refusal]:
    refusal = Refusal()

    class Asking(threading.Thread):
        def start(self) -> None:
            refusal.ask(self.name)
            super().start()

    jobify.run_on(replace(MACHINE, thread=Asking))
    yield refusal
    refusal.left.clear()


def record(job: Job[Any]) -> Any:
    return queue().store.get([job.id])[job.id]


def ended(job: Job[Any]) -> JobStatus:
    job.wait(timeout=PATIENCE)
    return job.status


@both
def test_jobs_that_block_all_run_at_once_also_on_threads_that_slept(jobify: Configure) -> None:
    jobify(WORKERS=6)
    with at_work() as shop:
        for _ in range(3):
            together = threading.Barrier(6, timeout=PATIENCE)
            jobs = [pushed(together.wait) for _ in range(6)]
            assert {ended(job) for job in jobs} == {JobStatus.SUCCESSFUL}
            until(lambda: shop.pool.workers.threads.idle == 6, "six idle threads")


@both
def test_a_job_that_comes_while_another_blocks_has_a_thread_that_slept(jobify: Configure) -> None:
    jobify(WORKERS=3)
    with at_work() as shop:
        pairs = [held() for _ in range(3)]
        for _, gate in pairs:
            gate.reached()
        for job, gate in pairs:
            gate.open()
            ended(job)
        until(lambda: shop.pool.workers.threads.idle == 3, "three idle threads")
        for _, gate in [held(), held(), held()]:
            gate.reached()


@both
def test_an_exception_that_reaches_a_thread_after_its_job_costs_no_thread(jobify: Configure) -> None:
    asleep: SimpleQueue[int] = SimpleQueue()

    class Telling(SimpleQueue):  # type: ignore[type-arg]
        def get(self, *how: Any, **options: Any) -> Any:
            asleep.put(threading.get_ident())
            return super().get(*how, **options)

    jobify.run_on(replace(MACHINE, queue=Telling))
    jobify(WORKERS=2)
    with at_work():
        together = threading.Barrier(2, timeout=PATIENCE)
        for _ in range(3):
            jobs = [pushed(together.wait) for _ in range(2)]
            assert {ended(job) for job in jobs} == {JobStatus.SUCCESSFUL}
            for thread in {asleep.get(timeout=PATIENCE), asleep.get(timeout=PATIENCE)}:
                throw = ctypes.pythonapi.PyThreadState_SetAsyncExc
                throw(ctypes.c_ulong(thread), ctypes.py_object(TimeoutError))


@both
def test_whoever_hands_jobs_to_threads_wakes_one_of_them_at_most(jobify: Configure) -> None:
    woken: Counter[str] = Counter()

    class Counting(SimpleQueue):  # type: ignore[type-arg]
        def put(self, *item: Any) -> None:
            woken[threading.current_thread().name] += 1
            super().put(*item)

    jobify.run_on(replace(MACHINE, queue=Counting))
    jobify(WORKERS=6)
    together = threading.Barrier(6, timeout=PATIENCE)
    with at_work() as shop:
        first = [pushed(together.wait) for _ in range(6)]
        assert {ended(job) for job in first} == {JobStatus.SUCCESSFUL}
        until(lambda: shop.pool.workers.threads.idle == 6, "six idle threads")
        before = shop.pool.turns
        woken.clear()
        second = [pushed(together.wait) for _ in range(6)]
        assert {ended(job) for job in second} == {JobStatus.SUCCESSFUL}
        by_workers = sum(number for name, number in woken.items() if name.startswith("jobify-worker"))
        assert sum(woken.values()) - by_workers <= shop.pool.turns - before
        assert sum(woken.values()) >= 1


@both
def test_jobs_run_on_the_threads_there_are_and_none_is_charged(
    jobify: Configure, refusal: Refusal, caplog: pytest.LogCaptureFixture
) -> None:
    jobify(WORKERS=8)
    refusal.allow("jobify-worker", 2)
    jobs = [pushed(lambda: None) for _ in range(20)]
    with at_work() as shop:
        pool = shop.pool
        assert {ended(job) for job in jobs} == {JobStatus.SUCCESSFUL}
        assert shop.pool is pool
        assert not pool.died.done()

    assert refusal.met >= 1
    assert {record(job).crashes for job in jobs} == {0}
    given_back = [entry for job in jobs for entry in record(job).history]
    assert {(entry.reason, entry.charged) for entry in given_back} == {
        ("no thread could be started for it", False)
    }
    # Of the first claim alone: what is claimed then fits the threads.
    assert len(given_back) <= 8
    assert caplog.text.count("event=no-thread") == 1


@both
def test_more_run_at_once_again_when_the_system_has_threads_again(
    jobify: Configure, refusal: Refusal, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "jobify.worker")
    monkeypatch.setattr(threads, "TRY_AGAIN", 0.05)
    jobify(WORKERS=3)
    refusal.allow("jobify-worker", 1)
    pairs = [held() for _ in range(3)]
    with at_work():
        until(lambda: refusal.met >= 2, "two refusals")
        refusal.allow("jobify-worker", None)
        for _, gate in pairs:
            gate.reached()
        until(lambda: "event=threads-back" in caplog.text, "the line")
        for job, gate in pairs:
            gate.open()
            assert ended(job) is JobStatus.SUCCESSFUL


@faulty
def test_unstarted_jobs_come_back_although_the_store_refuses_them_at_first(
    jobify: Configure, refusal: Refusal
) -> None:
    jobify(WORKERS=2)
    refusal.allow("jobify-worker", 1)
    trouble.break_down("settle")
    (first, gate), (second, other) = held(), held()
    with at_work() as shop:
        gate.reached()
        until(lambda: trouble.met["settle"], "the hand-back that fails")
        shop.turn()
        assert record(second).status is JobStatus.WAITING
        trouble.clear()
        other.open()
        gate.open()
        assert {ended(first), ended(second)} == {JobStatus.SUCCESSFUL}
    assert record(second).crashes == 0


@both
@pytest.mark.parametrize("kind", ["jobify-upkeep", "jobify-watch"])
def test_a_pool_whose_threads_cannot_start_leaves_nothing_behind_or_goes_without(
    jobify: Configure, refusal: Refusal, kind: str
) -> None:
    refusal.allow(kind, 0)
    job = pushed(lambda: None)
    if kind == "jobify-upkeep":
        with pytest.raises(RuntimeError, match="can't start new thread"), at_work():
            pass
        assert record(job).status in (JobStatus.WAITING, JobStatus.SUCCESSFUL)
        assert list(queue().store.pools()) == []
        refusal.allow(kind, None)
    with at_work():
        assert ended(job) is JobStatus.SUCCESSFUL


# A pool that dies again and again


@both
def test_a_pool_that_dies_again_and_again_is_replaced_ever_later(
    jobify: Configure, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pauses: list[float] = []

    async def note(seconds: float) -> None:
        if seconds >= 1:
            pauses.append(seconds)
            seconds = 0
        await asyncio.sleep(seconds)

    def bug(self: Workers, states: object) -> NoReturn:
        raise AssertionError("a bug of ours")

    with monkeypatch.context() as patch, at_work(runtime=replace(MACHINE, asleep=note)):
        patch.setattr(Workers, "apply", bug)
        until(lambda: len(pauses) >= 8, "eight deaths")
        patch.undo()
    assert pauses[:8] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert "deaths=3 restart_in=4" in caplog.text


@both
def test_a_replacement_that_cannot_start_is_followed_by_another(
    jobify: Configure, refusal: Refusal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "RESTART_AFTER", 0.0)

    def bug(states: object) -> NoReturn:
        raise AssertionError("a bug of ours")

    with at_work() as shop:
        dead = shop.pool
        refusal.allow("jobify-upkeep", 0)
        monkeypatch.setattr(dead.workers, "apply", bug)
        dead.wake()
        until(lambda: refusal.met >= 2, "two replacements that cannot start")
        refusal.allow("jobify-upkeep", None)
        assert ended(pushed(lambda: None)) is JobStatus.SUCCESSFUL


def test_a_service_that_cannot_start_all_its_pools_stops_those_it_has_started(
    jobify: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobify(QUEUES={"quick": {"STORE": "tests.workshop.FaultyMemory"}})
    start = Pool.start
    started: list[Pool] = []

    async def second_fails(self: Pool) -> None:
        if started:
            raise RuntimeError("can't start new thread")
        started.append(self)
        await start(self)

    monkeypatch.setattr(Pool, "start", second_fails)

    async def serve() -> None:
        with pytest.raises(RuntimeError, match="can't start new thread"):
            await Service().start()

    asyncio.run(serve())
    (pool,) = started
    assert pool.phase >= Phase.DRAINING
    assert list(pool.store.pools()) == []
