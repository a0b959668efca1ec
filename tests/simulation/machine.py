"""The machine that simulated processes run on: its time, chance, locks and threads are the world's."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from jobify_django.runtime import Runtime
from tests.simulation.world import Fiber, Over, Process, World


class Machine:
    """What all simulated processes run on."""

    def __init__(self, world: World) -> None:
        noise, chance = random.Random(world.rng.random()), random.Random(world.rng.random())
        self._shared = Runtime(
            clock=world.clock,
            monotonic=lambda: world.now,
            sleep=world.park,
            uniform=chance.uniform,
            sample=chance.sample,
            urandom=noise.randbytes,
            lock=partial(Lock, world),
            event=partial(Event, world),
            thread=partial(Thread, world),
            queue=partial(SimpleQueue, world),
            thread_id=lambda: 0 if world.current is None else world.current.number,
            sync_to_async=partial(on_a_thread, world),
        )

    def of(self, process: Process) -> Runtime:
        """Return it as one process sees it."""
        return replace(self._shared, process_id=lambda: process.pid)


class Lock:
    def __init__(self, world: World) -> None:
        self._world = world
        self._locked = False
        self._waiters: list[Fiber] = []

    def acquire(self, blocking: bool = True) -> bool:
        self._world.maybe_switch()
        if self._locked and not blocking:
            return False
        while self._locked and not self._world.over:
            fiber = self._world.current
            assert fiber is not None
            self._waiters.append(fiber)
            self._world.park(None)
        self._locked = True
        return True

    def release(self) -> None:
        self._locked = False
        if self._waiters:
            self._world.unpark(self._waiters.pop(0))

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *raised: object) -> None:
        self.release()


class Event:
    def __init__(self, world: World) -> None:
        self._world = world
        self._set = False
        self._waiters: list[Fiber] = []

    def is_set(self) -> bool:
        return self._set

    def set(self) -> None:
        self._set = True
        for fiber in self._waiters:
            self._world.unpark(fiber)
        self._waiters.clear()
        self._world.maybe_switch()

    def clear(self) -> None:
        self._world.maybe_switch()
        self._set = False

    def wait(self, timeout: float | None = None) -> bool:
        self._world.maybe_switch()
        if self._set:
            return True
        fiber = self._world.current
        assert fiber is not None, "nobody can wait here"
        self._waiters.append(fiber)
        try:
            return self._world.park(timeout)
        finally:
            if fiber in self._waiters:
                self._waiters.remove(fiber)


class SimpleQueue:
    def __init__(self, world: World) -> None:
        self._items: deque[Any] = deque()
        self._event = Event(world)

    def put(self, item: Any) -> None:
        self._items.append(item)
        self._event.set()

    def get(self) -> Any:
        while not self._items:
            self._event._set = False
            self._event.wait()
        return self._items.popleft()


class Thread:
    def __init__(
        self,
        world: World,
        *,
        target: Callable[..., object],
        args: tuple[Any, ...] = (),
        name: str = "thread",
        daemon: bool = True,
    ) -> None:
        self._world = world
        self._target = partial(target, *args)
        self._name = name
        self._ended = Event(world)

    def start(self) -> None:
        fiber = self._world.current
        assert fiber is not None, f"nobody can start {self._name} here"
        fiber.process.thread(self._run, self._name)

    def join(self, timeout: float | None = None) -> None:
        self._ended.wait(timeout)

    def _run(self) -> None:
        try:
            self._target()
        finally:
            self._ended.set()


def on_a_thread(world: World, function: Callable[[], Any], thread_sensitive: bool = True) -> Any:
    """Make an awaitable of a function that blocks, as ``sync_to_async`` does."""

    async def call() -> Any:
        loop = asyncio.get_running_loop()
        future = loop.create_future()

        def tell(value: Any, error: BaseException | None) -> None:
            if future.done():
                return
            if error is None:
                future.set_result(value)
            else:
                future.set_exception(error)

        def work() -> None:
            try:
                value = function()
            except Over:
                raise
            except BaseException as error:
                loop.call_soon_threadsafe(tell, None, error)
            else:
                loop.call_soon_threadsafe(tell, value, None)

        assert world.current is not None
        world.current.process.thread(work, "sync")
        return await future

    return call
