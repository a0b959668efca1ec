"""One push, one job: however often, by how many and through what the awaitable of a push is awaited."""

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import connections

from jobify_django import Job, JobStatus, QueueFull, queue, task
from jobify_django.push.awaitable import AwaitablePush
from jobify_django.push.waits import PushWaits
from tests.child import PATIENCE
from tests.workshop import Configure, at_work, both, memory


@task
def note(value: Any) -> Any:
    return value


@task
async def anote(value: Any) -> Any:
    return value


@pytest.fixture(autouse=True)
async def no_connection_is_left() -> AsyncIterator[None]:
    """The thread that loops share outlives the tests, and the database could not be dropped."""
    yield
    await sync_to_async(connections.close_all)()


async def stored() -> int:
    stats = await queue().astats()
    return stats.waiting


async def in_line() -> None:
    """Wait until a push stands in line."""
    line = queue().store.process_local(PushWaits, "default")
    async with asyncio.timeout(PATIENCE):
        while not line.busy:  # noqa: ASYNC110 - the line tells nobody
            await asyncio.sleep(0.005)


async def inside(push: Any) -> Any:
    return await push


WAYS: dict[str, Callable[[Any], Awaitable[Any]]] = {
    "await": inside,
    "a task": lambda push: asyncio.create_task(push),
    "a task of a task": lambda push: asyncio.create_task(inside(push)),
    "gather": lambda push: asyncio.gather(push),
    "wait_for": lambda push: asyncio.wait_for(push, PATIENCE),
    "shield": lambda push: asyncio.shield(push),
}
ways = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


async def first_of(found: Any) -> Any:
    answer = await found
    return answer[0] if isinstance(answer, list) else answer


@both
@ways
async def test_a_push_that_is_awaited_again_gives_the_same_job(
    jobify: Configure, way: Callable[[Any], Awaitable[Any]]
) -> None:
    push = note.push(1)
    job = await first_of(way(push))
    assert isinstance(job, Job)
    assert await first_of(way(push)) is job
    assert await push is job
    assert await stored() == 1


@both
async def test_many_jobs_are_given_again_too(jobify: Configure) -> None:
    push: Any = note.push_many([(1,), (2,)])
    jobs = await push
    assert [job.args for job in jobs] == [[1], [2]]
    assert await push is jobs
    none: Any = note.push_many([])
    assert (await none, await none) == ([], [])
    assert await stored() == 2


