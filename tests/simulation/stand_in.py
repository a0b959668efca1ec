"""What stands in for the modules ``threading``, ``time``, ``os``, ``random`` and ``queue`` in the package."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from django.db import connections

import jobify_django.job
from jobify_django.pool.slots import Slots
from jobify_django.registry import tasks
from jobify_django.stores import StoreHandler
from tests.simulation.world import Fiber, Over, Process, World

REAL = ("file", "stores.memory", "stores.database", "management", "admin", "testing", "asgi", "migrations")
"""Modules of the package that keep the machine's own time and locks: nothing of theirs is interrupted."""


@contextlib.contextmanager
def under_virtual_time(world: World) -> Iterator[None]:
    """Put the world's time, threads and chance where the package's modules have the machine's."""
    modules: dict[str, Any] = {
        "threading": Threading(world),
        "time": Time(world),
        "os": OS(world),
        "random": random.Random(world.rng.random()),
        "SimpleQueue": partial(SimpleQueue, world),
    }
    with contextlib.ExitStack() as stack:

        def put(owner: Any, name: str, value: Any) -> None:
            stack.callback(setattr, owner, name, getattr(owner, name))
            setattr(owner, name, value)

        for name, module in sorted(sys.modules.items()):
            own = name.removeprefix("jobify_django.")
            if own == name or own.startswith(REAL):
                continue
            for attribute, value in modules.items():
                if hasattr(module, attribute):
                    put(module, attribute, value)
            if own in ("pool.workers", "pool.execution", "pool.dryness"):
                put(module, "tasks", Tasks(world))
            if own == "waiting.waker":
                put(module, "sync_to_async", partial(on_a_thread, world))
        put(Slots, "lock", LockOfProcess(world))
        put(StoreHandler, "of", lambda self, queue: _view(world))
        put(StoreHandler, "__getitem__", lambda self, name: _view(world))
        put(jobify_django.job, "_tails", [])
        settings = connections["default"].settings_dict
        stack.callback(settings.__setitem__, "CONN_MAX_AGE", settings["CONN_MAX_AGE"])
        settings["CONN_MAX_AGE"] = None
        yield


def _view(world: World) -> Any:
    assert world.current is not None, "a store is asked for outside of every process"
    return world.current.process.view


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


class LockOfProcess:
    """A lock that each process has of its own although it stands on a class."""

    def __init__(self, world: World) -> None:
        self._world = world

    def _mine(self) -> Lock | None:
        if self._world.current is None:
            return None
        process: Process = self._world.current.process
        if process.lock is None:
            process.lock = Lock(self._world)
        return process.lock  # type: ignore[no-any-return]

    def __enter__(self) -> None:
        if (lock := self._mine()) is not None:
            lock.__enter__()

    def __exit__(self, *raised: object) -> None:
        if (lock := self._mine()) is not None:
            lock.__exit__()


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


class Threading:
    """``threading``, as far as the package uses it: an unknown name is an error that says so."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.Lock = partial(Lock, world)
        self.Event = partial(Event, world)
        self.Thread = partial(Thread, world)

    def get_ident(self) -> int:
        return 0 if self._world.current is None else self._world.current.number


class Time:
    """``time``."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.time = world.clock

    def monotonic(self) -> float:
        return self._world.now

    def time_ns(self) -> int:
        return int(self._world.clock() * 1e9)

    def sleep(self, seconds: float) -> None:
        self._world.park(seconds)


class OS:
    """``os``."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.urandom = random.Random(world.rng.random()).randbytes

    def getpid(self) -> int:
        return 0 if self._world.current is None else self._world.current.process.pid


class Tasks:
    """``jobify_django.task.tasks``, as the release of the current process has it."""

    def __init__(self, world: World) -> None:
        self._world = world

    def get(self, name: str) -> Any:
        fiber = self._world.current
        old = fiber is not None and fiber.process.old
        return None if old and name.endswith(".fresh") else tasks.get(name)

    def __getitem__(self, name: str) -> Any:
        found = self.get(name)
        return tasks["unknown"] if found is None else found


def on_a_thread(world: World, function: Callable[[], Any], thread_sensitive: bool = True) -> Any:
    """Stand in for ``sync_to_async``."""

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
