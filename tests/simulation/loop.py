"""An event loop of a simulated process."""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Coroutine
from typing import Any, NoReturn

from tests.simulation.world import Fiber, Over, Process, World


def start_loop(process: Process) -> Loop:
    """Start the event loop of a process, on its main thread."""
    loop = process.loop = Loop(process.world)
    loop.fiber = process.thread(loop.serve, "main")
    loop.fiber.loop = loop
    return loop


class Loop(asyncio.BaseEventLoop):
    """An event loop whose time is the world's, served by a simulated thread."""

    fiber: Fiber

    def __init__(self, world: World) -> None:
        super().__init__()
        self.set_debug(False)
        self.world = world
        self.tasks: list[asyncio.Task[Any]] = []
        self.set_exception_handler(self._unhandled)
        self.set_task_factory(self._made)

    def time(self) -> float:
        return self.world.now

    @staticmethod
    def _made(loop: Any, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.Task(coroutine, loop=loop, **options)
        loop.tasks.append(task)
        return task

    def start(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine of the story itself, which must not fail."""
        self.create_task(coroutine).add_done_callback(self._hold)

    def _hold(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, Over):
            self.world.fail(f"{task.get_name()} failed: {error!r}", error)

    def serve(self) -> NoReturn:
        """Run what is ready, for ever."""
        ready: deque[asyncio.Handle] = self._ready  # type: ignore[attr-defined]
        scheduled: list[asyncio.TimerHandle] = self._scheduled  # type: ignore[attr-defined]
        while True:
            while scheduled and (scheduled[0].cancelled() or scheduled[0].when() <= self.world.now):
                handle = heapq.heappop(scheduled)
                handle._scheduled = False  # type: ignore[attr-defined]
                if not handle.cancelled():
                    ready.append(handle)
            if ready:
                ready_handle = ready.popleft()
                if not ready_handle.cancelled():
                    ready_handle._run()
                self.world.maybe_switch()
            else:
                self.world.park(scheduled[0].when() - self.world.now if scheduled else None)

    def abandon(self) -> None:
        """Close what the tasks left have open."""
        for task in self.tasks:
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            if not task.done():
                coroutine: Any = task.get_coro()
                for _ in range(20):
                    try:
                        coroutine.close()
                        break
                    except BaseException:
                        continue
        self.tasks.clear()
        self.close()

    def _write_to_self(self) -> None:
        self.world.unpark(self.fiber)

    def _process_events(self, events: Any) -> None:
        """There are none."""

    def _unhandled(self, loop: Any, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if not isinstance(error, Over):
            self.world.fail(f"unhandled on the event loop: {context['message']}: {error!r}", error)
