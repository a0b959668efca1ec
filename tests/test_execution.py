"""Running one job: what it may do to itself, and what it cannot do to the next one."""

import asyncio
import gc
import logging
import sys
import threading
import weakref
from collections.abc import Callable
from contextvars import ContextVar
from functools import partial
from typing import Any

import hypothesis
import pytest
from asgiref.sync import SyncToAsync, sync_to_async
from django.contrib.auth.models import Group
from django.db import connection, connections, transaction
from django.utils import timezone, translation
from hypothesis import given
from hypothesis import strategies as st

from jobify_django import JobCancelled, JobFailed, JobStatus, task
from jobify_django.current import current
from jobify_django.pool.execution import LONGEST_MESSAGE, LONGEST_TRACEBACK
from jobify_django.registry import tasks
from tests.child import PATIENCE, until
from tests.workshop import (
    Configure,
    ado,
    at_work,
    both,
    connection_of_the_orm,
    database,
    do,
    memory,
    named,
    pushed,
)

variable: ContextVar[str] = ContextVar("variable", default="clean")


def failure(job: Any) -> JobFailed:
    """Wait for a job that fails, and return its error."""
    job.wait(timeout=PATIENCE)
    with pytest.raises(JobFailed) as caught:
        job.result()
    return caught.value


def run(action: Callable[[], Any]) -> Any:
    """Have a job do it, and return its result."""
    job = pushed(action)
    job.wait(timeout=PATIENCE)
    return job.result()


# What it raises


class Odd(BaseException):
    """No Exception, and nothing Python knows."""


RAISED = [
    ValueError,
    SystemExit,
    KeyboardInterrupt,
    GeneratorExit,
    asyncio.CancelledError,
    StopIteration,
    Odd,
]


@both
@pytest.mark.parametrize("kind", RAISED)
def test_whatever_a_def_job_raises_fails_it_and_its_worker_goes_on(
    jobify: Configure, kind: type[BaseException]
) -> None:
    jobify(WORKERS=1)

    def fail() -> None:
        raise kind("it broke")

    with at_work():
        error = failure(pushed(fail))
        assert run(lambda: "next") == "next"

    assert error.error_type == f"{kind.__module__}.{kind.__qualname__}"
    assert "it broke" in str(error)
    assert "in fail" in error.traceback


@both
@pytest.mark.parametrize("kind", RAISED)
def test_whatever_an_async_job_raises_fails_it_and_the_loop_goes_on(
    jobify: Configure, kind: type[BaseException]
) -> None:
    jobify(WORKERS=1)

    async def fail() -> None:
        await asyncio.sleep(0)
        raise kind("it broke")

    async def succeed() -> str:
        return "next"

    # Python itself turns this one into a RuntimeError where a coroutine raises it.
    seen = RuntimeError if kind is StopIteration else kind
    with at_work():
        error = failure(pushed(fail))
        assert run(succeed) == "next"

    assert error.error_type == f"{seen.__module__}.{seen.__qualname__}"
    assert "in fail" in error.traceback


@both
def test_a_job_that_cancels_itself_is_failed_and_its_worker_goes_on(jobify: Configure) -> None:
    jobify(WORKERS=1)

    async def cancel_itself() -> None:
        this = asyncio.current_task()
        assert this is not None
        this.cancel()
        await asyncio.sleep(0)

    async def succeed() -> str:
        return "next"

    with at_work() as shop:
        error = failure(pushed(cancel_itself))
        assert run(succeed) == "next"
        until(lambda: shop.pool.completer.empty, "the reply to its claim")

    assert error.error_type == "asyncio.exceptions.CancelledError"


@memory
@pytest.mark.parametrize("kind", [ValueError, SystemExit])
def test_an_error_that_cannot_be_read_is_named_all_the_same(
    jobify: Configure, kind: type[BaseException]
) -> None:
    jobify(WORKERS=1)

    class Unreadable(Exception):
        def __str__(self) -> str:
            raise kind

    def fail() -> None:
        raise Unreadable

    with at_work():
        error = failure(pushed(fail))
        assert run(lambda: "next") == "next"

    assert error.error_type.endswith("Unreadable")
    assert "could not be read" in str(error)


