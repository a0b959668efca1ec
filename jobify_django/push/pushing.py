"""What a push returns in async code."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from typing import Any

from jobify_django.log import get_log, quoted
from jobify_django.push.push import Calls, begin
from jobify_django.push.route import Pushable
from jobify_django.waiting.waker import arun

logger = get_log("jobify.push")


class Pushing(Coroutine[Any, Any, Any]):
    """The awaitable of a push: it pushes once, and gives the same job, or error, to all who await it.

    One that is dropped without being awaited is reported: it pushed nothing.
    """

    __slots__ = ("_calls", "_driven", "_end", "_one", "_others", "_task")

    def __init__(self, pushed: Pushable, calls: Calls, *, one: bool) -> None:
        self._task = pushed
        self._calls = calls
        self._one = one
        self._end: tuple[Any, Exception | None] | None = None
        self._others: tuple[asyncio.Future[None], ...] | None = None
        self._driven: dict[object, Generator[Any, Any, Any]] | None = None

    def __await__(self) -> Generator[Any, Any, Any]:
        if self._others is not None:
            return (yield from self._again())
        self._others = ()
        try:
            made = begin(self._task, self._calls, on_loop=True)
            if not isinstance(made, list):
                store = made.route.store
                made = yield from arun(made.steps, store.runtime, blocking=store.blocking).__await__()
            value = made[0] if self._one else made
        except BaseException as error:
            self._settle(None, error if isinstance(error, Exception) else self._cancelled())
            del self  # the error holds this frame, and must not hold what holds the error
            raise
        self._end = value, None
        if self._others:
            self._settle(value, None)
        return value

    def _again(self) -> Generator[Any, Any, Any]:
        """Give what the push gave to one who came later."""
        if self._end is None:
            ended = asyncio.get_running_loop().create_future()
            self._others = (*self._others, ended)  # type: ignore[misc]
            yield from ended
        value, error = self._end  # type: ignore[misc]
        if error is not None:
            raise error
        return value

    def _settle(self, value: Any, error: Exception | None) -> None:
        self._end = value, error
        others, self._others = self._others or (), ()
        for ended in others:
            if not ended.done() and not ended.get_loop().is_closed():
                ended.set_result(None)

    def _cancelled(self) -> RuntimeError:
        return RuntimeError(
            f"this push of task {self._task.name} was cancelled before it had ended, so nothing was pushed. "
            "Push again."
        )

    # As a coroutine, for asyncio.create_task and what uses it. Each task has a run of its own.

    def send(self, value: Any) -> Any:
        return self._drive("send", value)

    def throw(self, *error: Any) -> Any:
        if self._others is None:  # cancelled before its first step
            self._settle(None, self._cancelled())
        return self._drive("throw", *error)

    def close(self) -> None:
        if self._others is None:
            self._settle(None, self._cancelled())
        for steps in list((self._driven or {}).values()):
            steps.close()

    def _drive(self, verb: str, *values: Any) -> Any:
        self._driven = driven = {} if self._driven is None else self._driven
        driver = asyncio.current_task()
        if driver not in driven:
            driven[driver] = self.__await__()
        try:
            return getattr(driven[driver], verb)(*values)
        except BaseException:
            del driven[driver]
            raise

    def __del__(self) -> None:
        if self._others is None:
            logger.error(
                "a push of task %s was never awaited, so nothing was pushed: write 'await %s.push(...)'",
                quoted(self._task.name),
                quoted(self._task.__name__),
            )
