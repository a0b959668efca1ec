"""The loop that runs a pool's turns: on a thread where the store may block, else on the event loop."""

from __future__ import annotations

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from jobify_django.pool.loop import call_on_loop
from jobify_django.runtime import Runtime


@dataclass(eq=False)
class ClaimLoop(ABC):
    """Calls ``turn`` when woken, and when the seconds it returned are over.

    Args:
        open: called once, before the first turn and where turns are made.
        turn: one turn; returns the seconds after which the next is due.
        close: called once, in the same thread, when it is stopped.
        died: called if a turn raises, which none should; then none follows.
        runtime: the machine it runs on.
    """

    open: Callable[[], None]
    turn: Callable[[], float]
    close: Callable[[], None]
    died: Callable[[BaseException], None]
    runtime: Runtime

    running = False
    """Whether it was started."""

    @abstractmethod
    def start(self) -> None:
        """Begin to run turns."""

    @abstractmethod
    def wake(self) -> None:
        """Run a turn soon; any thread may call it."""

    def wake_soon(self) -> None:
        """Run a turn within ``GATHER`` seconds: by then there may be more outcomes for it."""
        self.wake()

    @abstractmethod
    async def stop(self, timeout: float) -> bool:
        """Run no more turns, and close; return whether that was done within ``timeout`` seconds."""


GATHER = 0.001
"""Seconds an outcome waits for others, while other workers are busy. With ten workers and short jobs this
makes one commit of ten, and leaves the database to the producers meanwhile."""


class ThreadClaimLoop(ClaimLoop):
    """Runs turns on a thread of its own."""

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._alarm = self.runtime.event()
        self._alarm.set()
        self._urgent = self.runtime.event()
        self._urgent.set()
        self._stopping = False
        self._closed = asyncio.Event()
        self.runtime.thread(target=self._run, name="jobify-pool", daemon=True).start()
        self.running = True

    def wake(self) -> None:
        self._urgent.set()
        self._alarm.set()

    def wake_soon(self) -> None:
        self._alarm.set()

    async def stop(self, timeout: float) -> bool:
        self._stopping = True
        self.wake()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._closed.wait()
        return self._closed.is_set()

    def _run(self) -> None:
        try:
            self.open()
            self._turn_until_stopped()
        except BaseException as error:
            self.died(error)
            # Its jobs are handed back once whoever started it has stopped them.
            while not self._stopping:
                self._alarm.wait()
                self._alarm.clear()
        try:
            self.close()
        finally:
            call_on_loop(self._loop, self._closed.set)

    def _turn_until_stopped(self) -> None:
        pause = 0.0
        while not self._stopping:
            if self._alarm.wait(pause):
                self._urgent.wait(GATHER)
            self._alarm.clear()
            self._urgent.clear()
            if not self._stopping:
                pause = self.turn()


class AsyncClaimLoop(ClaimLoop):
    """Runs turns on the event loop, between its other work."""

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread = self.runtime.thread_id()
        self._timer: asyncio.TimerHandle | None = None
        self._due = False
        self._stopped = False
        self.running = True
        self.open()
        self._wake_here()

    def wake(self) -> None:
        if self._due:
            return
        if self.runtime.thread_id() == self._thread:
            self._wake_here()
        else:
            call_on_loop(self._loop, self._wake_here)

    async def stop(self, timeout: float) -> bool:
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
        self.close()
        return True

    def _wake_here(self) -> None:
        if not self._due and not self._stopped:
            self._due = True
            self._loop.call_soon(self._run)

    def _run(self) -> None:
        self._due = False
        if self._stopped:
            return
        if self._timer is not None:
            self._timer.cancel()
        try:
            pause = self.turn()
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            self._due = True  # no further turn
            self.died(error)
            return
        self._timer = self._loop.call_later(pause, self._wake_here)