@both
@hypothesis.settings(max_examples=25, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(st.characters(codec=None, max_codepoint=0xDBFF), max_size=200), max_size=20))
def test_a_job_may_raise_and_return_whatever_text_it_likes(jobify: Configure, texts: list[str]) -> None:
    def fail(text: str) -> None:
        raise ValueError(text)

    with at_work():
        failing = [pushed(partial(fail, text)) for text in texts]
        good = [pushed(partial(str, text)) for text in texts]
        for text, bad_job, good_job in zip(texts, failing, good, strict=True):
            failure(bad_job)
            assert bad_job.error is not None
            assert bad_job.error.message == text
            good_job.wait(timeout=PATIENCE)
            assert good_job.result() == text


@both
def test_a_long_error_is_cut(jobify: Configure) -> None:
    def fail() -> None:
        raise ValueError("x" * 100_000)

    with at_work():
        job = pushed(fail)
        job.wait(timeout=PATIENCE)

    assert job.error is not None
    assert len(job.error.message) == LONGEST_MESSAGE
    assert len(job.error.traceback) == LONGEST_TRACEBACK


@memory
def test_a_kept_error_keeps_nothing_the_job_held(jobify: Configure) -> None:
    class Large:
        pass

    held: list[weakref.ref[Large]] = []

    def fail() -> None:
        large = Large()
        held.append(weakref.ref(large))
        raise ValueError

    with at_work():
        failure(pushed(fail))
        gc.collect()
        assert held[0]() is None


# What it returns


@both
@pytest.mark.parametrize("value", [None, 0, "", [], {"a": [1, 2.5, "é\ud800", None, True]}])
def test_a_result_reads_back_as_it_was(jobify: Configure, value: Any) -> None:
    async def areturn() -> Any:
        return value

    with at_work():
        assert run(lambda: value) == value
        assert run(areturn) == value


class Lazy(dict[str, Any]):
    """A dict that cannot be read any more."""

    def items(self) -> Any:
        raise RuntimeError("the session is closed")


@both
@pytest.mark.parametrize(
    ("value", "said"),
    [({"when": {1, 2}}, r"result\['when'\]"), (float("nan"), "result"), (Lazy(a=1), "the session is closed")],
    ids=["set", "nan", "raises"],
)
def test_a_result_that_is_no_json_fails_the_job_and_its_worker_goes_on(
    jobify: Configure, value: Any, said: str
) -> None:
    jobify(WORKERS=1)

    async def areturn() -> Any:
        return value

    with at_work():
        for action in (lambda: value, areturn):
            with pytest.raises(JobFailed, match=said):
                raise failure(pushed(action))
        assert run(lambda: "next") == "next"


@both
def test_a_result_that_is_too_large_fails_the_job(jobify: Configure) -> None:
    jobify(MAX_PAYLOAD=1_024)
    with at_work():
        assert "MAX_PAYLOAD" in str(failure(pushed(lambda: "x" * 2_000)))


# What it leaves behind


@memory
def test_a_def_job_leaves_no_variable_language_or_time_zone_to_the_next(jobify: Configure) -> None:
    jobify(WORKERS=1)

    def pollute() -> int:
        variable.set("dirty")
        translation.activate("de")
        timezone.activate("Europe/Berlin")
        return threading.get_ident()

    def look() -> list[Any]:
        zone = timezone.get_current_timezone_name()
        return [threading.get_ident(), variable.get(), translation.get_language(), zone]

    with at_work():
        thread = run(pollute)
        assert run(look) == [thread, "clean", "en-us", "UTC"]


@memory
def test_an_async_job_leaves_no_variable_language_or_time_zone_to_the_next(jobify: Configure) -> None:
    async def pollute() -> None:
        variable.set("dirty")
        translation.activate("de")
        timezone.activate("Europe/Berlin")

    async def look() -> list[Any]:
        return [variable.get(), translation.get_language(), timezone.get_current_timezone_name()]

    with at_work():
        run(pollute)
        assert run(look) == ["clean", "en-us", "UTC"]


