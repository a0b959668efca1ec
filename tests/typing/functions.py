"""A task stays a function, for type checkers too. What they must refuse carries a ``type: ignore``, and an
unneeded one is an error."""

from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar, assert_type

from jobify_django import AsyncTask, Job, Task, task

P = ParamSpec("P")
R = TypeVar("R")


@task
def add(a: int, b: int = 2) -> int:
    return a + b


@task
async def greet(name: str, *, greeting: str = "hello") -> str:
    return f"{greeting} {name}"


@task(name="named", queue="mail")
async def agreed(name: str) -> None: ...


def logged(function: Callable[P, R]) -> Callable[P, R]:
    return function


@task
@logged
async def decorated(name: str) -> int:
    return len(name)


async def called() -> None:
    assert_type(add(1), int)
    assert_type(await greet("Ada", greeting="hi"), str)
    assert_type(await decorated("Ada"), int)
    await agreed("Ada")
    await greet.using(delay=5).using(queue="mail")("Ada")
    await add(1)  # type: ignore[misc]
    add("one")  # type: ignore[arg-type]
    await greet()  # type: ignore[call-arg]
    await greet.using(queue="mail")(1)  # type: ignore[arg-type]


async def pushed() -> None:
    assert_type(await greet.push("Ada"), Job[str])
    assert_type(await greet.using(delay=5).apush("Ada"), Job[str])
    assert_type(await decorated.apush("Ada"), Job[int])
    assert_type(await add.apush(1), Job[int])
    await greet.push(1)  # type: ignore[arg-type]
    await greet.apush("Ada", "hi")  # type: ignore[call-arg]
    await add.using(priority=5).apush("one")  # type: ignore[arg-type]


def pushed_in_sync_code() -> None:
    assert_type(greet.push("Ada").result(), str)
    assert_type(greet.using(delay=5).push("Ada").result(), str)
    add.push()  # type: ignore[call-arg]
    add.using(soon=True)  # type: ignore[call-arg]


def no_methods() -> None:
    add.delay(1)  # type: ignore[attr-defined]
    greet.apply_async("Ada")  # type: ignore[attr-defined]


def taken(one: Task[[str], Any], other: AsyncTask[[str], int]) -> Coroutine[Any, Any, int]:
    one.push("x")
    return other("x")


async def given() -> None:
    assert_type(await taken(decorated, decorated), int)
    await taken(agreed, add)  # type: ignore[arg-type]
