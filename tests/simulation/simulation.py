"""One simulated story: pools, sites and an operator over one store, and what goes wrong, from one seed."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import replace

from django.db import connections
from django.test import override_settings

from jobify_django.conf import get_settings
from jobify_django.exceptions import StoreError
from jobify_django.runtime import MACHINE
from jobify_django.stores import StoreHandler
from jobify_django.stores.base import Store
from jobify_django.stores.database import DatabaseStore
from jobify_django.stores.memory import MemoryStore
from tests.simulation import work
from tests.simulation.luck import Luck
from tests.simulation.machine import Machine
from tests.simulation.model import Model
from tests.simulation.operator import Operator
from tests.simulation.options import QUEUES, Options
from tests.simulation.pools import Pools
from tests.simulation.shared import Shared
from tests.simulation.sites import Sites
from tests.simulation.verdict import Verdict
from tests.simulation.view import View
from tests.simulation.world import Process, World

TROUBLES = ("refused", "rescued", "lost", "repaired", "store-away", "upkeep-failed", "loop-blocked")
"""What a pool has no reason to say where nothing goes wrong."""


class Simulation:
    """A story. ``run`` plays it.

    Args:
        seed: what everything is drawn from.
        store: one of ``STORES``, instead of the one drawn.
        profile: one of ``PROFILES``, instead of the one drawn.
    """

    def __init__(self, seed: int, *, store: str | None = None, profile: str | None = None) -> None:
        self.seed = seed
        self.world = World(seed)
        self.options = Options.draw(self.world.rng, store, profile)
        self.healed = False
        self.healed_at = 0.0

    def run(self) -> Simulation:
        """Play the story to its end, and return it; raises ``Violation``."""
        with override_settings(JOBIFY=self.options.jobify), _kept_connection(), self._listening():
            try:
                self._set_up()
                self._play()
            finally:
                work.stages.clear()
                self.world.end()
        return self

    def process(self, name: str, *, mortal: bool = True, old: bool = False) -> Process:
        """Return a new process, perhaps of an old release."""
        process = Process(self.world, name, mortal=mortal)
        process.runtime = self.machine.of(process)
        process.old = old
        process.view = View(
            self.shared,
            process,
            self.luck.fault,
            blocking=self.options.store != "memory",
            watched=self.options.watched,
        )
        process.stores = StoreHandler()
        process.stores.put(process.view)
        process.tasks = work.declared(process.stores, old=old)
        return process

    def _set_up(self) -> None:
        settings = get_settings()
        self.machine = Machine(self.world)
        self.model = Model({name: settings.queue(name) for name in QUEUES})
        self.shared = Shared(self.world, self._make_store(), self.model)
        self.luck = Luck(self)
        self.pools = Pools(self)
        self.sites = Sites(self)
        self.operator = Operator(self)
        self.verdict = Verdict(self)
        self.shared.rescued = self.luck.rescued
        self.world.preempt = self.options.preempt
        self.world.strike = self.luck.strike
        self.world.on_death = self.luck.died
        work.stages.append(self.pools)
        self.operator.process.thread(self.operator.work, "operator")
        self.operator.process.thread(self.verdict.watch, "watch")
        for number in range(self.options.pools):
            # Any but the first may serve one queue alone.
            queues = QUEUES if number == 0 or self.world.rng.random() < 0.7 else ("mail",)
            self.pools.start(f"pool{number + 1}", queues, old=self.options.rolling)
        for number in range(self.options.sites):
            self.sites.start(f"site{number + 1}")

    def _make_store(self) -> Store:
        if self.options.store != "database":
            return MemoryStore("memory", replace(MACHINE, clock=self.world.clock))
        with connections["default"].cursor() as cursor:
            for table in ("job", "queue", "queuechange", "pool"):
                cursor.execute(f"DELETE FROM jobify_{table}")
        return DatabaseStore("database", replace(MACHINE, clock=self.world.clock))

    def _play(self) -> None:
        world = self.world
        world.run(lambda: False, world.now + self.options.seconds)
        self._heal()
        if not world.run(self._all_ended, world.now + 60 + 8 * self.options.lease):
            raise self.verdict.unended()
        world.run(lambda: False, world.now + 3)
        self.verdict.hold()
        stopped = self.pools.serving
        for process in stopped:
            self.pools.stop(process)
        world.run(lambda: all(process.ended for process in stopped), world.now + 10)
        world.run(lambda: False, world.now + 2)
        self.verdict.hold_after_drain(stopped)

    def _heal(self) -> None:
        self.healed, self.healed_at = True, self.world.now
        self.world.note("from here on nothing goes wrong any more")
        for process in self.world.processes:
            process.thaw(early=True)
        self.pools.start("pool0")

    def _all_ended(self) -> bool:
        return self.operator.done and not self.sites.busy and not self.model.unended()

    @contextlib.contextmanager
    def _listening(self) -> Iterator[None]:
        """Hear what the package logs: some of it must never be said."""
        logger = logging.getLogger("jobify")
        ear = _Ear(self)
        before = logger.propagate, logger.level
        logger.addHandler(ear)
        logger.propagate, logger.level = False, logging.WARNING
        try:
            yield
        finally:
            logger.removeHandler(ear)
            logger.propagate, logger.level = before


@contextlib.contextmanager
def _kept_connection() -> Iterator[None]:
    """Let no simulated thread close the one connection that they all share."""
    settings = connections["default"].settings_dict
    before, settings["CONN_MAX_AGE"] = settings["CONN_MAX_AGE"], None
    try:
        yield
    finally:
        settings["CONN_MAX_AGE"] = before


class _Ear(logging.Handler):
    def __init__(self, simulation: Simulation) -> None:
        super().__init__(logging.WARNING)
        self._simulation = simulation

    def emit(self, record: logging.LogRecord) -> None:
        world = self._simulation.world
        if world.over:
            return
        text = record.getMessage()
        world.note(f"says {text[:200]}")
        error = record.exc_info[1] if record.exc_info else None
        theirs = text.startswith(("event=failed ", "event=refused "))  # what a job raised
        odd = error is not None and not isinstance(error, StoreError) and not theirs
        if odd or "event=pool-died" in text or "never awaited" in text:
            world.fail(f"it said: {text}", error)
        if self._simulation.options.calm and any(f"event={event}" in text for event in TROUBLES):
            world.fail(f"nothing went wrong, and yet it said: {text}")