@both
@pytest.mark.parametrize("one", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("other", WAYS.values(), ids=WAYS)
async def test_two_that_await_one_push_at_once_get_one_job(
    jobify: Configure, one: Callable[[Any], Awaitable[Any]], other: Callable[[Any], Awaitable[Any]]
) -> None:
    jobify(MAXSIZE=1, PUSH_TIMEOUT=PATIENCE)
    ahead = await note.push(0)
    push = note.push(1)
    both = [asyncio.ensure_future(first_of(way(push))) for way in (one, other)]
    await in_line()
    await ahead.cancel()
    first, second = await asyncio.gather(*both)
    assert first is second
    assert first.args == [1]
    assert await stored() == 1


@both
@ways
async def test_a_push_that_failed_fails_again_as_it_did(
    jobify: Configure, way: Callable[[Any], Awaitable[Any]]
) -> None:
    jobify(MAXSIZE=1, PUSH_TIMEOUT=0)
    ahead = await note.push(0)
    push = note.push(1)
    with pytest.raises(QueueFull) as full:
        await way(push)
    await ahead.cancel()
    with pytest.raises(QueueFull) as again:
        await way(push)
    assert again.value is full.value
    assert await stored() == 0


@both
@ways
async def test_a_push_that_was_cancelled_says_so_to_all_others(
    jobify: Configure, way: Callable[[Any], Awaitable[Any]]
) -> None:
    jobify(MAXSIZE=1, PUSH_TIMEOUT=PATIENCE)
    await note.push(0)
    push = note.push(1)
    first = asyncio.create_task(inside(push))
    await in_line()
    second = asyncio.ensure_future(way(push))
    await asyncio.sleep(0)
    first.cancel()
    for late in (second, way(push), inside(push)):
        with pytest.raises(RuntimeError, match=r"this push of task .*note was cancelled.*Push again"):
            await late
    assert first.cancelled()
    assert await stored() == 1


@both
async def test_a_push_goes_on_when_another_that_awaits_it_is_cancelled(jobify: Configure) -> None:
    jobify(MAXSIZE=1, PUSH_TIMEOUT=PATIENCE)
    ahead = await note.push(0)
    push: Any = note.push(1)
    first = asyncio.create_task(inside(push))
    await in_line()
    for way in WAYS.values():
        late = asyncio.ensure_future(way(push))
        await asyncio.sleep(0)
        late.cancel()
        with pytest.raises(asyncio.CancelledError):
            await late
    await ahead.cancel()
    assert (await first).args == [1]
    assert await stored() == 1


@memory
async def test_a_timeout_of_the_callers_own_takes_the_push_back(jobify: Configure) -> None:
    jobify(MAXSIZE=1, PUSH_TIMEOUT=PATIENCE)
    ahead = await note.push(0)
    push: Any = note.push(1)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(push, 0.01)
    await ahead.cancel()
    with pytest.raises(RuntimeError, match="cancelled"):
        await push
    assert await stored() == 0


@memory
@pytest.mark.parametrize("give_up", ["cancel", "close"])
async def test_a_push_given_up_before_its_first_step_pushes_nothing_and_is_no_mistake(
    jobify: Configure, give_up: str, caplog: pytest.LogCaptureFixture
) -> None:
    push: Any = note.push(1)
    if give_up == "cancel":
        begun = asyncio.create_task(push)
        begun.cancel()
        with pytest.raises(asyncio.CancelledError):
            await begun
    else:
        push.close()
    with pytest.raises(RuntimeError, match="cancelled"):
        await push
    assert await stored() == 0

    del push
    gc.collect()

    assert [record for record in caplog.records if record.name.startswith("jobify")] == []


@both
async def test_a_push_that_was_cancelled_says_what_became_of_the_jobs_it_had_added(jobify: Configure) -> None:
    jobify(MAXSIZE=2, PUSH_TIMEOUT=PATIENCE)
    push = note.push_many([(1,), (2,), (3,)])
    pushing = asyncio.create_task(inside(push))
    await in_line()
    assert await stored() == 2
    pushing.cancel()

    with pytest.raises(RuntimeError, match=r"was cancelled .* the jobs that it had added were cancelled"):
        await push
    assert await stored() == 0


@memory
@pytest.mark.parametrize(
    ("room", "said"),
    [(2, "jobs that it had added by then stay. Look for them"), (0, "nothing was pushed. Push again.")],
)
async def test_a_push_that_was_closed_says_whether_jobs_of_it_stay(
    jobify: Configure, room: int, said: str
) -> None:
    jobify(MAXSIZE=4, PUSH_TIMEOUT=PATIENCE)
    await note.push_many([(0,)] * (4 - room))
    push: Any = note.push_many([(1,), (2,), (3,)])
    push.send(None)  # it adds what there is room for, and waits
    push.close()

    with pytest.raises(RuntimeError, match=said):
        await push
    assert await stored() == 4


@memory
async def test_a_failed_push_that_is_dropped_leaves_no_garbage(jobify: Configure) -> None:
    jobify(MAXSIZE=1, PUSH_TIMEOUT=0)
    await note.push(0)
    gc.collect()
    gc.disable()
    try:
        for _ in range(10):
            with pytest.raises(QueueFull):
                await note.push(1)
        assert sum(type(one) is AwaitablePush for one in gc.get_objects()) == 0
    finally:
        gc.enable()


@both
async def test_what_else_is_awaited_may_be_awaited_again(jobify: Configure) -> None:
    with at_work():
        job = await anote.push(1)
        assert (await job, await job) == (1, 1)
        assert await asyncio.gather(job, job) == [1, 1]
        await job.wait()
        await job.wait()
        assert (await job.cancel(), await job.cancel()) == (False, False)
    assert job.status is JobStatus.SUCCESSFUL
