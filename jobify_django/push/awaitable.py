"""The awaitable that a push returns in async code."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from typing import Any

from jobify_django.log import get_log, quoted
from jobify_django.push.plan import Pushable
from jobify_django.push.push import Calls, PendingPush, start_push
from jobify_django.waiting.waker import arun

logger = get_log("jobify.push")


class AwaitablePush(Coroutine[Any, Any, Any]):
    """The awaitable of a push. However often it is awaited, it pushes once: each await gives the same job, or
    raises the same error.

    If it is dropped without being awaited, an error is logged: nothing was pushed.

    Args:
        task: the task.
        calls: the calls of it.
        one: whether an await gives a job; otherwise it gives a list of jobs.
    """

    __slots__ = ("_calls", "_driven", "_end", "_one", "_other_awaits", "_started", "_task")

    def __init__(self, task: Pushable, calls: Calls, *, one: bool) -> None:
        self._task = task
        self._calls = calls
        self._one = one
        self._started = False
        self._end: tuple[Any, Exception | None] | None = None  # the value, or the error
        # Futures of the awaits that came while the push was under way.
        self._other_awaits: tuple[asyncio.Future[None], ...] = ()
        self._driven: dict[object, Generator[Any, Any, Any]] | None = None

    def __await__(self) -> Generator[Any, Any, Any]:
        if self._started:
            return (yield from self._await_end())
        self._started = True
        pending: PendingPush | None = None
        try:
            jobs_or_pending = start_push(self._task, self._calls, on_loop=True)
            if isinstance(jobs_or_pending, list):
                jobs = jobs_or_pending
            else:
                pending = jobs_or_pending
                store = pending.plan.store
                jobs = yield from arun(pending.steps, store.runtime, blocking=store.blocking).__await__()
            value = jobs[0] if self._one else jobs
        except Exception as error:
            self._finish(None, error)
            # The error holds its traceback, this frame and what the frame holds; this object holds the error.
            del self  # breaks that cycle
            raise
        except BaseException as error:
            self._finish(None, self._cancelled_error(pending, closed=isinstance(error, GeneratorExit)))
            raise
        self._end = value, None
        if self._other_awaits:
            self._finish(value, None)
        return value

    def _await_end(self) -> Generator[Any, Any, Any]:
        """Wait for the end of a push that is started, and return or raise what it gave."""
        if self._end is None:
            ended = asyncio.get_running_loop().create_future()
            self._other_awaits = (*self._other_awaits, ended)
            yield from ended
        value, error = self._end  # type: ignore[misc]
        if error is not None:
            raise error
        return value

    def _finish(self, value: Any, error: Exception | None) -> None:
        """Keep what the push gave, and wake those who wait for it."""
        self._started = True
        self._end = value, error
        others, self._other_awaits = self._other_awaits, ()
        for ended in others:
            if not ended.done() and not ended.get_loop().is_closed():
                ended.set_result(None)

    def _cancelled_error(self, pending: PendingPush | None = None, *, closed: bool = False) -> RuntimeError:
        """Return the error for those who await this push after it was cancelled or closed.

        Args:
            pending: the push, if it was under way.
            closed: whether it was closed. Then it could not cancel the jobs that it had added, and nobody
                waits for the end of a call that it had made to a store that may block.
        """
        added = "so nothing was pushed. Push again."
        if pending is not None and closed and (pending.accepted or pending.plan.store.blocking):
            added = "and jobs that it had added by then stay. Look for them before you push again."
        elif pending is not None and pending.accepted:
            added = (
                "and the jobs that it had added were cancelled; one that a worker had started may have run. "
                "Look for them before you push again."
            )
        return RuntimeError(f"this push of task {self._task.name} was cancelled before it had ended, {added}")

    # As a coroutine, for asyncio.create_task and what uses it. Each asyncio task that drives this object gets
    # a generator of its own: the first one pushes, those of the others wait for its end.

    def send(self, value: Any) -> Any:
        return self._drive("send", value)

    def throw(self, *error: Any) -> Any:
        if not self._started:  # cancelled before its first step
            self._finish(None, self._cancelled_error())
        return self._drive("throw", *error)

    def close(self) -> None:
        if not self._started:
            self._finish(None, self._cancelled_error())
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
        if not self._started:
            logger.error(
                "a push of task %s was never awaited, so nothing was pushed: write 'await %s.push(...)'",
                quoted(self._task.name),
                quoted(self._task.__name__),
            )
