"""Declaring tasks: what can be one, what its jobs are like, and what is said about mistakes."""

import asyncio
import gc
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from jobify_django import InvalidPayload, InvalidTask, JobStatus, UnknownBand, UnknownQueue, UnknownTask, task
from jobify_django.registry import tasks
from tests.workshop import only_these_tasks


@pytest.fixture(autouse=True)
def _memory(settings: Any) -> None:
    settings.JOBIFY = {
        "STORE": "memory",
        "PRIORITIES": {"critical": 100, "background": 5},
        "QUEUES": {"mail": {"PRIORITIES": {"critical": 90}}},
    }


@task
def add(a: int, b: int = 2) -> int:
    return a + b


@task
async def greet(name: str, *, greeting: str = "hello") -> str:
    return f"{greeting} {name}"


@task(queue="mail", priority="critical")
def send(*to: str, **headers: str) -> None: ...


@task(metadata={"priority": 10})
def refresh() -> None: ...


def plain() -> None: ...


def generate() -> Iterator[int]:
    yield 1


async def agenerate() -> AsyncIterator[int]:
    yield 1


def module_level(name: str) -> Callable[..., None]:
    """A function that looks as if it stood at the top of a module."""
    code = compile(f"def {name}(): ...", f"/nowhere/{name}.py", "exec")
    space: dict[str, Any] = {"__name__": "elsewhere"}
    exec(code, space)
    return space[name]  # type: ignore[no-any-return]


# Declaring


def test_a_task_called_directly_is_its_function() -> None:
    assert add(1) == 3
    assert asyncio.run(greet("Ada")) == "hello Ada"


def test_a_task_is_named_by_its_path_unless_told_otherwise() -> None:
    assert add.name == "tests.test_task.add"
    named = task(name="billing.charge")(module_level("charge"))
    try:
        assert tasks["billing.charge"] is named
    finally:
        tasks.forget("billing.charge")


def test_metadata_is_another_way_to_say_the_priority() -> None:
    assert refresh.priority == 10


def test_a_nested_function_cannot_be_a_task() -> None:
    def inner() -> None: ...

    with pytest.raises(InvalidTask, match=r"inner is not at the top of its module.*Move it there"):
        task(inner)


def test_a_lambda_cannot_be_a_task() -> None:
    with pytest.raises(InvalidTask, match="not at the top of its module"):
        task(lambda: None)


def test_a_method_cannot_be_a_task() -> None:
    class Shop:
        def charge(self) -> None: ...

    with pytest.raises(InvalidTask, match="not at the top of its module"):
        task(Shop.charge)
    with pytest.raises(InvalidTask, match="no plain function"):
        task(Shop().charge)


@pytest.mark.parametrize("thing", [print, int, 3, None, "add"])
def test_only_a_plain_function_can_be_a_task(thing: Any) -> None:
    with pytest.raises(InvalidTask, match="no plain function"):
        task(name="x")(thing)


@pytest.mark.parametrize("function", [generate, agenerate])
def test_a_generator_cannot_be_a_task(function: Any) -> None:
    with pytest.raises(InvalidTask, match="is a generator"):
        task(function)


@pytest.mark.parametrize("name", ["", "a" * 256, "a\nb", "a\x00"])
def test_a_name_must_fit_the_store(name: str) -> None:
    with pytest.raises(InvalidTask, match="no name for a task"):
        task(name=name)(plain)


@pytest.mark.parametrize("priority", [101, -101, 1.5, True, "", None, []])
def test_a_priority_must_be_a_band_or_in_range(priority: Any) -> None:
    with pytest.raises(
        InvalidTask, match=r"band of JOBIFY\['PRIORITIES'\] or a whole number from -100 to 100"
    ):
        add.using(priority=priority)
    if priority is not None:
        with pytest.raises(InvalidTask, match="band of JOBIFY"):
            task(priority=priority)


def test_metadata_with_an_unknown_key_is_refused() -> None:
    with pytest.raises(InvalidTask, match="unknown keys"):
        task(metadata={"priorty": 1})


