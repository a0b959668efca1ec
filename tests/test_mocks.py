"""A task under a mock: what a test patches is what is called, and nothing is left of it afterwards."""

import inspect
from typing import Any
from unittest import mock

import pytest

from jobify_django import AsyncTask, Task, task
from tests.child import PATIENCE
from tests.workshop import Configure, at_work, memory


@pytest.fixture(autouse=True)
def _memory(settings: Any) -> None:
    settings.JOBIFY = {"STORE": "memory", "QUEUES": {"default": {}, "mail": {}}}


@task
def add(a: int, b: int = 2) -> int:
    return a + b


@task
async def greet(name: str) -> str:
    return f"hello {name}"


PATH = f"{__name__}.add"
METHODS = ["push", "apush", "push_many", "apush_many", "using"]


def left(one: Task[..., Any]) -> dict[str, Any]:
    """What can be seen of a task."""
    return {**vars(one), **{name: getattr(one, name) for name in (*METHODS, "function", "queue", "priority")}}


@pytest.mark.parametrize("autospec", [None, True])
@pytest.mark.parametrize("name", [*METHODS, "function"])
@pytest.mark.parametrize("one", [add, greet], ids=["def", "async"])
def test_each_part_of_a_task_can_be_patched(one: Task[..., Any], name: str, autospec: bool | None) -> None:
    before = left(one)

    with mock.patch.object(one, name, autospec=autospec) as patched:
        assert getattr(one, name) is patched

    assert left(one) == before


def test_a_push_that_is_patched_pushes_nothing() -> None:
    with mock.patch.object(add, "push") as push:
        push.return_value.id = "7"
        assert add.push(1).id == "7"

    push.assert_called_once_with(1)
    assert add.push(1).position() == 0


def test_a_push_can_be_patched_by_its_path() -> None:
    with mock.patch(f"{PATH}.push", autospec=True) as push:
        add.push(1, b=3)

    push.assert_called_once_with(1, b=3)
    assert add.push(1).position() == 0


async def test_an_apush_that_is_patched_is_awaited() -> None:
    with mock.patch.object(greet, "apush") as apush:
        await greet.apush("Ada")

    apush.assert_awaited_once_with("Ada")


def test_monkeypatch_puts_a_task_back(monkeypatch: pytest.MonkeyPatch) -> None:
    pushed: list[int] = []
    with monkeypatch.context() as patch:
        patch.setattr(add, "push", pushed.append)
        add.push(1)

    assert pushed == [1]
    assert add.push(1).position() == 0
    # It leaves the method on the task itself, which a copy must not take over.
    assert add.using(queue="mail").push(1).queue == "mail"


def test_a_whole_task_can_be_patched() -> None:
    with mock.patch(PATH, autospec=True) as patched:
        add.push(1)
        patched.push.assert_called_once_with(1)
        add(1)
        patched.assert_called_once_with(1)
        with pytest.raises(AttributeError):
            patched.delay(1)

    with mock.patch(f"{__name__}.greet") as patched:
        greet.push("Ada")  # no coroutine: a sync view may call it
        patched.push.assert_called_once_with("Ada")


def test_a_push_goes_by_the_values_that_are_assigned(monkeypatch: pytest.MonkeyPatch) -> None:
    assert add.push(1).queue == "default"
    with monkeypatch.context() as patch:
        patch.setattr(add, "queue", "mail")
        patch.setattr(add, "priority", 7)
        job = add.push(1)
        assert (job.queue, job.priority) == ("mail", 7)
        assert add.using(priority=8).push(1).queue == "mail"

    assert (add.push(1).queue, add.push(1).priority) == ("default", 0)


def test_a_push_checks_the_arguments_of_the_function_that_is_assigned() -> None:
    add.push(1)

    def five() -> int:
        return 5

    with mock.patch.object(add, "function", five):
        assert add() == 5  # type: ignore[call-arg]
        assert add.push().args == []  # type: ignore[call-arg]
        with pytest.raises(TypeError, match="too many positional"):
            add.push(1)

    assert add.push(1).args == [1]


@memory
def test_a_job_runs_the_function_that_is_assigned(jobify: Configure) -> None:
    with (
        at_work(),
        mock.patch.object(add, "function", return_value=40),
        mock.patch.object(greet, "function", return_value="hi") as function,
    ):
        assert greet.is_async
        sync, onloop = add.push(1), greet.push("Ada")
        for job in (sync, onloop):
            job.wait(timeout=PATIENCE)
        assert (sync.result(), onloop.result()) == (40, "hi")

    function.assert_awaited_once_with("Ada")
    assert (add(1), add.is_async, greet.is_async) == (3, False, True)


def test_using_keeps_the_kind() -> None:
    changed = greet.using(delay=1)

    assert isinstance(changed, AsyncTask)
    assert changed.is_async
    assert not isinstance(add.using(delay=1), AsyncTask)
    assert inspect.iscoroutinefunction(inspect.unwrap(changed))
