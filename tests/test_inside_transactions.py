"""Workers, and waits, where a transaction is open that they cannot see into: an error at once, not a hang."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.db import transaction
from django.test import SimpleTestCase, TestCase, TransactionTestCase, override_settings

from jobify_django import Job, StoreError, WaitDeadlock, WaitTimeout, get_job, task
from jobify_django.asgi import lifespan
from jobify_django.pool import Service, serving
from tests.child import PATIENCE
from tests.workshop import Configure, at_work, database, pushed

IN_A_TEST = "a test keeps a transaction open on database 'default'.*TransactionTestCase"
IN_A_BLOCK = "an atomic\\(\\) block is open on database 'default' here"


@task
def add(a: int, b: int) -> int:
    return a + b


async def run_what_waits() -> None:
    async with asyncio.timeout(PATIENCE), serving() as service:
        await service.until_idle()


async def answers_of_a_server() -> list[str]:
    """Start a site with workers inside, and return what it tells its server."""
    said: list[Any] = []
    stop = asyncio.Event()

    async def receive() -> Any:
        if said:
            await stop.wait()
        return {"type": "lifespan.startup" if not said else "lifespan.shutdown"}

    async def send(message: Any) -> None:
        said.append(message)
        stop.set()

    async def app(*arguments: Any) -> None:
        raise ValueError("no lifespan inside")

    async with asyncio.timeout(PATIENCE):
        await lifespan(app)({"type": "lifespan"}, receive, send)
    return [message.get("message") or message["type"] for message in said]


class InATestCase(TestCase):
    async def test_workers_do_not_start(self) -> None:
        with pytest.raises(StoreError, match=IN_A_TEST):
            await run_what_waits()
        with pytest.raises(StoreError, match=IN_A_TEST):
            await Service().start()
        (failed,) = await answers_of_a_server()
        assert re.search(IN_A_TEST, failed)

    def test_workers_do_not_start_from_sync_code(self) -> None:
        add.push(1, 2)
        with transaction.atomic(), pytest.raises(StoreError, match=IN_A_TEST):
            async_to_sync(run_what_waits)()

    def test_a_wait_ends_at_once(self) -> None:
        job = add.push(1, 2)
        for timeout in (None, PATIENCE):
            with pytest.raises(WaitDeadlock, match=f"job {job.id} is not committed.*{IN_A_TEST}"):
                job.wait(timeout=timeout)
        with pytest.raises(WaitDeadlock, match=IN_A_TEST):
            get_job(job.id).wait()
        with pytest.raises(WaitTimeout):
            job.wait(timeout=0)  # it only looks

    def test_a_job_that_has_ended_in_the_same_transaction_is_no_wait(self) -> None:
        job = add.push(1, 2)
        job.cancel()
        job.wait()
        get_job(job.id).wait()

    async def test_an_awaited_wait_ends_at_once(self) -> None:
        job = await add.push(1, 2)
        with pytest.raises(WaitDeadlock, match=IN_A_TEST):
            await job

    @override_settings(JOBIFY={"STORE": "memory"})
    def test_jobs_in_memory_run_once_their_commit_has_happened(self) -> None:
        with self.captureOnCommitCallbacks(execute=True):
            job = add.push(1, 2)
        async_to_sync(run_what_waits)()
        assert job.result() == 3


class InATransactionTestCase(TransactionTestCase):
    async def test_workers_run_jobs(self) -> None:
        async with asyncio.timeout(PATIENCE), serving():
            assert await (await add.push(1, 2)) == 3

    def test_workers_run_jobs_for_sync_code(self) -> None:
        job = add.push(1, 2)
        async_to_sync(run_what_waits)()
        assert job.result() == 3


class WithoutADatabase(SimpleTestCase):
    async def test_workers_do_not_start(self) -> None:
        with pytest.raises(AssertionError, match="not allowed in SimpleTestCase"):
            await run_what_waits()

    @override_settings(JOBIFY={"STORE": "memory"})
    async def test_jobs_in_memory_need_none(self) -> None:
        await run_what_waits()


async def test_workers_do_not_start_where_pytest_django_allows_no_database() -> None:
    with pytest.raises(RuntimeError, match="Database access not allowed"):
        await run_what_waits()


@pytest.mark.django_db
async def test_workers_do_not_start_in_pytest_djangos_transaction() -> None:
    with pytest.raises(StoreError, match=IN_A_TEST):
        await run_what_waits()


@pytest.mark.django_db(transaction=True)
def test_workers_do_not_start_in_an_open_block() -> None:
    with transaction.atomic():
        job = add.push(1, 2)
        with pytest.raises(StoreError, match=IN_A_BLOCK):
            async_to_sync(run_what_waits)()
    async_to_sync(run_what_waits)()
    assert job.result() == 3


@pytest.mark.django_db(transaction=True)
def test_a_wait_in_the_block_that_pushed_the_job_ends_at_once() -> None:
    with transaction.atomic():
        with transaction.atomic():
            job = add.push(1, 2)
        with pytest.raises(WaitDeadlock, match=f"{job.id} is not committed.*{IN_A_BLOCK}"):
            job.wait()
    with at_work():
        job.wait(timeout=PATIENCE)


@pytest.mark.django_db(transaction=True)
def test_a_wait_for_a_job_that_was_pushed_before_the_block_is_no_matter_of_it() -> None:
    before = add.push(1, 2)
    with transaction.atomic():
        add.push(3, 4)
        with pytest.raises(WaitTimeout):
            before.wait(timeout=0.01)


@database
def test_a_job_that_waits_in_the_block_it_pushed_in_is_told(jobify: Configure) -> None:
    def parent() -> str:
        try:
            with transaction.atomic():
                child: Job[int] = add.push(1, 2)
                child.wait()
        except Exception as error:
            return type(error).__name__
        return "no error"

    with at_work():
        job = pushed(parent)
        job.wait(timeout=PATIENCE)
        assert job.result() == "WaitDeadlock"
