"""The processes that push jobs and wait for them, in threads and on an event loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from jobify_django.exceptions import JobNotFound, QueueFull, StoreError, WaitTimeout
from tests.simulation import work
from tests.simulation.loop import start_loop
from tests.simulation.options import QUEUES
from tests.simulation.world import Process

if TYPE_CHECKING:
    from tests.simulation.simulation import Simulation

SLACK = 0.5
THREADS = 2
TASKS = 2


@dataclass
class Push:
    """A push as its producer knows it. The tag is the job's first argument."""

    tag: int
    process: Process
    state: str = "under way"


class Sites:
    """Processes that push."""

    def __init__(self, simulation: Simulation) -> None:
        self.simulation = simulation
        self.world = simulation.world
        self.rng = simulation.world.rng
        self.pushes: dict[int, Push] = {}
        self.busy: set[tuple[Process, str]] = set()
        self._functions = [work.act, work.aact, *([work.fresh] if simulation.options.rolling else [])]

    def start(self, name: str, lives: int = 2) -> None:
        """Start a process; when it crashes it is started again, but not for ever."""
        process = self.simulation.process(name)
        process.again = partial(self.start, name, lives - 1) if lives else None
        loop = start_loop(process)
        for number in range(THREADS):
            producer = (process, f"thread {number}")
            self.busy.add(producer)
            process.thread(partial(self._produce, process, producer), "producer")
        for number in range(TASKS):
            producer = (process, f"task {number}")
            self.busy.add(producer)
            loop.start(self._aproduce(process, producer))

    def forget(self, process: Process) -> None:
        """A process has died: it no longer pushes, and nobody knows what became of its last push."""
        self.busy = {producer for producer in self.busy if producer[0] is not process}
        for push in self.pushes.values():
            if push.process is process and push.state == "under way":
                push.state = "unknown"

    def _any_task(self, process: Process) -> Any:
        return process.tasks[work.name_of(self.rng.choice(self._functions))]

    def new(self, process: Process) -> Push:
        """Return a new push."""
        tag = len(self.pushes) + 1
        push = self.pushes[tag] = Push(tag, process)
        return push

    def script(self, process: Process) -> tuple[Push, tuple[Any, ...], dict[str, Any]]:
        """Return a push, the arguments of its job, and how it is pushed."""
        rng, options = self.rng, self.simulation.options
        push = self.new(process)
        kind = "crash" if options.crashes and rng.random() < 0.05 else rng.choice(work.KINDS)
        # Long ones show what happens to a job whose pool has lost it and goes on.
        long = rng.random() < (0.4 if options.freezes else 0.2)
        seconds = rng.uniform(0, 2.5 * options.lease) if long else rng.choice((0.0, 0.0, 0.05, 0.5))
        using: dict[str, Any] = {}
        using["queue"], using["priority"] = rng.choice((*QUEUES, "default")), rng.choice((-5, 0, 0, 7))
        if rng.random() < 0.2:
            using["delay"] = rng.uniform(0, 3)
        if rng.random() < 0.2:
            using["timeout"] = rng.choice((0, 0.5, 2))
        return push, (push.tag, kind, seconds), using

    # In a thread

    def _produce(self, process: Process, producer: tuple[Process, str]) -> None:
        for _ in range(self.simulation.options.pushes):
            self.world.park(self._pause())
            if self.simulation.healed:
                break
            task = self._any_task(process)
            if self.rng.random() < 0.2:
                self._push_many(process, task)
                continue
            push, script, using = self.script(process)
            job: Any = None
            with self._told([push]), self._in_time(process, using, [push]):
                job = task.using(**using).push(*script)
            if job is not None:
                self._acknowledged(job)
                if self.rng.random() < 0.3:
                    self._wait_for(process, job)
        self.busy.discard(producer)

    def _push_many(self, process: Process, task: Any) -> None:
        made = [self.script(process) for _ in range(self.rng.randint(2, 5))]
        pushes, using = [push for push, _, _ in made], made[0][2]
        with self._told(pushes), self._in_time(process, using, pushes):
            task.using(**using).push_many([script for _, script, _ in made])

    def _wait_for(self, process: Process, job: Any) -> None:
        timeout = self.rng.choice((0.1, 1.0, 4.0))
        began = self.world.now
        with contextlib.suppress(WaitTimeout, JobNotFound, StoreError):
            job.wait(timeout=timeout)
            self._hold_ended(job)
        self._hold_time(process, timeout, began, f"the wait for {job.id}")

    def _hold_ended(self, job: Any) -> None:
        if not job.status.ended:
            self.world.fail(f"the wait for {job.id} returned, and it is {job.status}")

    # On the event loop

    async def _aproduce(self, process: Process, producer: tuple[Process, str]) -> None:
        for _ in range(self.simulation.options.pushes):
            await asyncio.sleep(self._pause())
            if self.simulation.healed:
                break
            task = self._any_task(process)
            made = [self.script(process) for _ in range(self.rng.choice((1, 1, 1, 3)))]
            pushes, using = [push for push, _, _ in made], made[0][2]
            calls = [script for _, script, _ in made]
            with self._told(pushes), self._in_time(process, using, pushes):
                pushing = asyncio.ensure_future(task.using(**using).apush_many(calls))
                await self._patiently(pushing)
                if not pushing.cancelled():
                    for job in pushing.result():
                        self._acknowledged(job)
            if pushing.cancelled():
                self._hold_cancelled(process, pushes)
        self.busy.discard(producer)

    def _hold_cancelled(self, process: Process, pushes: list[Push]) -> None:
        """A cancelled push leaves nothing that will run."""
        hindered = any(what == "failure" for _, _, what in process.troubles)
        tags = {push.tag for push in pushes}
        for push in pushes:
            push.state = "cancelled"
        for job in self.simulation.model.unended():
            retried = any(entry.reason == "retried by hand" for entry in job.history)
            if job.tag in tags and not (job.cancel_requested or retried or hindered):
                self.world.fail(f"push {job.tag} was cancelled, and job {job.id} is {job.status}")

    async def _patiently(self, pushing: asyncio.Future[Any]) -> None:
        """Wait for a push; sometimes lose patience and cancel it."""
        impatient = self.rng.random() < 0.4
        patience = self.rng.choice((0.0005, 0.003, 0.5)) * self.rng.random()
        _, pending = await asyncio.wait([pushing], timeout=patience if impatient else None)
        if pending:
            pushing.cancel()
            await asyncio.wait([pushing])

    # What they are told

    def _pause(self) -> float:
        return self.rng.expovariate(self.simulation.options.pushes / self.simulation.options.seconds)

    @contextlib.contextmanager
    def _told(self, pushes: list[Push]) -> Iterator[None]:
        try:
            yield
        except QueueFull as full:
            for place, push in enumerate(pushes):
                push.state = "acknowledged" if place < full.taken else "refused"
        except StoreError:
            for push in pushes:
                push.state = "unknown"
        else:
            for push in pushes:
                push.state = "acknowledged"
        self.world.note(f"push {', '.join(f'{push.tag}: {push.state}' for push in pushes)}")

    def _acknowledged(self, job: Any) -> None:
        model = self.simulation.model
        if job.id not in model.jobs and job.id not in model.pruned:
            self.world.fail(f"job {job.id} was acknowledged, and is not in the store")

    @contextlib.contextmanager
    def _in_time(self, process: Process, using: dict[str, Any], pushes: list[Push]) -> Iterator[None]:
        """A push ends by its timeout, and is not refused while there is room."""
        seconds = using.get("timeout", self.simulation.options.jobify["PUSH_TIMEOUT"])
        began = self.world.now
        what = f"push {pushes[0].tag}"
        try:
            yield
        except QueueFull:
            if self.simulation.options.calm and 0 < seconds <= self.world.now - began:
                self.simulation.verdict.hold_refusal(what, using["queue"], began)
            raise
        finally:
            self._hold_time(process, seconds, began, what)

    def _hold_time(self, process: Process, seconds: float, began: float, what: str) -> None:
        taken = self.world.now - began - process.stalled(began)
        if taken > seconds + SLACK and not self.world.over:
            self.world.fail(f"{what} of {process.name} took {taken:.2f} s, its timeout was {seconds} s")