def test_a_priority_given_twice_is_refused() -> None:
    with pytest.raises(InvalidTask, match="priority once"):
        task(priority=1, metadata={"priority": 1})


def test_an_unknown_task_is_named_with_the_likely_cause() -> None:
    with pytest.raises(UnknownTask, match=r"no task 'nowhere.f' is registered.*imported"):
        tasks["nowhere.f"]


# using


@pytest.mark.parametrize("typed", ["tests.test_task.ad", "add", "tests.task.add", "Tests.Test_Task.Add"])
def test_a_mistyped_task_is_guessed(typed: str) -> None:
    with only_these_tasks(add):
        for number in range(200):
            task(name=f"shop.tasks.work{number:03}")(add.function)

        with pytest.raises(UnknownTask, match=r"did you mean 'tests\.test_task\.add'") as unknown:
            tasks[typed]
    assert "and 191 more." in str(unknown.value)


def test_using_returns_a_changed_copy_and_leaves_the_task() -> None:
    changed = add.using(priority=7, queue="mail", delay=60, timeout=3, on_commit=False)

    assert (changed.priority, changed.queue, changed.delay_seconds) == (7, "mail", 60.0)
    assert (changed.timeout, changed.on_commit) == (3.0, False)
    assert (add.priority, add.queue, add.delay_seconds, add.on_commit) == (0, "default", 0.0, True)
    assert tasks[add.name] is add
    assert changed(1) == 3


def test_using_twice_keeps_both_changes() -> None:
    changed = add.using(priority=7).using(queue="mail")

    assert (changed.priority, changed.queue) == (7, "mail")


def test_a_delay_may_be_a_timedelta() -> None:
    assert add.using(delay=timedelta(minutes=2)).delay_seconds == 120.0


def test_the_later_of_delay_and_at_wins() -> None:
    at = datetime(2100, 1, 1, tzinfo=UTC)

    moment, delayed = add.using(delay=5).using(at=at), add.using(at=at).using(delay=5)

    assert (moment.delay_seconds, moment.at) == (0.0, at.timestamp())
    assert (delayed.delay_seconds, delayed.at) == (5.0, None)


@pytest.mark.parametrize("delay", [-1, "1", True, None, float("nan"), float("inf"), timedelta(seconds=-1)])
def test_a_delay_must_be_seconds(delay: Any) -> None:
    with pytest.raises(InvalidTask, match="must be a number of seconds, 0 or more"):
        add.using(delay=delay)


@pytest.mark.parametrize("timeout", [-1, "1", True, float("nan")])
def test_a_timeout_must_be_seconds(timeout: Any) -> None:
    with pytest.raises(InvalidTask, match=r"timeout .* must be a number of seconds"):
        add.using(timeout=timeout)


def test_a_moment_must_be_aware_where_times_are(settings: Any) -> None:
    with pytest.raises(InvalidTask, match="must be aware"):
        add.using(at=datetime(2100, 1, 1))
    with pytest.raises(InvalidTask, match="must be a datetime"):
        add.using(at="tomorrow")  # type: ignore[arg-type]

    settings.USE_TZ = False
    settings.TIME_ZONE = "Europe/Berlin"

    assert add.using(at=datetime(2100, 1, 1)).at == datetime(2099, 12, 31, 23, tzinfo=UTC).timestamp()


# Pushing


def test_a_pushed_job_shows_what_was_pushed() -> None:
    before = datetime.now(UTC)
    job = send.push("ada@example.org", subject="Hello")

    assert (job.task, job.queue, job.priority) == ("tests.test_task.send", "mail", 90)
    assert (job.args, job.kwargs) == (["ada@example.org"], {"subject": "Hello"})
    assert (job.status, job.attempts, job.error, job.started_at) == (JobStatus.WAITING, 0, None, None)
    assert before <= job.pushed_at <= datetime.now(UTC)


