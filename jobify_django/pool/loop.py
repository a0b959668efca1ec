"""Calls into an event loop from other threads and from signal handlers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVarTuple

from jobify_django.runtime import Runtime

Arguments = TypeVarTuple("Arguments")


def call_on_loop(
    loop: asyncio.AbstractEventLoop, call: Callable[[*Arguments], object], *arguments: *Arguments
) -> bool:
    """Have a loop make a call soon; return whether it can. A closed loop runs nothing any more."""
    try:
        loop.call_soon_threadsafe(call, *arguments)
    except RuntimeError:
        if not loop.is_closed():
            raise
        return False
    return True


class LoopEvent:
    """An event that is waited for on the running event loop, and may be set by any thread."""

    def __init__(self, runtime: Runtime) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread_id = runtime.thread_id
        self._thread = runtime.thread_id()
        self._event = asyncio.Event()

    def set(self) -> None:
        """Set the event; any thread may call it."""
        if self._event.is_set():
            return
        if self._thread_id() == self._thread:
            self._event.set()
        else:
            self.set_threadsafe()

    def set_threadsafe(self) -> None:
        """Set the event; a signal handler may call it, too, at any point."""
        call_on_loop(self._loop, self._event.set)

    async def until(self, ready: Callable[[], bool]) -> None:
        """Wait until ``ready`` returns true; it is called whenever the event is set."""
        while not ready():
            self._event.clear()
            # Not before: what comes between a look and the clearing would be missed.
            if not ready():
                await self._event.wait()
