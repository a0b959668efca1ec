"""Waiting, written once for threads and event loops.

A wait is a generator that yields what it needs: ``Call`` (run this, which may block) or ``Pause`` (wait
until the bell rings or the time is over). ``run`` drives it in a thread, ``arun`` on an event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, TypeVar

from asgiref.sync import AsyncToSync, sync_to_async

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Call:
    """Run a function and send back what it returns.

    ``owed``: run it even for a caller who is cancelled before its turn comes.
    """

    function: Callable[[], Any]
    owed: bool = False


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait for the bell, at most so many seconds (``None``: without end)."""

    seconds: float | None


class Abandoned(BaseException):
    """Thrown into the generator when its caller was cancelled while a ``Call`` ran to its end."""

    def __init__(self, result: Any) -> None:
        super().__init__()
        self.result = result


OVERDUE = 1.0
"""Seconds after which one of many waiters who was to ask for all, and has not begun to, is taken to be unable
to: its thread is busy with something else, or its event loop is blocked. Another one asks then."""


class Bell(ABC):
    """Wakes one waiter; may be rung from any thread, before or during the wait."""

    @property
    def dead(self) -> bool:
        """Whether nobody can wait for it any more."""
        return False

    @abstractmethod
    def ring(self) -> None:
        """Wake the waiter, now or at its next pause."""


Steps = Generator[Call | Pause, Any, T]


class ThreadBell(Bell):
    def __init__(self) -> None:
        self._event = threading.Event()

    def ring(self) -> None:
        self._event.set()

    def wait(self, seconds: float | None) -> None:
        self._event.wait(seconds)
        self._event.clear()


class LoopBell(Bell):
    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._rung = False
        self._future: asyncio.Future[None] | None = None

    @property
    def dead(self) -> bool:
        return self._loop.is_closed()

    def ring(self) -> None:
        # A closed loop has no waiter left to wake.
        with contextlib.suppress(RuntimeError):
            if threading.get_ident() == self._thread:
                self._wake()
            else:
                self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        self._rung = True
        if self._future is not None and not self._future.done():
            self._future.set_result(None)

    async def wait(self, seconds: float | None) -> None:
        if not self._rung:
            self._future = self._loop.create_future()
            timer = None if seconds is None else self._loop.call_later(seconds, self._wake)
            try:
                await self._future
            finally:
                self._future = None
                if timer is not None:
                    timer.cancel()
        self._rung = False


def run(steps: Callable[[Bell], Steps[T]]) -> T:
    """Drive a wait in this thread, and return its value."""
    bell = ThreadBell()
    generator = steps(bell)
    try:
        step = next(generator)
        while True:
            try:
                result = None
                if isinstance(step, Call):
                    result = step.function()
                else:
                    bell.wait(step.seconds)
            except BaseException as error:
                step = generator.throw(error)
            else:
                step = generator.send(result)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]


async def arun(steps: Callable[[Bell], Steps[T]], *, blocking: bool) -> T:
    """Drive a wait on the running event loop, and return its value.

    Args:
        steps: makes the wait.
        blocking: whether its calls may block; then they run on Django's thread of this context, so that
            they share its connection.
    """
    bell = LoopBell()
    generator = steps(bell)
    try:
        step = next(generator)
        while True:
            try:
                result = None
                if isinstance(step, Pause):
                    await bell.wait(step.seconds)
                else:
                    result = await _let_end(step.function, owed=step.owed) if blocking else step.function()
            except BaseException as error:
                step = generator.throw(error)
            else:
                step = generator.send(result)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]
    except Abandoned:
        raise asyncio.CancelledError from None


async def off_loop(function: Callable[[], T]) -> T:
    """Run a blocking function on Django's thread of this context.

    When cancelled before its turn comes, it is never run. When cancelled later, it is let end first: a
    database call cannot be taken back half-way.
    """
    try:
        return await _let_end(function)
    except Abandoned:
        raise asyncio.CancelledError from None


async def _let_end(function: Callable[[], T], *, owed: bool = False) -> T:
    """Run it as ``off_loop`` does; raises ``Abandoned`` with its result when cancelled meanwhile."""
    # Whoever takes it first decides: the thread, or the caller who is gone.
    fate = threading.Lock()

    def begin() -> T:
        if fate.acquire(blocking=False):
            return function()
        return None  # type: ignore[return-value]  # nobody waits for it any more

    call = asyncio.ensure_future(sync_to_async(begin, thread_sensitive=True)())
    try:
        return await asyncio.shield(call)
    except asyncio.CancelledError:
        if not owed and fate.acquire(blocking=False):
            call.cancel()
            raise
        while not call.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([call])
        if call.cancelled() or call.exception() is not None:
            raise
        raise Abandoned(call.result()) from None


def on_event_loop() -> bool:
    """Whether an event loop runs in this thread."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def sync_code_waits() -> bool:
    """Whether a thread's sync code waits for this coroutine (``async_to_sync``).

    It may have a transaction open. Only its own thread can tell, and that is where ``sync_to_async`` runs.
    """
    executor: Any = getattr(AsyncToSync.executors, "current", None)
    # A task that outlives its ``async_to_sync`` still finds what has stopped.
    while executor is not None:
        if not getattr(executor, "_broken", False):
            return True
        executor = getattr(executor, "_old_executor", None)
    return asyncio.get_running_loop() in AsyncToSync.loop_thread_executors


def as_sync_code(function: Callable[[], T]) -> T:
    """Call a function, which does not block, from a coroutine as if no event loop ran in this thread.

    Django hides from a coroutine the connections that sync code of the same thread has, and asks asyncio
    whether one runs.
    """
    loop = asyncio.get_running_loop()
    asyncio._set_running_loop(None)
    try:
        return function()
    finally:
        asyncio._set_running_loop(loop)
