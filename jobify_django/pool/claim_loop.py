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
        gathering: whether more outcomes may follow soon, so that it pays to wait for them.
        runtime: the machine it runs on.
    """

    open: Callable[[], None]
    turn: Callable[[], float]
    close: Callable[[], None]
    died: Callable[[BaseException], None]
    gathering: Callable[[], bool]
    runtime: Runtime

    running = False
    """Whether it was started."""

    @abstractmethod
    def start(self) -> None:
        """Begin to run turns."""

    @abstractmethod
    def wake(self) -> None:
        """Run a turn soon; any thread may call it."""

    def wake_for_outcome(self) -> None:
        """Run a turn for an outcome: within ``GATHER`` seconds while ``gathering``, otherwise soon."""
        self.wake()

    @abstractmethod
    async def stop(self, timeout: float) -> bool:
        """Run no more turns, and close; return whether that was done within ``timeout`` seconds."""


GATHER = 0.001
"""Seconds an outcome waits for those of the jobs that started with it. With ten workers and short jobs this
makes one commit of ten, and leaves the database to the producers meanwhile."""


class ThreadClaimLoop(ClaimLoop):
    """Runs turns on a thread of its own."""

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        # Set when a turn is to come, and when it is not to wait for more outcomes.
        self._alarm, self._urgent = self.runtime.event(), self.runtime.event()
        self._woken = False
        self._stopping = False
        self._closed = asyncio.Event()
        self.wake()
        self.runtime.thread(target=self._run, name="jobify-pool", daemon=True).start()
        self.running = True

    def wake(self) -> None:
        self._woken = True
        self._urgent.set()
        self._alarm.set()

    def wake_for_outcome(self) -> None:
        if not self.gathering():
            self._urgent.set()
        # If it is set, the turn that clears it is yet to take the outcomes.
        if not self._alarm.is_set():
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
            self._wait(pause)
            self._alarm.clear()
            self._urgent.clear()
            self._woken = False
            if not self._stopping:
                pause = self.turn()
                self._gather_again()

    def _wait(self, seconds: float) -> None:
        # Short jobs that have just started end meanwhile: one wake-up for all, and none for the first.
        if self.gathering() and (self._urgent.wait(min(GATHER, seconds)) or self._alarm.is_set()):
            return
        if self._alarm.wait(seconds) and self.gathering():
            self._urgent.wait(GATHER)

    def _gather_again(self) -> None:
        """Let the outcomes that came during a turn wait for those of the jobs that it started.

        The last job of those before was urgent. Without this, the jobs that start together would never end
        together again.
        """
        if not self._woken and self.gathering():
            # If the last of them ends just now, nothing is lost: the alarm is set, and then nothing waits.
            self._urgent.clear()


AT_ONCE = 0.001
"""Seconds that a turn on the event loop may have taken, with its jobs' first steps, if another one is to
follow before the loop's other work."""


class AsyncClaimLoop(ClaimLoop):
    """Runs turns on the event loop, between its other work."""

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread = self.runtime.thread_id()
        self._timer: asyncio.TimerHandle | None = None
        self._next_at = 0.0
        self._due = False
        self._running = False
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
            if not self._running:
                self._loop.call_soon(self._run)

    def _run(self) -> None:
        if self._stopped:
            return
        try:
            pause = self._turns()
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            self._stopped = True  # no further turn, not even one that is due
            self.died(error)
            return
        self._next_at = self._loop.time() + pause
        # A timer that is due before stays, and goes on when it is: under load there is one a second.
        if self._timer is None or self._timer.when() > self._next_at:
            self._set_timer()

    def _turns(self) -> float:
        """Run a turn, and another one if that is due by then: for the jobs that have started and ended in it.

        Not a third one, nor one after jobs that took their time: the loop's other work is next.
        """
        self._running = True
        try:
            self._due = False
            began = self._loop.time()
            pause = self.turn()
            if self._due and not self._stopped and self._loop.time() - began < AT_ONCE:
                self._due = False
                pause = self.turn()
        finally:
            self._running = False
            if self._due:
                self._loop.call_soon(self._run)
        return pause

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(self._next_at, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        if self._stopped:
            return
        if self._loop.time() < self._next_at:
            self._set_timer()
        else:
            self._wake_here()
