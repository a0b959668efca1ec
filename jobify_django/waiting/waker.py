"""Waiting, written once for threads and event loops.

A wait is a generator that yields what it needs: ``BlockingCall`` (run this, which may block) or ``Pause``
(wait until woken, or until the time is over). ``run`` drives it in a thread, ``arun`` on an event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, TypeVar

from jobify_django.runtime import Runtime

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class BlockingCall:
    """Run a function and send back what it returns.

    Attributes:
        function: what to run.
        even_if_cancelled: run it even for a caller who is cancelled before its turn comes.
        on_thread: run it where the database connections of this context are, also if it does not block.
    """

    function: Callable[[], Any]
    even_if_cancelled: bool = False
    on_thread: bool = False


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait until woken, at most so many seconds (``None``: without end)."""

    seconds: float | None


class CancelledDuringCall(BaseException):
    """Thrown into the generator when its caller was cancelled while a ``BlockingCall`` ran to its end."""

    def __init__(self, result: Any) -> None:
        super().__init__()
        self.result = result


class Waker(ABC):
    """Ends one wait; any thread may use it, before or during the wait."""

    @property
    def dead(self) -> bool:
        """Whether the wait can never go on, because its event loop is closed."""
        return False

    @abstractmethod
    def wake(self) -> None:
        """End the wait, now or at its next pause."""


Steps = Generator[BlockingCall | Pause, Any, T]


class ThreadWaker(Waker):
    def __init__(self, runtime: Runtime) -> None:
        self._event = runtime.event()

    def wake(self) -> None:
        self._event.set()

    def wait(self, seconds: float | None) -> None:
        self._event.wait(seconds)
        self._event.clear()


class LoopWaker(Waker):
    def __init__(self, runtime: Runtime) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread_id = runtime.thread_id
        self._thread = runtime.thread_id()
        self._woken = False
        self._future: asyncio.Future[None] | None = None

    @property
    def dead(self) -> bool:
        return self._loop.is_closed()

    def wake(self) -> None:
        # On a closed loop nobody waits.
        with contextlib.suppress(RuntimeError):
            if self._thread_id() == self._thread:
                self._end()
            else:
                self._loop.call_soon_threadsafe(self._end)

    def _end(self) -> None:
        self._woken = True
        if self._future is not None and not self._future.done():
            self._future.set_result(None)

    async def wait(self, seconds: float | None) -> None:
        if not self._woken:
            self._future = self._loop.create_future()
            timer = None if seconds is None else self._loop.call_later(seconds, self._end)
            try:
                await self._future
            finally:
                self._future = None
                if timer is not None:
                    timer.cancel()
        self._woken = False


def run(steps: Callable[[Waker], Steps[T]], runtime: Runtime) -> T:
    """Drive a wait in this thread, and return its value.

    Args:
        steps: makes the wait.
        runtime: the machine that this thread waits on: that of the store it waits for.
    """
    waker = ThreadWaker(runtime)
    generator = steps(waker)
    try:
        step = next(generator)
        while True:
            try:
                result = None
                if isinstance(step, BlockingCall):
                    result = step.function()
                else:
                    waker.wait(step.seconds)
            except BaseException as error:
                step = generator.throw(error)
            else:
                step = generator.send(result)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]


async def arun(steps: Callable[[Waker], Steps[T]], runtime: Runtime, *, blocking: bool) -> T:
    """Drive a wait on the running event loop, and return its value.

    Args:
        steps: makes the wait.
        runtime: as for ``run``.
        blocking: whether its calls may block; then they run on Django's thread of this context, so that
            they share its connection.
    """
    waker = LoopWaker(runtime)
    generator = steps(waker)
    try:
        step = next(generator)
        while True:
            try:
                result = None
                if isinstance(step, Pause):
                    await waker.wait(step.seconds)
                else:
                    hop = blocking or step.on_thread
                    result = (
                        await _run_to_end(step.function, runtime, even_if_cancelled=step.even_if_cancelled)
                        if hop
                        else step.function()
                    )
            except BaseException as error:
                step = generator.throw(error)
            else:
                step = generator.send(result)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]
    except CancelledDuringCall:
        raise asyncio.CancelledError from None


async def off_loop(function: Callable[[], T], runtime: Runtime) -> T:
    """Run a blocking function on Django's thread of this context.

    When cancelled before its turn comes, it is never run. When cancelled later, it is let end first: a
    database call cannot be taken back half-way.
    """
    try:
        return await _run_to_end(function, runtime)
    except CancelledDuringCall:
        raise asyncio.CancelledError from None


async def _run_to_end(function: Callable[[], T], runtime: Runtime, *, even_if_cancelled: bool = False) -> T:
    """Run a function as ``off_loop`` does; raises ``CancelledDuringCall`` with its result when the caller was
    cancelled meanwhile."""
    # Whoever takes it first decides: the thread, or the caller who is gone.
    decided = runtime.lock()

    def begin() -> T:
        if decided.acquire(blocking=False):
            return function()
        return None  # type: ignore[return-value]  # nobody waits for it any more

    call = asyncio.ensure_future(runtime.sync_to_async(begin, thread_sensitive=True)())
    try:
        return await asyncio.shield(call)
    except asyncio.CancelledError:
        if not even_if_cancelled and decided.acquire(blocking=False):
            call.cancel()
            raise
        while not call.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([call])
        if call.cancelled() or call.exception() is not None:
            raise
        raise CancelledDuringCall(call.result()) from None