def test_a_delayed_job_says_so() -> None:
    assert add.using(delay=60).push(1).status is JobStatus.DELAYED
    assert add.using(at=datetime(2100, 1, 1, tzinfo=UTC)).push(1).status is JobStatus.DELAYED


def test_a_band_means_what_its_queue_says() -> None:
    assert add.using(priority="critical").push(1).priority == 100
    assert add.using(priority="critical", queue="mail").push(1).priority == 90


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        ((), {}, "missing a required argument: 'a'"),
        ((1, 2, 3), {}, "too many positional arguments"),
        ((1,), {"c": 3}, "unexpected keyword argument 'c'"),
        ((1,), {"a": 3}, "multiple values for argument 'a'"),
    ],
)
def test_arguments_the_function_does_not_take_are_refused(args: Any, kwargs: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        add.push(*args, **kwargs)


def test_keyword_only_arguments_are_checked() -> None:
    assert greet.push("Ada", greeting="hi").kwargs == {"greeting": "hi"}
    with pytest.raises(TypeError, match="too many positional"):
        greet.push("Ada", "hi")  # type: ignore[call-arg]


def test_an_unknown_queue_is_refused() -> None:
    with pytest.raises(UnknownQueue, match="did you mean 'mail'"):
        add.using(queue="mial").push(1)


def test_an_unknown_band_is_refused() -> None:
    with pytest.raises(UnknownBand, match="did you mean 'critical'"):
        add.using(priority="critcal").push(1)


def test_many_calls_are_pushed_in_order() -> None:
    jobs = add.push_many([(1,), (1, 2), {"a": 5}])

    assert [(job.args, job.kwargs) for job in jobs] == [([1], {}), ([1, 2], {}), ([], {"a": 5})]
    assert [job.position() for job in jobs] == [0, 1, 2]
    assert list(add.push_many([])) == []


@pytest.mark.parametrize("call", [1, "ab", [1, 2], None])
def test_each_of_many_calls_must_be_a_tuple_or_a_dict(call: Any) -> None:
    with pytest.raises(InvalidTask, match="call 1 of push_many is"):
        add.push_many([(1,), call])


def test_a_wrong_argument_among_many_calls_is_told_with_the_number_of_its_call() -> None:
    with pytest.raises(InvalidPayload, match=r"^call 2 of push_many: args\[0\] .* it is a set") as raised:
        add.push_many([(1,), (2,), ({3},)])
    assert raised.value.path == "args[0]"
    with pytest.raises(TypeError, match=r"^call 1 of push_many: too many positional arguments$"):
        add.push_many([(1,), (2, 3, 4)])
    with pytest.raises(InvalidPayload, match=r"^args\[0\] "):
        add.push_many([({3},)])


# Where an event loop runs


async def test_a_push_is_awaited_where_an_event_loop_runs() -> None:
    job = await add.push(1)
    twin = await add.apush(1)
    many = await add.push_many([(1,), (2,)])  # type: ignore[misc]

    assert [job.position(), twin.position(), many[1].position()] == [0, 1, 3]


async def test_a_push_can_be_gathered_and_made_a_task() -> None:
    first, second = await asyncio.gather(add.push(1), add.push(2))
    third = await asyncio.create_task(add.push(3))  # type: ignore[arg-type]

    assert {first.args[0], second.args[0], third.args[0]} == {1, 2, 3}


async def test_a_push_that_nobody_awaits_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    add.push(1)
    gc.collect()

    (record,) = [record for record in caplog.records if record.name == "jobify.push"]
    assert record.levelno == logging.ERROR
    assert "tests.test_task.add was never awaited, so nothing was pushed" in record.message
    assert "await add.push(...)" in record.message


async def test_an_awaited_push_is_not_reported(caplog: pytest.LogCaptureFixture) -> None:
    await add.push(1)
    pushed: Awaitable[Any] = add.push(2)
    await pushed
    del pushed
    gc.collect()

    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


async def test_wrong_arguments_are_refused_where_an_event_loop_runs() -> None:
    with pytest.raises(TypeError, match="missing a required argument"):
        await add.push()  # type: ignore[call-arg]
