"""A pool while it works: resized, paused, stopped, robbed of its store, and put in each other's place."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connection, connections

from jobify_django import Job, JobCancelled, JobStatus, UnknownQueue, queue
from jobify_django.job import JobSpec
from jobify_django.models import Pool as PoolRow
from jobify_django.models import Queue as QueueRow
from jobify_django.outcome import Outcome
from jobify_django.pool import Service, liveness, service, upkeep
from jobify_django.pool.phase import Phase
from jobify_django.pool.pool import Pool
from jobify_django.pool.slots import RunningJob
from jobify_django.signals import job_ended
from jobify_django.stores import stores
from jobify_django.stores.base import Store
from jobify_django.stores.memory import MemoryStore
from jobify_django.stores.value import PoolRecord, Renewed
from jobify_django.testing.conformance.ground import a_queue, outcome
from tests.child import PATIENCE, until
from tests.claims import claim, die, release
from tests.workshop import (
    Configure,
    Workshop,
    a_gate,
    aheld,
    at_work,
    both,
    database,
    do,
    faulty,
    held,
    memory,
    pushed,
    trouble,
)


def the_store() -> Store:
    return queue().store


def record(job: Job[Any]) -> Any:
    return the_store().get([job.id])[job.id]


def ended(job: Job[Any]) -> JobStatus:
    job.wait(timeout=PATIENCE)
    return job.status


def busy(shop: Workshop) -> int:
    return shop.pool.slots["default"].busy


@pytest.fixture
def brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chores that come round soon, and a dead pool that is replaced at once."""
    for name in ("HEARTBEAT_EVERY", "TUNE_EVERY", "RESCUE_EVERY", "RETRY_AFTER"):
        monkeypatch.setattr(upkeep, name, 0.05)
    monkeypatch.setattr(service, "RESTART_AFTER", 0.0)


def let_a_minute_pass() -> None:
    """Move the store's clock, so that every lease runs out."""
    store, clock = the_store(), the_store().clock
    store.clock = lambda: clock() + 60


# Its size


@both
def test_raised_workers_start_waiting_jobs_at_once(jobify: Configure) -> None:
    jobify(WORKERS=1)
    with at_work():
        _, first = held()
        first.reached()
        second, gate = held()
        queue().tune(workers=2)
        gate.reached()
        gate.open()
        assert ended(second) is JobStatus.SUCCESSFUL


@both
def test_lowered_workers_let_running_jobs_finish_and_start_no_more(jobify: Configure) -> None:
    jobify(WORKERS=3)
    with at_work() as shop:
        running = [held() for _ in range(3)]
        for _, gate in running:
            gate.reached()
        queue().tune(workers=1)
        until(lambda: shop.pool.slots["default"].size == 1, "the new size")
        waiting = [held() for _ in range(2)]
        for job, gate in running[:2]:
            gate.open()
            assert ended(job) is JobStatus.SUCCESSFUL
        shop.turn()
        assert [gate.began.is_set() for _, gate in waiting] == [False, False]
        running[2][1].open()
        waiting[0][1].reached()
        shop.turn()
        assert not waiting[1][1].began.is_set()


