"""The examples of jobify's QueueMiddleware page in Django's shape, and each of its known faults as a test."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from jobify_django import JobCancelled, QueueFull, queue, task
from jobify_django.pool import serving

ran: list[Any] = []
gates: dict[str, asyncio.Event] = {}


@pytest.fixture(autouse=True)
def fresh() -> None:
    ran.clear()
    gates.clear()


@pytest.fixture
def jobify(settings: Any) -> Callable[..., None]:
    def configure(**values: Any) -> None:
        settings.JOBIFY = {"STORE": "memory", **values}

    return configure


@task(metadata={"priority": 100})
async def charge_payment(order_id: str) -> str:
    ran.append(order_id)
    return f"charged:{order_id}"


@task(metadata={"priority": 10})
async def send_analytics(event_id: str) -> str:
    ran.append(event_id)
    return f"tracked:{event_id}"


@task(priority="critical")
async def webhook_retry() -> None:
    ran.append("critical")


@task(priority="user_flow")
async def user_notification() -> None:
    ran.append("user_flow")


@task(priority="background")
async def metrics_rollup() -> None:
    ran.append("background")


@task
async def note(value: int) -> None:
    ran.append(value)


@task
async def hold(name: str) -> None:
    ran.append(name)
    gates.setdefault(f"{name} began", asyncio.Event()).set()
    await gates.setdefault(name, asyncio.Event()).wait()


async def began(name: str) -> None:
    async with asyncio.timeout(10):
        await gates.setdefault(f"{name} began", asyncio.Event()).wait()


def let_go(name: str) -> None:
    gates.setdefault(name, asyncio.Event()).set()


async def test_critical_runs_before_regular_although_it_was_pushed_later(jobify: Callable[..., None]) -> None:
    jobify(WORKERS=1, MAXSIZE=256)
    low = await send_analytics.push("evt-1")
    high = await charge_payment.push("ord-1")
    async with serving():
        await asyncio.gather(low.wait(), high.wait())

    assert ran == ["ord-1", "evt-1"]
    assert high.result() == "charged:ord-1"


async def test_three_bands_run_in_their_order(jobify: Callable[..., None]) -> None:
    jobify(WORKERS=1, PRIORITIES={"critical": 100, "user_flow": 50, "background": 5})
    jobs = [await one.push() for one in (metrics_rollup, user_notification, webhook_retry)]
    async with serving():
        await asyncio.gather(*(job.wait() for job in jobs))

    assert ran == ["critical", "user_flow", "background"]


@pytest.mark.parametrize(
    ("order", "expected"), [("fifo", list(range(20))), ("lifo", list(range(19, -1, -1)))]
)
async def test_fifo_and_lifo(jobify: Callable[..., None], order: str, expected: list[int]) -> None:
    jobify(WORKERS=1, MAXSIZE=200, ORDER=order)
    jobs = [await note.push(value) for value in range(20)]
    async with serving():
        await asyncio.gather(*(job.wait() for job in jobs))

    assert ran == expected


async def test_equal_priorities_stay_in_order(jobify: Callable[..., None]) -> None:
    jobify(WORKERS=1, MAXSIZE=200)
    jobs = [await note.using(priority=5).push(value) for value in range(100)]
    async with serving():
        await asyncio.gather(*(job.wait() for job in jobs))

    assert ran == list(range(100))


async def test_a_full_queue_makes_the_producer_wait(jobify: Callable[..., None]) -> None:
    jobify(WORKERS=1, MAXSIZE=2, PUSH_TIMEOUT=None)
    async with serving():
        await hold.push("first")
        await began("first")
        await note.push(1)
        await note.push(2)
        third = asyncio.ensure_future(note.apush(3))
        done, _ = await asyncio.wait([third], timeout=0.05)
        assert not done
        assert (await queue().astats()).waiting == 2
        let_go("first")
        async with asyncio.timeout(10):
            await (await third).wait()

    assert ran == ["first", 1, 2, 3]


async def test_workers_and_maxsize_are_tuned_while_jobs_run(jobify: Callable[..., None]) -> None:
    jobify(WORKERS=1, MAXSIZE=1, PUSH_TIMEOUT=0)
    async with serving():
        await hold.push("first")
        await began("first")
        second = await hold.push("second")
        with pytest.raises(QueueFull):
            await note.push(1)
        await queue().atune(maxsize=5)
        await note.push(1)
        await queue().atune(workers=3)
        await began("second")
        let_go("first")
        let_go("second")
        await second.wait(timeout=10)


async def test_memory_is_bounded_under_a_hundred_thousand_waiting_pushes(jobify: Callable[..., None]) -> None:
    jobify(MAXSIZE=100, MAX_WAITING_PUSHES=50, PUSH_TIMEOUT=60)
    waiting: set[asyncio.Task[Any]] = set()
    refused = 0
    for value in range(100_000):
        if len(waiting) < 50 and value >= 100:
            waiting.add(asyncio.create_task(note.apush(value)))
            await asyncio.sleep(0)
            continue
        try:
            await note.push(value)
        except QueueFull:
            refused += 1
    assert (await queue().astats()).waiting == 100
    assert refused == 100_000 - 100 - 50
    for one in waiting:
        one.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert (await queue().astats()).waiting == 100


async def test_cancelling_queued_and_running_jobs_leaves_the_pool_whole(jobify: Callable[..., None]) -> None:
    jobify(WORKERS=2)
    async with serving():
        held = [await hold.push(name) for name in ("a", "b")]
        await began("a")
        await began("b")
        queued = await note.push(1)
        assert await queued.cancel()
        for job in held:
            assert await job.cancel()
        for job in held:
            with pytest.raises(JobCancelled):
                async with asyncio.timeout(10):
                    await job
        jobs = [await note.push(value) for value in (2, 3, 4)]
        await asyncio.gather(*(job.wait(timeout=10) for job in jobs))

    assert ran == ["a", "b", 2, 3, 4]


async def test_stopping_a_lifo_queue_loses_nothing(jobify: Callable[..., None]) -> None:
    jobify(WORKERS=1, ORDER="lifo")
    async with serving(grace=0):
        await hold.push("first")
        await began("first")
        for value in range(9):
            await note.push(value)

    stats = await queue().astats()
    assert (stats.waiting, stats.running) == (10, 0)
    assert ran == ["first"]


async def test_a_waiting_job_does_not_look_like_a_running_one(jobify: Callable[..., None]) -> None:
    jobify(WORKERS=1)
    async with serving():
        first = await hold.push("first")
        await began("first")
        second = await note.push(1)
        await first.arefresh()
        await second.arefresh()
        assert (first.status, second.status) == ("running", "waiting")
        assert await second.aposition() == 0
        let_go("first")
        await second.wait(timeout=10)
