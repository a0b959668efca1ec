"""Waiting for a job, and what it came to: ``wait``, ``result``, ``await job``, ``refresh``, ``cancel``."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import connection, connections, transaction

from jobify_django import (
    Job,
    JobCancelled,
    JobFailed,
    JobNotFinished,
    JobNotFound,
    JobStatus,
    WaitTimeout,
    aget_job,
    get_job,
    queue,
    task,
)
from jobify_django.job import Claim, JobError
from jobify_django.outcome import succeeded
from jobify_django.stores.base import Store
from jobify_django.stores.database import DatabaseStore
from jobify_django.stores.memory.row import Row
from jobify_django.testing.conformance.ground import outcome
from tests.child import PATIENCE, until
from tests.claims import claim, die
from tests.workshop import Configure, at_work, awaiting, both, database, held, memory, notice_nothing, pushed


@task
def note(value: Any = None) -> Any:
    return value


def the_store() -> Store:
    return queue().store


def watched() -> int:
    return awaiting(the_store())


def start(jobs: int = 1) -> list[Claim]:
    return claim(the_store(), jobs)


def end(started: Claim, status: JobStatus = JobStatus.SUCCESSFUL, **values: Any) -> None:
    assert the_store().settle([outcome(started, status, **values)]) in ((), [])


class Waits:
    """Waits in threads of their own."""

    def __init__(self) -> None:
        self.ended: list[Any] = []
        self._threads: list[threading.Thread] = []

    def start(self, job: Job[Any], **options: Any) -> None:
        """Start a wait, and return once it is one of those who wait."""
        before = watched()

        def work() -> None:
            try:
                job.wait(**options)
                self.ended.append(job.status)
            except Exception as error:
                self.ended.append(type(error))
            finally:
                connection.close()

        thread = threading.Thread(target=work)
        self._threads.append(thread)
        thread.start()
        until(lambda: watched() == before + 1, "the wait")

    def finish(self) -> list[Any]:
        for thread in self._threads:
            thread.join(PATIENCE)
            assert not thread.is_alive(), "a wait goes on for ever"
        return self.ended


@pytest.fixture
def waits() -> Iterator[Waits]:
    made = Waits()
    yield made
    made.finish()


# How a job can end


@both
def test_a_job_that_succeeded_gives_its_result(jobify: Configure, waits: Waits) -> None:
    job = note.push()
    waits.start(job, timeout=PATIENCE)
    end(start()[0], result='{"a":[1]}')
    assert waits.finish() == [JobStatus.SUCCESSFUL]
    assert job.result() == {"a": [1]}
    assert (job.attempts, job.error) == (1, None)
    assert job.started_at is not None
    assert job.ended_at is not None
    assert job.pushed_at <= job.started_at <= job.ended_at


@both
def test_a_job_that_failed_raises_with_the_stored_error(jobify: Configure, waits: Waits) -> None:
    job = note.push()
    waits.start(job)
    end(start()[0], JobStatus.FAILED, error=JobError("app.Broken", "no luck", "Traceback ..."))
    assert waits.finish() == [JobStatus.FAILED]
    with pytest.raises(JobFailed, match=rf"job {job.id} of {note.name} failed: app.Broken: no luck") as got:
        job.result()
    assert (got.value.error_type, got.value.traceback) == ("app.Broken", "Traceback ...")
    assert job.error == JobError("app.Broken", "no luck", "Traceback ...")


@both
def test_a_job_that_was_cancelled_raises(jobify: Configure, waits: Waits) -> None:
    job = note.push()
    waits.start(job)
    assert get_job(job.id).cancel()
    assert waits.finish() == [JobStatus.CANCELLED]
    with pytest.raises(JobCancelled, match=f"job {job.id} of {note.name} was cancelled"):
        job.result()


@both
def test_a_job_that_killed_its_workers_ends_the_wait(jobify: Configure, waits: Waits) -> None:
    job = note.push()
    waits.start(job)
    for _ in range(3):
        die(the_store())
        the_store().rescue()
    assert waits.finish() == [JobStatus.FAILED]
    with pytest.raises(JobFailed, match="crashed its worker 3 times"):
        job.result()


@both
def test_a_wait_for_a_job_that_has_ended_returns_at_once(jobify: Configure) -> None:
    job = note.push()
    end(start()[0], result="7")
    job.wait(timeout=0)
    assert job.result() == 7


# How a wait can end otherwise


@both
@pytest.mark.parametrize("timeout", [1e12, float("inf")])
def test_a_timeout_may_be_longer_than_any_lock_waits(jobify: Configure, waits: Waits, timeout: float) -> None:
    job = note.push()
    waits.start(job, timeout=timeout)
    end(start()[0])
    assert waits.finish() == [JobStatus.SUCCESSFUL]


@both
def test_a_wait_that_takes_too_long_says_so_and_the_job_goes_on(jobify: Configure) -> None:
    job = note.push()
    for timeout in (0, 0.01):
        with pytest.raises(WaitTimeout, match=rf"job {job.id} had not ended after {timeout:g} s; it goes on"):
            job.wait(timeout=timeout)
    assert issubclass(WaitTimeout, TimeoutError)
    assert watched() == 0
    end(start()[0])
    job.wait(timeout=PATIENCE)


@both
def test_a_result_before_the_end_says_to_wait(jobify: Configure) -> None:
    job = note.push()
    with pytest.raises(JobNotFinished, match=f"job {job.id} is waiting: wait for it first"):
        job.result()
    (started,) = start()
    with pytest.raises(JobNotFinished, match="is running"):
        job.result()
    end(started, result="1")
    assert job.result() == 1  # in sync code it looks by itself


@database
def test_a_wait_for_a_job_that_was_pruned_says_so(jobify: Configure, waits: Waits) -> None:
    job = note.push()
    (started,) = start()
    waits.start(job)
    # Ended and deleted by another process, at once: nobody tells this one anything but that data changed.
    elsewhere = DatabaseStore("elsewhere")
    with transaction.atomic():
        elsewhere.settle([succeeded(started)])
        elsewhere.prune(older_than=-1, failed_older_than=-1)
    assert waits.finish() == [JobNotFound]


@database
def test_a_job_whose_transaction_was_rolled_back_is_not_found(jobify: Configure) -> None:
    with transaction.atomic():
        job = note.push()
        transaction.set_rollback(True)
    for look in (job.wait, job.refresh, job.cancel):
        with pytest.raises(JobNotFound, match="was rolled back, or it ended and was pruned"):
            look()
    with pytest.raises(JobNotFound, match="no store holds a job"):
        get_job(job.id)


@memory
def test_a_job_in_memory_is_known_to_who_holds_it_when_the_store_has_forgotten_it(
    jobify: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobify(WORKERS=1)  # so that they end in their order
    monkeypatch.setattr("jobify_django.stores.memory.store.KEPT", 2)
    with at_work():
        jobs = [note.push(value) for value in range(10)]
        for job in jobs:
            job.wait(timeout=PATIENCE)
        assert [job.result() for job in jobs] == list(range(10))
    with pytest.raises(JobNotFound):
        get_job(jobs[0].id)


# Other handles, other threads, other processes


@both
def test_a_job_is_found_by_its_id_and_is_the_same_job(jobify: Configure) -> None:
    jobify(QUEUES={"mail": {"STORE": "memory"}})
    for job in (note.push(1), note.using(queue="mail").push(2)):
        found = get_job(job.id)
        assert found == job
        assert hash(found) == hash(job)
        assert (found.queue, found.args, found.task) == (job.queue, job.args, note.name)
        assert repr(found) == f"<Job {job.id} of {note.name}: waiting>"
    assert note.push(1) != note.push(1)


@both
def test_many_wait_for_one_job_and_each_is_told(jobify: Configure, waits: Waits) -> None:
    job = note.push()
    for _ in range(4):
        waits.start(get_job(job.id), timeout=PATIENCE)
    end(start()[0])
    assert waits.finish() == [JobStatus.SUCCESSFUL] * 4
    assert watched() == 0


@both
def test_who_leads_the_waiting_may_leave_first(jobify: Configure, waits: Waits) -> None:
    job = note.push()
    waits.start(job, timeout=0.1)
    waits.start(get_job(job.id), timeout=PATIENCE)
    until(lambda: watched() == 1, "the first one's end")
    end(start()[0])
    assert waits.finish() == [WaitTimeout, JobStatus.SUCCESSFUL]


@database
def test_an_end_written_by_another_connection_is_noticed(jobify: Configure, waits: Waits) -> None:
    job = note.push()
    (started,) = start()
    waits.start(job, timeout=PATIENCE)
    DatabaseStore("elsewhere").settle([succeeded(started)])
    assert waits.finish() == [JobStatus.SUCCESSFUL]


@database
def test_an_end_is_noticed_by_polling_when_every_notification_is_lost(
    jobify: Configure, waits: Waits, monkeypatch: pytest.MonkeyPatch
) -> None:
    notice_nothing(monkeypatch)
    job = note.push()
    (started,) = start()
    waits.start(job, timeout=PATIENCE)
    DatabaseStore("elsewhere").settle([succeeded(started)])
    assert waits.finish() == [JobStatus.SUCCESSFUL]


# Where an event loop runs


@both
def test_waits_are_gathered_and_jobs_awaited(jobify: Configure) -> None:
    async def main() -> list[Any]:
        jobs = [await note.apush(value) for value in range(5)]
        await asyncio.gather(*(job.wait(timeout=PATIENCE) for job in jobs))
        seen = [job.result() for job in jobs]
        seen.append(await (await note.apush("awaited")))
        again = await aget_job(jobs[0].id)
        await again.wait()
        seen.append(again.result())
        await sync_to_async(connections.close_all)()
        return seen

    with at_work():
        assert asyncio.run(main()) == [0, 1, 2, 3, 4, "awaited", 0]


@both
async def test_awaiting_a_job_raises_as_its_result_does(jobify: Configure) -> None:
    job = await note.apush()
    assert await job.cancel() is True
    assert await job.acancel() is False
    with pytest.raises(JobCancelled):
        await job


@both
async def test_a_result_in_async_code_goes_by_what_was_last_read(jobify: Configure) -> None:
    job = await note.apush()
    (started,) = await sync_to_async(start)()
    await sync_to_async(end)(started, result="7")
    if the_store().blocking:
        with pytest.raises(JobNotFinished):
            job.result()
    await job.arefresh()
    assert job.result() == 7
    assert (await job.aposition(), job.status) == (None, JobStatus.SUCCESSFUL)


@both
async def test_a_cancelled_wait_is_no_longer_waited_for(jobify: Configure) -> None:
    job = await note.apush()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await job.wait()
    assert watched() == 0
    with pytest.raises(WaitTimeout):
        await job.wait(timeout=0.01)


@database
async def test_a_thousand_waits_cost_one_query_a_poll(
    jobify: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobify(MAXSIZE=20_000)
    count = 1_000
    jobs = await note.apush_many([(value,) for value in range(count)])
    asked: list[int] = []
    get = the_store().get

    def counted(ids: Any) -> Any:
        if len(ids) > 1:
            asked.append(len(ids))
        return get(ids)

    monkeypatch.setattr(the_store(), "get", counted)
    waits = [asyncio.ensure_future(job.wait(timeout=PATIENCE)) for job in jobs]
    async with asyncio.timeout(PATIENCE):
        while watched() < count:  # noqa: ASYNC110 - the waits join one by one
            await asyncio.sleep(0.005)
    asked.clear()
    polls = 5
    async with asyncio.timeout(PATIENCE):
        while len(asked) < polls:  # noqa: ASYNC110 - the leader asks at its own pace
            await asyncio.sleep(0.005)
    # Each question is about all of them.
    assert set(asked) == {count}
    for wait in waits:
        wait.cancel()
    await asyncio.gather(*waits, return_exceptions=True)
    assert watched() == 0


@memory
async def test_ten_thousand_waits_for_live_jobs_ask_nothing(
    jobify: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobify(MAXSIZE=20_000)
    jobs = await note.apush_many([(value,) for value in range(10_000)])
    waits = [asyncio.ensure_future(job.wait(timeout=PATIENCE)) for job in jobs]
    await asyncio.sleep(0)
    assert watched() == len(jobs)
    asked: list[Any] = []
    monkeypatch.setattr(the_store(), "query", asked.append)
    claims = await sync_to_async(start)(len(jobs))
    await sync_to_async(the_store().settle)([succeeded(started, "1") for started in claims])
    await asyncio.gather(*waits)
    assert [await job for job in jobs] == [1] * len(jobs)
    assert not asked
    assert watched() == 0


@memory
async def test_an_end_just_before_a_wait_is_in_place_is_not_missed(
    jobify: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_waker = Row.add_waker

    def end_first(row: Row, waker: Any) -> None:
        end(start()[0], result="3")
        add_waker(row, waker)

    monkeypatch.setattr(Row, "add_waker", end_first)
    job = await note.apush()
    async with asyncio.timeout(PATIENCE):
        assert await job == 3
    other = await note.apush()
    await asyncio.to_thread(other.wait, timeout=PATIENCE)
    assert other.result() == 3
    assert watched() == 0


@memory
async def test_a_job_that_is_retried_as_it_ends_is_waited_for_on(jobify: Configure) -> None:
    job = await note.apush()
    wait = asyncio.ensure_future(job.wait(timeout=PATIENCE))
    await asyncio.sleep(0)
    end(start()[0], JobStatus.FAILED)
    assert the_store().retry([job.id])  # before the wait has looked
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not wait.done()
    end(start()[0], result="2")
    await wait
    assert job.result() == 2


@memory
def test_waits_on_several_loops_and_threads_are_each_woken_where_they_are(
    jobify: Configure, waits: Waits
) -> None:
    job = note.push()

    def on_a_loop(found: list[Any]) -> None:
        async def main() -> None:
            found.append(await job)

        asyncio.run(main())

    found: list[Any] = []
    loops = [threading.Thread(target=on_a_loop, args=(found,)) for _ in range(3)]
    for thread in loops:
        thread.start()
    until(lambda: watched() == len(loops), "the waits on the loops")
    waits.start(job, timeout=PATIENCE)
    end(start()[0], result="5")
    for thread in loops:
        thread.join(PATIENCE)
    assert found == [5] * len(loops)
    assert waits.finish() == [JobStatus.SUCCESSFUL]
    assert watched() == 0


@memory
def test_a_loop_that_was_closed_under_its_wait_keeps_nobody_from_the_end(
    jobify: Configure, waits: Waits
) -> None:
    job = note.push()
    gone = asyncio.new_event_loop()
    wait = gone.create_task(job.await_end())
    gone.call_soon(gone.stop)
    gone.run_forever()
    gone.close()
    assert watched() == 1
    waits.start(job, timeout=PATIENCE)
    end(start()[0])
    assert waits.finish() == [JobStatus.SUCCESSFUL]
    assert not wait.done()
    del wait


# Looking and acting


@both
def test_a_job_tells_its_position_until_it_starts(jobify: Configure) -> None:
    jobs = [note.push(value) for value in range(3)]
    first = note.using(priority=5).push(9)
    assert [job.position() for job in [first, *jobs]] == [0, 1, 2, 3]
    start(2)
    assert [job.position() for job in [first, *jobs]] == [None, None, 0, 1]
    assert note.using(delay=60).push(1).position() is None


@both
def test_cancel_tells_whether_there_was_anything_to_cancel(jobify: Configure) -> None:
    job = note.push()
    assert job.cancel() is True
    assert job.status is JobStatus.CANCELLED
    assert job.cancel() is False


@both
def test_a_refreshed_job_shows_what_happened_meanwhile(jobify: Configure) -> None:
    job = note.push()
    (started,) = start()
    assert job.status is JobStatus.WAITING or not the_store().blocking
    job.refresh()
    assert (job.status, job.attempts) == (JobStatus.RUNNING, 1)
    end(started)
    assert job.record().status is JobStatus.SUCCESSFUL


@both
def test_a_job_can_wait_for_another_while_workers_are_left(jobify: Configure) -> None:
    jobify(WORKERS=2)

    def wait() -> Any:
        other = note.push("inner")
        other.wait(timeout=PATIENCE)
        return other.result()

    with at_work():
        job = pushed(wait)
        job.wait(timeout=PATIENCE)
        assert job.result() == "inner"


@both
def test_a_wait_ends_although_its_pool_has_stopped_and_another_ran_the_job(
    jobify: Configure, waits: Waits
) -> None:
    with at_work(grace=0):
        job, gate = held()
        gate.reached()
        waits.start(job, timeout=PATIENCE)
    gate.open()
    with at_work():
        assert waits.finish() == [JobStatus.SUCCESSFUL]