@both
def test_workers_go_up_and_down_and_up_and_every_job_runs_once(jobify: Configure) -> None:
    jobify(WORKERS=1)
    ran: list[int] = []
    lock = threading.Lock()
    most = [0]

    def work(number: int) -> None:
        with lock:
            ran.append(number)

    with at_work() as shop:
        jobs = []
        for number in range(60):
            jobs.append(pushed(lambda number=number: work(number)))
            if number % 10 == 0:
                queue().tune(workers=(1, 8, 2)[number // 10 % 3])
            most[0] = max(most[0], busy(shop))
        assert {ended(job) for job in jobs} == {JobStatus.SUCCESSFUL}

    assert sorted(ran) == list(range(60))
    assert most[0] <= 8


@both
def test_each_queue_has_workers_of_its_own(jobify: Configure) -> None:
    jobify(WORKERS=1, QUEUES={"mail": {}})
    with at_work():
        _, first = held()
        first.reached()
        _, second = held()
        _, other = held(queue="mail")
        other.reached()
        assert not second.began.is_set()


@both
def test_a_fixed_number_of_workers_stands_above_tuning(jobify: Configure) -> None:
    jobify(WORKERS=1)
    with at_work(workers=2) as shop:
        queue().tune(workers=5)
        until(lambda: shop.pool.slots["default"].version == 1, "the new version")
        assert shop.pool.slots["default"].size == 2


@both
def test_a_pool_reports_the_version_it_has_applied(jobify: Configure, brisk: None) -> None:
    with at_work():
        state = queue().tune(workers=4)
        until(
            lambda: [p.queues["default"].version for p in queue().stats().pools] == [state.version],
            "the report",
        )
        (pool,) = queue().stats().pools
        assert pool.queues["default"].workers == 4


# Its pause


@both
def test_a_paused_queue_starts_nothing_and_its_running_jobs_finish(jobify: Configure) -> None:
    with at_work() as shop:
        running, gate = held()
        gate.reached()
        queue().pause()
        waiting, never = held()
        gate.open()
        assert ended(running) is JobStatus.SUCCESSFUL
        shop.turn(3)
        assert not never.began.is_set()
        assert queue().stats().waiting == 1
        queue().resume()
        never.reached()
        never.open()
        assert ended(waiting) is JobStatus.SUCCESSFUL


# Its end


@both
@pytest.mark.parametrize("start", [held, aheld], ids=["def", "async"])
def test_a_stopping_pool_lets_running_jobs_end_and_starts_no_more(jobify: Configure, start: Any) -> None:
    jobify(WORKERS=1)
    with at_work(grace=PATIENCE + 1) as shop:
        running, gate = start()
        gate.reached()
        waiting = pushed(lambda: None)
        stopping = asyncio.run_coroutine_threadsafe(shop.service.drain(PATIENCE), shop.loop)
        until(lambda: shop.pool.phase >= Phase.DRAINING, "the drain")
        gate.open()
        assert stopping.result(PATIENCE) == []

    assert ended(running) is JobStatus.SUCCESSFUL
    assert record(waiting).status is JobStatus.WAITING
    assert the_store().pools() == []


@both
@pytest.mark.parametrize("start", [held, aheld], ids=["def", "async"])
def test_what_runs_after_the_grace_is_handed_back_uncharged_at_its_old_place(
    jobify: Configure, start: Any
) -> None:
    jobify(WORKERS=1)
    with at_work(grace=0) as shop:
        job, gate = start()
        gate.reached()
        pushed(lambda: None)
        pool = shop.pool.id

    left = record(job)
    assert (left.status, left.attempt, left.crashes) == (JobStatus.WAITING, 1, 0)
    assert [(i.attempt, i.reason, i.pool, i.charged) for i in left.history] == [
        (1, "its pool stopped", pool, False)
    ]
    assert job.position() == 0
    assert the_store().pools() == []


@both
def test_an_async_job_that_is_handed_back_is_cancelled_where_it_awaits(jobify: Configure) -> None:
    told = threading.Event()
    gate = a_gate()

    async def wait() -> None:
        try:
            await gate.apass_through()
        except asyncio.CancelledError:
            told.set()
            raise

    with at_work(grace=0):
        job = pushed(wait)
        gate.reached()

    assert told.is_set()
    assert record(job).status is JobStatus.WAITING


@both
def test_hurry_ends_a_drain_in_progress(jobify: Configure) -> None:
    with at_work(grace=0) as shop:
        job, gate = held()
        gate.reached()
        stopping = asyncio.run_coroutine_threadsafe(shop.service.drain(3600), shop.loop)
        until(lambda: shop.pool.phase >= Phase.DRAINING, "the drain")
        shop.loop.call_soon_threadsafe(shop.service.release_now)
        assert list(stopping.result(PATIENCE)) == [job.id]

    assert record(job).status is JobStatus.WAITING


@both
def test_a_drained_service_is_drained(jobify: Configure) -> None:
    with at_work() as shop:
        for _ in range(2):
            again = asyncio.run_coroutine_threadsafe(shop.service.drain(0), shop.loop)
            assert list(again.result(PATIENCE)) == []


# Cancelling


@both
def test_a_running_async_job_is_cancelled_where_it_awaits(jobify: Configure, brisk: None) -> None:
    with at_work():
        job, gate = aheld()
        gate.reached()
        assert job.cancel()
        assert ended(job) is JobStatus.CANCELLED
        with pytest.raises(JobCancelled, match=f"job {job.id} of tests.workshop.ado was cancelled"):
            job.result()


@both
def test_a_running_def_job_cannot_be_stopped_and_ends_as_it_ends(jobify: Configure, brisk: None) -> None:
    with at_work() as shop:
        job, gate = held()
        gate.reached()
        assert job.cancel()
        running = shop.pool.completer.running(job.id)
        assert running is not None
        until(lambda: running.stop_reason, "the wish")
        gate.open()
        assert ended(job) is JobStatus.SUCCESSFUL


@database
def test_a_job_cancelled_before_a_blocked_loop_could_begin_it_is_cancelled(
    jobify: Configure, brisk: None
) -> None:
    gate = a_gate()
    ran: list[str] = []

    async def block() -> None:
        gate.pass_through()

    async def note() -> None:
        ran.append("note")

    with at_work() as shop:
        pushed(block)
        gate.reached()
        job = pushed(note)
        until(lambda: shop.pool.completer.running(job.id), "the claim")
        running = shop.pool.completer.running(job.id)
        assert running is not None
        assert job.cancel()
        until(lambda: running.stop_reason, "the wish")
        gate.open()
        assert ended(job) is JobStatus.CANCELLED
        assert ran == []
        shop.turn()
        assert busy(shop) == 0


# Its leases


@both
@pytest.mark.parametrize("kind", ["every thread busy", "the loop blocked"])
def test_leases_are_renewed_whatever_the_jobs_do(jobify: Configure, kind: str) -> None:
    jobify(WORKERS=2, LEASE=1)

    async def block() -> None:
        gate.pass_through()

    with at_work():
        if kind == "the loop blocked":
            gate = a_gate()
            jobs, gates = [pushed(block)], [gate]
        else:
            pairs = [held() for _ in range(2)]
            jobs, gates = [job for job, _ in pairs], [gate for _, gate in pairs]
        for one in gates:
            one.reached()
        for _ in range(2):
            leases = [record(job).lease_until for job in jobs]
            for job, lease in zip(jobs, leases, strict=True):
                until(lambda job=job, lease=lease: record(job).lease_until > lease, "the renewal")
        for one in gates:
            one.open()
        assert {ended(job) for job in jobs} == {JobStatus.SUCCESSFUL}
        assert {record(job).attempt for job in jobs} == {1}


@both
def test_a_stale_outcome_is_refused_said_once_and_changes_nothing(
    jobify: Configure, brisk: None, caplog: pytest.LogCaptureFixture
) -> None:
    jobify(WORKERS=2)
    gates = [a_gate(), a_gate()]
    starts: list[int] = []

    def work() -> int:
        starts.append(len(starts))
        number = starts[-1]
        gates[number].pass_through()
        return number

    with at_work() as shop:
        job = pushed(work)
        gates[0].reached()
        let_a_minute_pass()
        the_store().rescue()  # as another pool does
        gates[1].reached()
        assert busy(shop) == 2
        assert record(job).attempt == 2
        assert [(i.attempt, i.charged) for i in record(job).history] == [(1, True)]
        gates[0].open()
        until(lambda: "event=refused" in caplog.text, "the refusal")
        assert record(job).status is JobStatus.RUNNING
        gates[1].open()
        assert ended(job) is JobStatus.SUCCESSFUL
        assert job.result() == 1
        shop.turn()
        assert busy(shop) == 0

    assert caplog.text.count("event=refused") == 1
    assert "another attempt holds the job now" in caplog.text


@both
def test_an_async_job_that_another_pool_holds_now_is_stopped(
    jobify: Configure, caplog: pytest.LogCaptureFixture
) -> None:
    jobify(LEASE=1, WORKERS=1)
    told = threading.Event()
    gate = a_gate()

    async def wait() -> None:
        try:
            await gate.apass_through()
        except asyncio.CancelledError:
            told.set()
            raise

    with at_work() as shop:
        job = pushed(wait)
        gate.reached()
        queue().pause()
        release(the_store(), [record(job)], shop.pool.id, "a test took it")
        assert told.wait(PATIENCE)
        until(lambda: busy(shop) == 0, "the free worker")
        assert record(job).status is JobStatus.WAITING

    assert f"event=lost id={job.id}" in caplog.text


# A store that is away


@faulty
def test_every_loop_survives_a_store_that_is_away(
    jobify: Configure, brisk: None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "jobify")
    jobify(LEASE=1)
    with at_work() as shop:
        pushed(lambda: None).wait(timeout=PATIENCE)
        pool = shop.pool.id
        trouble.break_down("claim", "settle", "renew", "heartbeat", "sync", "rescue", "prune")
        job = pushed(lambda: "after")
        shop.pool.wake()
        until(lambda: trouble.met["claim"] >= 2, "two tries")
        for chore in ("sync", "heartbeat"):
            until(lambda chore=chore: trouble.met[chore] >= 2, f"two tries of {chore}")
        assert record(job).status is JobStatus.WAITING
        # A heartbeat that arrives tells that nothing is to be rescued.
        trouble.break_down("claim", "rescue", "heartbeat")
        until(lambda: trouble.met["rescue"] >= 2, "two tries of rescue")
        trouble.clear()
        assert ended(job) is JobStatus.SUCCESSFUL
        assert shop.pool.id == pool
        until(lambda: [p.id for p in the_store().pools()] == [pool], "the next heartbeat")

    away = [r for r in caplog.records if "event=store-away" in r.message]
    assert [r.levelno for r in away] == [logging.ERROR]
    assert "event=store-back" in caplog.text


@faulty
@pytest.mark.parametrize("start", [held, aheld], ids=["def", "async"])
def test_an_outcome_that_cannot_be_stored_is_kept_and_stored_later(jobify: Configure, start: Any) -> None:
    jobify(WORKERS=2)
    with at_work() as shop:
        job, gate = start()
        gate.reached()
        trouble.break_down("claim", "settle")
        # Not in the middle of a claim that began before.
        shop.pool.wake()
        until(lambda: trouble.met["claim"], "a claim that fails")
        waiting = pushed(lambda: None)
        gate.open()
        until(lambda: busy(shop) == 0, "the job's end")
        until(lambda: trouble.met["claim"] >= 3, "more tries")
        assert record(job).status is JobStatus.RUNNING
        assert record(waiting).status is JobStatus.WAITING
        trouble.clear()
        assert ended(job) is JobStatus.SUCCESSFUL
        assert ended(waiting) is JobStatus.SUCCESSFUL
        assert record(job).attempt == 1


@faulty
def test_a_kept_outcome_is_refused_when_the_job_has_gone_to_somebody_else(
    jobify: Configure, brisk: None, caplog: pytest.LogCaptureFixture
) -> None:
    results = iter(["first", "second"])
    gate = a_gate()

    def work() -> str:
        result = next(results)
        gate.pass_through()
        return result

    with at_work() as shop:
        job = pushed(work)
        gate.reached()
        trouble.break_down("claim", "settle", "renew")
        gate.open()
        until(lambda: busy(shop) == 0, "the job's end")
        let_a_minute_pass()
        the_store().rescue()  # as a pool does that could reach the store all along
        assert record(job).status is JobStatus.WAITING
        trouble.clear()
        assert ended(job) is JobStatus.SUCCESSFUL
        assert job.result() == "second"

    assert (record(job).attempt, record(job).crashes) == (2, 1)
    assert "event=refused" in caplog.text


@faulty
def test_a_claim_whose_reply_is_lost_is_handed_back_uncharged_and_runs(jobify: Configure) -> None:
    with at_work() as shop:
        trouble.lose_reply("claim")
        job = pushed(lambda: "done")
        assert ended(job) is JobStatus.SUCCESSFUL
        assert busy(shop) == 0

    found = record(job)
    assert (found.attempt, found.crashes) == (2, 0)
    assert [(i.attempt, i.reason, i.charged) for i in found.history] == [
        (1, "the reply to its claim was lost", False)
    ]


@faulty
def test_jobs_that_run_are_no_strays_of_a_lost_reply(jobify: Configure) -> None:
    with at_work():
        running, gate = held()
        gate.reached()
        trouble.lose_reply("claim")
        assert ended(pushed(lambda: None)) is JobStatus.SUCCESSFUL
        gate.open()
        assert ended(running) is JobStatus.SUCCESSFUL
        assert record(running).attempt == 1


@faulty
def test_an_outcome_whose_reply_is_lost_is_stored_once(
    jobify: Configure, caplog: pytest.LogCaptureFixture
) -> None:
    jobify(WORKERS=1)
    with at_work() as shop:
        job, gate = held()
        gate.reached()
        pushed(lambda: None)
        trouble.lose_reply("claim")
        gate.open()
        assert ended(job) is JobStatus.SUCCESSFUL
        until(lambda: shop.pool.completer.empty, "the rest")
        assert record(job).attempt == 1


@faulty
def test_a_pool_that_stops_without_its_store_says_so(
    jobify: Configure, caplog: pytest.LogCaptureFixture
) -> None:
    with at_work(grace=0):
        _, gate = held()
        gate.reached()
        trouble.break_down("claim", "settle", "retire")

    assert "event=stopped-without-store" in caplog.text


@faulty
def test_a_pool_starts_while_its_store_is_away(jobify: Configure) -> None:
    job = pushed(lambda: None)
    trouble.break_down("claim", "settle", "heartbeat", "sync", "rescue", "prune")
    with at_work():
        until(lambda: trouble.met["claim"], "the first try")
        trouble.clear()
        assert ended(job) is JobStatus.SUCCESSFUL


# A pool that dies of a bug


@both
def test_a_dead_pool_is_replaced_and_its_jobs_are_handed_back_uncharged(
    jobify: Configure, monkeypatch: pytest.MonkeyPatch, brisk: None, caplog: pytest.LogCaptureFixture
) -> None:
    gates = [a_gate(), a_gate()]
    starts: list[int] = []

    async def work() -> None:
        starts.append(len(starts))
        await gates[starts[-1]].apass_through()

    with at_work() as shop:
        dead = shop.pool
        job = pushed(work)
        gates[0].reached()

        def bug(states: object) -> None:
            raise AssertionError("a bug of ours")

        monkeypatch.setattr(dead.workers, "apply", bug)
        dead.wake()
        gates[1].reached()
        assert shop.pool is not dead
        gates[1].open()
        assert ended(job) is JobStatus.SUCCESSFUL
        assert (record(job).attempt, record(job).crashes) == (2, 0)

    assert "event=pool-died" in caplog.text
    assert "event=pool-restart" in caplog.text
    assert "a bug of ours" in caplog.text


@both
def test_a_pool_whose_upkeep_dies_is_replaced(
    jobify: Configure, brisk: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with at_work() as shop:
        dead = shop.pool

        beat = dead.store.heartbeat

        def bug(pool: PoolRecord) -> None:
            if pool.id == dead.id:
                raise SystemExit
            beat(pool)

        until(lambda: dead.turns, "its first turn")
        monkeypatch.setattr(dead.store, "heartbeat", bug)
        until(lambda: shop.pool is not dead, "another pool")
        assert ended(pushed(lambda: None)) is JobStatus.SUCCESSFUL


# What it says


@both
def test_a_blocked_loop_is_reported_with_the_jobs_on_it(
    jobify: Configure, monkeypatch: pytest.MonkeyPatch, brisk: None, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(liveness, "LAG_WORTH_A_WARNING", 0.05)
    gate = a_gate()

    async def block() -> None:
        gate.pass_through()

    with at_work():
        job = pushed(block)
        gate.reached()
        until(lambda: "event=loop-blocked" in caplog.text, "the warning")
        gate.open()
        assert ended(job) is JobStatus.SUCCESSFUL

    (said, *_) = [r.message for r in caplog.records if "event=loop-blocked" in r.message]
    assert f"tests.workshop.ado {job.id}" in said


@both
def test_a_rescue_is_reported_with_the_pool_it_was_taken_from(
    jobify: Configure, brisk: None, caplog: pytest.LogCaptureFixture
) -> None:
    jobify(LEASE=1)
    job = pushed(lambda: None)
    (claim,) = die(the_store())
    with at_work():
        assert ended(job) is JobStatus.SUCCESSFUL

    assert (
        f"event=rescued id={claim.id} task={claim.task} attempt=1 from=dead-pool now=waiting" in caplog.text
    )
    assert (record(job).attempt, record(job).crashes) == (2, 1)


@both
def test_a_job_that_killed_its_workers_three_times_is_failed_and_can_be_retried(
    jobify: Configure, brisk: None
) -> None:
    jobify(LEASE=1)
    job = pushed(lambda: "at last")
    for _ in range(2):
        die(the_store())
        the_store().rescue()
    die(the_store())
    with at_work():
        assert ended(job) is JobStatus.FAILED
        assert job.error is not None
        assert "crashed its worker 3 times" in job.error.message
        assert list(the_store().retry([job.id])) == [job.id]
        until(lambda: record(job).status is JobStatus.SUCCESSFUL, "the retry")


@memory
def test_receivers_are_told_how_a_job_ended_and_a_broken_one_harms_nobody(
    jobify: Configure, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[Outcome] = []

    def broken(**kwargs: Any) -> None:
        raise ValueError("no")

    def good(outcome: Outcome, **kwargs: Any) -> None:
        told.append(outcome)

    job_ended.connect(broken)
    job_ended.connect(good)
    try:
        with at_work():
            job = pushed(lambda: 7)
            job.wait(timeout=PATIENCE)
            until(lambda: told, "the signal")
            pushed(lambda: 8).wait(timeout=PATIENCE)
    finally:
        job_ended.disconnect(broken)
        job_ended.disconnect(good)

    assert (told[0].id, told[0].status, told[0].result) == (job.id, JobStatus.SUCCESSFUL, "7")
    assert "event=receiver-failed" in caplog.text


@memory
def test_a_failed_job_is_logged_on_one_line_whatever_its_message(
    jobify: Configure, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise ValueError("one\nevent=done id=forged")

    with at_work() as shop:
        job = pushed(fail)
        job.wait(timeout=PATIENCE)
        until(lambda: shop.pool.completer.empty, "the report")

    (said,) = [r.message for r in caplog.records if f"id={job.id}" in r.message]
    assert said.startswith("event=failed ")
    assert "\n" not in said


# Idle


@pytest.mark.skipif(connection.vendor != "sqlite", reason="looks at SQLite's own books")
@database
def test_an_idle_pool_writes_nothing_but_its_heartbeat(jobify: Configure) -> None:
    def version() -> tuple[Any, ...]:
        with connections["default"].cursor() as cursor:
            (seen,) = cursor.execute("PRAGMA data_version").fetchone()
        return seen, list(PoolRow.objects.values_list("seen_at"))

    with at_work() as shop:
        until(lambda: PoolRow.objects.exists(), "the first heartbeat")
        quiet = 0
        while not quiet:
            before, beat = version()
            shop.turn(20)
            after, latest = version()
            if beat == latest:
                assert after == before
                quiet = 1


@database
def test_old_jobs_are_pruned_while_it_works(
    jobify: Configure, monkeypatch: pytest.MonkeyPatch, brisk: None
) -> None:
    jobify(RETENTION=0, FAILED_RETENTION=3600)
    monkeypatch.setattr(upkeep, "PRUNE_EVERY", 0.05)

    def fail() -> None:
        raise ValueError

    with at_work():
        good, bad = pushed(lambda: None), pushed(fail)
        until(lambda: good.id not in the_store().get([good.id]), "the pruning")
        assert ended(bad) is JobStatus.FAILED


@pytest.mark.skipif(connection.vendor != "sqlite", reason="looks at SQLite's own books")
@database
def test_a_wrong_count_is_mended_while_it_works(
    jobify: Configure, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(upkeep, "REPAIR_EVERY", 0.05)
    queue().pause()
    pushed(lambda: None)
    QueueRow.objects.update(waiting=1000)
    with at_work():
        until(lambda: QueueRow.objects.get().waiting == 1, "the repair")
        until(lambda: "event=repaired" in caplog.text, "the report")


# Several stores in one process


@database
def test_one_service_runs_the_queues_of_several_stores(jobify: Configure) -> None:
    jobify(QUEUES={"quick": {"STORE": "memory"}})
    with at_work() as shop:
        assert {pool.store.alias for pool in shop.service.pools} == {"database", "memory"}
        jobs = [pushed(lambda: 1), pushed(lambda: 2, queue="quick")]
        assert {ended(job) for job in jobs} == {JobStatus.SUCCESSFUL}
    assert set(stores["memory"].get([job.id for job in jobs])) == {jobs[1].id}


def test_a_service_needs_a_queue_it_knows(settings: Any) -> None:
    settings.JOBIFY = {"STORE": "memory"}
    with pytest.raises(UnknownQueue, match="no queue 'mail'"):
        Service(["mail"])
    with pytest.raises(UnknownQueue, match="no queue is left"):
        Service(exclude=["default"])


def a_pool_with_a_job() -> tuple[Pool, RunningJob]:
    """A pool that has not started, and the job it runs, whose lease is renewed again and again."""
    served, store = a_queue(lease=0.03), MemoryStore("memory")
    store.add(served, [JobSpec("a", "app.tasks.a", "[[],{}]")])
    pool = Pool(store, [served])
    running = pool.slots["default"].take(*claim(store, pool=pool.id), do)
    pool.completer.hold(running)
    return pool, running


@contextlib.contextmanager
def upkeep_of(pool: Pool, monkeypatch: pytest.MonkeyPatch, *, stops: bool = False) -> Iterator[list[Renewed]]:
    """Do what a pool does beside claiming, and yield what its renewals brought; it ``stops`` during one."""
    renewed: list[Renewed] = []
    renew = pool.store.renew

    def watched(*given: Any) -> Renewed:
        answer = renew(*given)
        if stops:
            beside.stop()
        renewed.append(answer)
        return answer

    monkeypatch.setattr(pool.store, "renew", watched)
    beside = upkeep.Upkeep(
        pool.id,
        pool.store,
        pool.queues,
        pool.workers,
        pool.completer,
        turns=lambda: 0,
        record=pool.record,
        died=lambda error: None,
    )
    loop = asyncio.new_event_loop()
    loop.close()  # no job runs on it
    beside.start(loop)
    try:
        yield renewed
    finally:
        beside.stop()
        beside.join(PATIENCE)


def test_a_job_that_has_ended_here_is_not_reported_lost(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # Its outcome is stored, and the reply is still on its way when its lease is to be renewed.
    pool, running = a_pool_with_a_job()
    pool.store.settle([outcome(running.claim)])
    running.slots.leave(running)

    with upkeep_of(pool, monkeypatch) as renewed:
        until(lambda: len(renewed) >= 2, "what follows a renewal")

    assert list(renewed[0].lost) == [running.claim.id]
    assert "event=lost" not in caplog.text


def test_a_job_that_a_stopping_pool_hands_back_is_not_reported_lost(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # The renewal was under way when the pool said its last words.
    pool, running = a_pool_with_a_job()
    release(pool.store, [running.claim], pool.id)

    with upkeep_of(pool, monkeypatch, stops=True) as renewed:
        until(lambda: renewed, "the renewal")

    assert list(renewed[0].lost) == [running.claim.id]
    assert "event=lost" not in caplog.text
