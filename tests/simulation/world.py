"""A world with a time of its own: simulated processes, their threads and event loops, and who goes next.

Each simulated thread is a greenlet, so code that blocks runs as it stands, and the world decides at every
point where a thread waits (or might be interrupted) which one goes on. All of it is drawn from one seed.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
import random
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from greenlet import GreenletExit, getcurrent, greenlet

if TYPE_CHECKING:
    from tests.simulation.loop import Loop

EPOCH = 1_800_000_000.0
SPIN = 20_000
"""So many turns without time going on mean that somebody turns in a circle."""

Befall = Callable[["Process"], None]


class Violation(AssertionError):
    """Something that must never happen has happened."""


class Over(BaseException):
    """The world has ended, or the process has died: unwind."""


class Fiber:
    """A simulated thread."""

    def __init__(self, process: Process, number: int, name: str, target: Callable[[], object]) -> None:
        self.process = process
        self.number = number
        self.name = name
        self.loop: Loop | None = None
        self.parked = False
        self.rung = False
        self.token = 0
        self.ended = False
        self.greenlet = greenlet(partial(self._run, target), parent=process.world.hub)

    def __repr__(self) -> str:
        return f"{self.process.name}/{self.name}"

    def _run(self, target: Callable[[], object]) -> None:
        try:
            target()
        except (Over, GreenletExit):
            pass
        except BaseException as error:
            self.process.world.fail(f"thread {self} died: {error!r}", error)
        finally:
            self.ended = True


class Process:
    """A simulated process: it can crash, and it can freeze."""

    def __init__(self, world: World, name: str, *, mortal: bool = True) -> None:
        self.world = world
        self.name = name
        self.mortal = mortal
        self.pid = next(world.numbers)
        self.dead = False
        self.ended = False
        self.frozen_until = 0.0
        self.still: list[Fiber] = []
        self.troubles: list[tuple[float, float, str]] = []
        self.fibers: list[Fiber] = []
        self.loop: Loop | None = None
        self.runtime: Any = None
        self.view: Any = None
        self.stores: Any = None
        self.tasks: Any = None
        self.service: Any = None
        self.stopping = False
        self.old = False
        self.again: Callable[[], None] | None = None
        world.processes.append(self)

    def __repr__(self) -> str:
        return self.name

    @property
    def alive(self) -> bool:
        return not self.dead and not self.ended

    def thread(self, target: Callable[[], object], name: str) -> Fiber:
        """Start a thread."""
        fiber = Fiber(self, next(self.world.numbers), name, target)
        self.fibers.append(fiber)
        self.world.runnable.append(fiber)
        return fiber

    def crash(self, why: str) -> None:
        """Die, with everything in memory."""
        if self.dead:
            return
        self.world.note(f"{self.name} dies: {why}")
        self.trouble(0.0, "crash")
        self.dead = True
        self.world.on_death(self)
        if self.world.current is not None and self.world.current.process is self:
            self.world.hub.switch()

    def freeze(self, seconds: float) -> None:
        """Stand still for so long, and then go on with stale knowledge."""
        self.world.note(f"{self.name} freezes for {seconds:.2f} s")
        self.trouble(seconds, "freeze")
        self.frozen_until = max(self.frozen_until, self.world.now + seconds)
        self.world.at(self.frozen_until, self.thaw)

    def thaw(self, *, early: bool = False) -> None:
        """Go on, if it is time to."""
        if early or self.frozen_until <= self.world.now:
            self.frozen_until = 0.0
            self.world.runnable += self.still
            self.still = []

    def stalled(self, since: float) -> float:
        """Return for how long it was frozen, or waited for a slow call, since a time."""
        now = self.world.now
        return sum(max(0.0, min(end, now) - max(start, since)) for start, end, _ in self.troubles)

    def trouble(self, seconds: float, what: str) -> None:
        """Take down that the process was hindered from now on for so long."""
        self.troubles.append((self.world.now, self.world.now + seconds, what))


class World:
    """Time, chance, and everybody who lives."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.now = 1_000.0
        self.hub = getcurrent()
        self.numbers = itertools.count(1)
        self.processes: list[Process] = []
        self.runnable: list[Fiber] = []
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self.current: Fiber | None = None
        self.preempt = 0.0
        self.over = False
        self._held = 0
        self.turns = 0
        self.trace: list[str] = []
        self.violation: BaseException | None = None
        self.strike: Befall = lambda process: None
        self.on_death: Befall = lambda process: None

    def clock(self) -> float:
        """The store's clock."""
        return EPOCH + self.now

    def note(self, text: str) -> None:
        """Write a line of the trace."""
        who = "" if self.current is None else f" {self.current}:"
        self.trace.append(f"{self.now - 1000:9.4f}{who} {text}")

    def fail(self, what: str, cause: BaseException | None = None) -> None:
        """Note that an invariant is broken; the run ends."""
        if self.violation is None and not self.over:
            self.note(f"VIOLATION {what}")
            self.violation = Violation(what)
            self.violation.__cause__ = cause

    # Threads

    def park(self, seconds: float | None) -> bool:
        """Let the current thread wait; return whether it was woken before the time was over."""
        fiber = self.current
        if self.over or fiber is None or fiber.process.dead:
            raise Over
        fiber.token += 1
        fiber.parked, fiber.rung = True, False
        if seconds is not None:
            self.at(self.now + max(0.0, seconds), partial(self._due, fiber, fiber.token))
        self._leave(fiber)
        return fiber.rung

    def unpark(self, fiber: Fiber) -> None:
        """Wake a thread that waits."""
        if fiber.parked:
            fiber.rung = True
            self._go(fiber)

    def maybe_switch(self) -> None:
        """A point at which the current thread may be interrupted by others."""
        fiber = self.current
        if fiber is None or self._held or self.over:
            return
        if self.rng.random() < self.preempt:
            self.runnable.append(fiber)
            self._leave(fiber)

    @contextlib.contextmanager
    def uninterrupted(self) -> Any:
        """A stretch at which nobody else goes on: the simulated threads share one database connection."""
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1

    @property
    def held(self) -> bool:
        """Whether the current stretch is uninterrupted."""
        return self._held > 0

    def at(self, when: float, call: Callable[[], None]) -> None:
        """Call something at a time."""
        heapq.heappush(self._timers, (when, next(self._order), call))

    def _due(self, fiber: Fiber, token: int) -> None:
        if fiber.parked and fiber.token == token:
            self._go(fiber)

    def _go(self, fiber: Fiber) -> None:
        fiber.parked = False
        fiber.token += 1
        self.runnable.append(fiber)

    def _leave(self, fiber: Fiber) -> None:
        assert self._held == 0, "a thread waits inside a stretch that must not be interrupted"
        loop = fiber.loop
        task = None if loop is None else asyncio.current_task(loop)
        if task is not None:
            asyncio.tasks._leave_task(loop, task)  # type: ignore[attr-defined]
        self.hub.switch()
        if task is not None:
            asyncio.tasks._enter_task(loop, task)  # type: ignore[attr-defined]
        if self.over or fiber.process.dead:
            raise Over

    # Its course

    def run(self, until: Callable[[], object], limit: float) -> bool:
        """Go on until something is true (looked at whenever time goes on); ``False`` past ``limit``."""
        spun = 0
        while self.violation is None:
            if self.runnable:
                spun += 1
                if spun > SPIN:
                    self.fail(f"turns in a circle: {self.runnable}")
                self._turn()
                continue
            if until():
                return True
            if not self._timers or self._timers[0][0] > limit:
                self.now = max(self.now, limit)
                return False
            when, _, call = heapq.heappop(self._timers)
            if when > self.now:
                self.now = when
                spun = 0
            call()
        raise self.violation

    def _turn(self) -> None:
        place = self.rng.randrange(len(self.runnable)) if len(self.runnable) > 1 else 0
        fiber = self.runnable[place]
        self.runnable[place] = self.runnable[-1]
        self.runnable.pop()
        process = fiber.process
        if process.dead or fiber.ended:
            return
        if process.mortal:
            self.strike(process)
            if process.dead:
                return
        if process.frozen_until > self.now:
            process.still.append(fiber)
            return
        self.turns += 1
        self.current = fiber
        asyncio._set_running_loop(fiber.loop)
        try:
            fiber.greenlet.switch()
        finally:
            self.current = None
            asyncio._set_running_loop(None)

    def end(self) -> None:
        """Unwind every thread and task that is left, so that nothing reaches into the next world."""
        self.over = True
        for process in self.processes:
            for fiber in process.fibers:
                self.current = fiber
                asyncio._set_running_loop(fiber.loop)
                for _ in range(100):
                    if fiber.ended or not fiber.greenlet:
                        break
                    fiber.greenlet.throw(Over)
                fiber.ended = True
        self.current = None
        asyncio._set_running_loop(None)
        for process in self.processes:
            if process.loop is not None:
                process.loop.abandon()