@memory
def test_ten_thousand_jobs_leave_nothing_in_memory(
    jobify: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("jobify.worker", "jobify.store"):
        monkeypatch.setattr(logging.getLogger(name), "disabled", True)  # pytest keeps what is logged
    jobify(MAXSIZE=1000, PUSH_TIMEOUT=None, WORKERS=8)

    def pollute() -> None:
        held = bytes(10_000)
        variable.set(held)  # type: ignore[arg-type]
        translation.activate("de")
        raise ValueError(held[:10])

    async def apollute() -> None:
        variable.set(bytes(10_000))  # type: ignore[arg-type]
        asyncio.get_running_loop().call_later(0, lambda: None)

    names = [named(pollute), named(apollute)]

    def run_jobs(many: int) -> int:
        last = [
            chosen.push_many([(name,)] * (many // 2))[-1]
            for chosen, name in zip((do, ado), names, strict=True)
        ]
        for job in last:
            job.wait(timeout=PATIENCE)
        gc.collect()
        return len(gc.get_objects())

    with at_work():
        before = run_jobs(3_000)
        after = run_jobs(10_000)
    assert after - before < 1_000


@both
def test_a_job_that_is_stopped_in_its_first_step_is_cancelled(jobify: Configure) -> None:
    async def stopped() -> None:
        running: Any = current.get()
        running.stop("cancel")
        await asyncio.sleep(PATIENCE)

    with at_work(), pytest.raises(JobCancelled):
        run(stopped)


@memory
def test_jobs_do_not_see_the_variables_of_who_started_the_pool(jobify: Configure) -> None:
    async def alook() -> str:
        return variable.get()

    token = variable.set("dirty")
    try:
        with at_work():
            assert run(variable.get) == "clean"
            assert run(alook) == "clean"
    finally:
        variable.reset(token)


def leave_open() -> None:
    """Begin a transaction, write in it, and forget about it."""
    transaction.atomic().__enter__()
    Group.objects.create(name="never committed")


def leave_open_by_hand() -> None:
    """The same, below Django's own bookkeeping."""
    connection.ensure_connection()
    cursor = connection.connection.cursor()
    cursor.execute("BEGIN")
    cursor.execute("INSERT INTO auth_group (name) VALUES ('never committed')")


@database
@pytest.mark.parametrize("leave", [leave_open, leave_open_by_hand])
def test_a_transaction_that_a_def_job_leaves_open_is_rolled_back_and_reported(
    jobify: Configure, caplog: pytest.LogCaptureFixture, leave: Callable[[], None]
) -> None:
    jobify(WORKERS=1)

    def look() -> list[Any]:
        with transaction.atomic():
            Group.objects.create(name="committed")
        return [connection.in_atomic_block, connection.get_autocommit()]

    with at_work():
        job = pushed(leave)
        job.wait(timeout=PATIENCE)
        assert job.status is JobStatus.SUCCESSFUL
        assert run(look) == [False, True]

    assert [group.name for group in Group.objects.all()] == ["committed"]
    if connection.vendor == "mysql" and leave is leave_open_by_hand:
        return  # rolled back, and not reported: nothing tells that it was there
    (said,) = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert f"job {job.id} of tests.workshop.do left a transaction open on database 'default'" in said.message


@database
def test_a_transaction_that_an_async_job_leaves_open_is_rolled_back_and_reported(
    jobify: Configure, caplog: pytest.LogCaptureFixture
) -> None:
    async def leave() -> None:
        await sync_to_async(leave_open)()

    async def look() -> int:
        return await Group.objects.acount()

    with at_work():
        job = pushed(leave)
        job.wait(timeout=PATIENCE)
        assert run(look) == 0

    assert f"job {job.id} of tests.workshop.ado left a transaction open" in caplog.text


@database
@pytest.mark.parametrize(("max_age", "same"), [(None, True), (0, False)])
def test_a_def_jobs_connection_stays_open_where_the_project_wants_that(
    jobify: Configure, monkeypatch: pytest.MonkeyPatch, max_age: int | None, same: bool
) -> None:
    jobify(WORKERS=1)
    monkeypatch.setitem(connections.settings["default"], "CONN_MAX_AGE", max_age)
    seen: list[Any] = []

    def look() -> int:
        Group.objects.count()
        seen.append(connection.connection)
        return threading.get_ident()

    with at_work():
        assert run(look) == run(look)

    assert (seen[0] is seen[1]) is same


@database
def test_the_connections_of_an_async_job_are_closed_with_it(jobify: Configure) -> None:
    seen: list[Any] = []

    async def look() -> int:
        seen.append(await connection_of_the_orm())
        return 0

    with at_work():
        run(look)
        run(look)

    assert [one.connection for one in seen] == [None, None]


@memory
def test_blocking_calls_of_two_async_jobs_do_not_queue_behind_one_another(jobify: Configure) -> None:
    meeting = threading.Barrier(2)

    async def meet() -> int:
        return await sync_to_async(meeting.wait)(PATIENCE)

    with at_work():
        jobs = [pushed(meet), pushed(meet)]
        for job in jobs:
            job.wait(timeout=PATIENCE)
        assert {job.result() for job in jobs} == {0, 1}


@memory
def test_an_async_job_that_is_cancelled_in_its_thread_leaves_no_thread(jobify: Configure) -> None:
    gate = threading.Event()
    began = threading.Event()

    def block() -> None:
        began.set()
        gate.wait(PATIENCE)

    async def wait() -> None:
        await sync_to_async(block)()

    with at_work() as shop:
        job = pushed(wait)
        assert began.wait(PATIENCE)
        assert job.cancel()
        running = shop.pool.completer.running(job.id)
        assert running is not None
        until(lambda: running.stop_reason, "the cancellation")
        gate.set()
        job.wait(timeout=PATIENCE)
        assert job.status is JobStatus.CANCELLED
        assert shop.pool.slots["default"].busy == 0


@memory
def test_a_thread_is_handed_on_only_by_a_job_that_never_used_it(jobify: Configure) -> None:
    given: list[Any] = []  # what asgiref finds a context's thread by

    async def idle() -> None:
        given.append(SyncToAsync.thread_sensitive_context.get())

    async def use() -> int:
        given.append(SyncToAsync.thread_sensitive_context.get())
        return await sync_to_async(threading.get_ident)()

    with at_work():
        run(idle)
        run(use)
        run(idle)
        assert given[0] is given[1]
        assert given[1] is not given[2]
        assert not any(own in SyncToAsync.context_to_thread_executor for own in given)


# What it must find


@both
def test_a_job_of_an_unknown_task_waits_and_nothing_is_imported(
    jobify: Configure, caplog: pytest.LogCaptureFixture
) -> None:
    name = "tests.typing.examples.nobody"
    module = "tests.typing.examples"
    sys.modules.pop(module, None)
    stray = task(name=name)(plain)
    try:
        job = stray.push()
    finally:
        tasks.forget(name)

    with at_work() as shop:
        until(lambda: "event=held" in caplog.text, "the word of the pool")
        run(lambda: None)
        shop.turn(5)
        record = job.record()
        assert (record.status, record.crashes) == (JobStatus.WAITING, 0)
        assert [one.reason for one in record.history] == ["its task is not known here"]
        assert module not in sys.modules

        try:
            tasks.register(stray)
            shop.turn(1)
            job.wait(timeout=PATIENCE)
        finally:
            tasks.forget(name)

    assert job.status is JobStatus.SUCCESSFUL


def plain() -> None: ...


@both
def test_a_job_whose_arguments_no_longer_fit_is_failed(jobify: Configure) -> None:
    older = task(name="renamed")(plain_with_argument)
    job = older.push(1)
    tasks.forget("renamed")
    task(name="renamed")(plain)
    try:
        with at_work():
            assert failure(job).error_type == "builtins.TypeError"
    finally:
        tasks.forget("renamed")


def plain_with_argument(a: int) -> None: ...
