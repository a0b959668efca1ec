"""Somebody who cancels, retries, tunes, pauses, deploys, and rolls transactions back, at random."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from jobify_django.conf import get_settings
from jobify_django.exceptions import QueueFull
from jobify_django.job import CANCELLED, FAILED
from jobify_django.queue import Queue
from tests.simulation import work
from tests.simulation.model import ModelJob
from tests.simulation.options import QUEUES

if TYPE_CHECKING:
    from tests.simulation.simulation import Simulation


class Operator:
    """Acts in a process of its own, which nothing befalls."""

    def __init__(self, simulation: Simulation) -> None:
        self.simulation = simulation
        self.world = simulation.world
        self.rng = simulation.world.rng
        self.process = simulation.process("office", mortal=False)
        self._task: Any = self.process.tasks[work.name_of(work.act)]
        self.done = False
        self._acts: list[Callable[[], object]] = [
            self._cancel,
            self._cancel,
            self._retry,
            self._tune,
            self._tune,
            self._pause_or_resume,
            self._deploy,
        ]
        if simulation.options.store == "database":
            self._acts += [self._roll_back, self._roll_back]

    def work(self) -> None:
        """Act until nothing goes wrong any more; then let every queue run."""
        while not self.simulation.healed:
            self.world.park(self.rng.expovariate(1.0))
            if not self.simulation.healed:
                self.rng.choice(self._acts)()
        for name in QUEUES:
            if self.simulation.model.state(name).paused:
                self._queue(name).resume()
        self.done = True

    def _queue(self, name: str) -> Queue:
        return Queue(get_settings().queue(name), self.process.stores)

    def _any(self, jobs: list[ModelJob]) -> list[str]:
        return [self.rng.choice(jobs).id] if jobs else []

    def _cancel(self) -> None:
        self.process.view.cancel(self._any(self.simulation.model.unended()))

    def _retry(self) -> None:
        jobs = self.simulation.model.jobs.values()
        self.process.view.retry(self._any([job for job in jobs if job.status in (FAILED, CANCELLED)]))

    def _tune(self) -> None:
        rng = self.rng
        changes: list[dict[str, Any]] = [
            {"workers": rng.randint(1, 4)},
            {"maxsize": rng.randint(1, 6)},
            {"order": rng.choice(("priority", "fifo", "lifo"))},
            {"workers": None, "maxsize": None},
        ]
        self._queue(rng.choice(QUEUES)).tune(**rng.choice(changes))

    def _pause_or_resume(self) -> None:
        name = self.rng.choice(QUEUES)
        if self.simulation.model.state(name).paused:
            self._queue(name).resume()
        else:
            self._queue(name).pause()

    def _deploy(self) -> None:
        """Stop a process, and start another in its place."""
        if serving := self.simulation.pools.serving:
            process = self.rng.choice(serving)
            again = process.again
            self.simulation.pools.stop(process)
            assert again is not None
            again()

    def _roll_back(self) -> None:
        push, script, using = self.simulation.sites.script(self.process)
        push.state = "refused"
        self.world.note(f"push {push.tag}: in a transaction that is rolled back")

        def attempt() -> None:
            before = self.world.now
            with contextlib.suppress(QueueFull):
                self._task.using(**using).push(*script)
            if self.world.now != before:
                self.world.fail("a push inside a transaction waited")

        self.simulation.shared.rolled_back(attempt)
