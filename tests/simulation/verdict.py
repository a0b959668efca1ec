"""What must hold while nothing goes wrong, and when all is over."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from jobify_django.outcome import CRASH_LIMIT
from jobify_django.pool.backoff import LONGEST_BACKOFF
from jobify_django.pool.quarantine import QUARANTINE
from jobify_django.push.waits import PushWaits
from tests.simulation.model import ModelJob
from tests.simulation.options import QUEUES
from tests.simulation.world import Process, Violation

if TYPE_CHECKING:
    from tests.simulation.simulation import Simulation

CHECK_EVERY = 0.1
PATIENCE = 2.0
"""Seconds an eligible job may wait although a worker is idle: a poll, and something for the turns."""

WATCHED_PATIENCE = 0.5
"""The same where nothing goes wrong and processes notice each other's writes."""

QUARANTINE_PATIENCE = PATIENCE + 2 * QUARANTINE
"""Seconds a job in quarantine may be first in line: one runs alone before it, or others have just started."""

ROOM_PATIENCE = 0.8
"""Seconds there may be room although a push waits for it: two polls of the line, and a look."""


class Verdict:
    """Looks, and raises ``Violation``."""

    def __init__(self, simulation: Simulation) -> None:
        self.simulation = simulation
        self.world = simulation.world
        self.model = simulation.model
        self._crowded_at: dict[str, float] = {}
        self._no_line_at: dict[tuple[Process, str], float] = {}

    # While it goes on

    def watch(self) -> None:
        """Look again and again; runs in a thread."""
        options = self.simulation.options
        patience = PATIENCE if not (options.calm and options.watched) else WATCHED_PATIENCE
        since: dict[str, float] = {}
        while True:
            self.world.park(CHECK_EVERY)
            now = self.world.clock()
            lines = [
                self.model.waiting(name, now)
                for name in QUEUES
                if not self.model.state(name).paused and self._idle(name)
            ]
            quarantined = {line[0].id for line in lines if line and line[0].crashes}
            # One that is first in line holds up all of them, unless one that may crash no more runs there.
            waiting = quarantined or {job.id for line in lines for job in line if not job.crashes}
            if any(job.crashes >= CRASH_LIMIT - 1 for job in self.model.running()):
                waiting -= quarantined
            since = {id: since.get(id, now) for id in waiting}
            for id, at in since.items():
                if now - at > (QUARANTINE_PATIENCE if quarantined else patience):
                    self.world.fail(f"job {id} waits although a worker is idle")
            for name in QUEUES:
                if len(self.model.waiting(name, now)) >= self.model.live(name).maxsize:
                    self._crowded_at[name] = self.world.now
                if options.calm:
                    self._hold_lines(name)

    def _hold_lines(self, queue: str) -> None:
        """Nobody waits for room for long while there is some."""
        now = self.world.now
        for process in self.world.processes:
            if process.alive:
                if not process.view.process_local(PushWaits, queue).busy:
                    self._no_line_at[process, queue] = now
                since = max(self._no_line_at.get((process, queue), now), self._crowded_at.get(queue, 0.0))
                if now - since > ROOM_PATIENCE:
                    self.world.fail(f"pushes of {process.name} wait although {queue!r} has room")

    def hold_refusal(self, what: str, queue: str, began: float) -> None:
        """A push that has waited for room since ``began`` is refused: there was none just before."""
        room_since = max(began, self._crowded_at.get(queue, 0.0))
        if self.world.now - room_since > ROOM_PATIENCE:
            self.world.fail(f"{what} was refused although {queue!r} had room since {room_since:.2f}")

    def _idle(self, name: str) -> bool:
        pools = self.simulation.pools
        slots = [
            pool.slots[name]
            for process in pools.serving
            for pool in process.service.pools
            # One whose quarantine lasts has its process for itself.
            if not process.old
            and not any(claim.crashes for claim in pools.recent(process))
            # After an outage it takes a pool as long as its longest back-off to look again.
            and name in pool.slots
            and pool._started_at is not None
            and self.world.clock() - pool._started_at > PATIENCE
        ]
        # The last slow call may have begun just before, and a pool backs off.
        settled = self.simulation.healed_at + max(LONGEST_BACKOFF, 2.5 * self.simulation.options.lease)
        healed = self.simulation.healed and self.world.now > settled
        cap = self.model.queues[name].max_running
        if cap is not None and len(self.model.running(name)) >= cap:
            return False
        return (healed or self.simulation.options.calm) and any(one.idle for one in slots)

    # At the end

    def hold(self) -> None:
        """Every job has ended, and nothing happens any more."""
        if wrong := self.simulation.shared.wrong_counts():
            raise self._broken(f"counts of waiting jobs (queue, count, jobs): {wrong}")
        self._hold_pushes()
        for id, attempt in self.simulation.pools.started:
            job = self.model.jobs.get(id) or self.model.pruned[id]
            if attempt > job.attempt:
                raise self._broken(f"job {id} has begun {attempt} times, and says {job.attempt}")
        for process in self.simulation.pools.serving:
            self._hold_pool(process)

    def _hold_pushes(self) -> None:
        there: dict[int, list[ModelJob]] = defaultdict(list)
        for job in (*self.model.jobs.values(), *self.model.pruned.values()):
            there[job.tag].append(job)
        for push in self.simulation.sites.pushes.values():
            jobs = there.pop(push.tag, [])
            if len(jobs) > 1:
                raise self._broken(f"push {push.tag} has made {len(jobs)} jobs: {jobs}")
            if push.state == "acknowledged" and not jobs:
                raise self._broken(f"push {push.tag} was acknowledged, and its job is gone")
            if push.state == "refused" and jobs:
                raise self._broken(f"push {push.tag} was refused, and its job is there: {jobs[0]}")
        if there:
            raise self._broken(f"jobs that nobody pushed: {there}")

    def _hold_pool(self, process: Process) -> None:
        for pool in process.service.pools:
            for name, slots in pool.slots.items():
                live, version = self.model.live(name), self.model.state(name).version
                if (slots.size, slots.version) != (live.workers, version):
                    raise self._broken(f"{process.name} has not followed the tuning of {name!r}")
                if slots.busy:
                    raise self._broken(f"{process.name} has {slots.busy} workers busy with nothing")
            if not pool.completer.empty:
                raise self._broken(f"{process.name} still holds {pool.completer.held()}")

    def hold_after_drain(self, stopped: list[Process]) -> None:
        """Every pool has stopped: nothing of it is left."""
        if going := [process for process in stopped if not process.ended]:
            raise self._broken(f"not stopped: {going}")
        for process in stopped:
            if left := [fiber for fiber in process.fibers if not fiber.ended and fiber.loop is None]:
                raise self._broken(f"threads left after the drain: {left}")
            assert process.loop is not None
            if tasks := [task for task in process.loop.tasks if not task.done()]:
                raise self._broken(f"tasks left after the drain: {tasks}")
        announced = {pool.id for pool in self.simulation.shared.store.pools()}
        if announced & {pool.id for process in stopped for pool in process.service.pools}:
            raise self._broken("a pool that has stopped is still announced")

    def unended(self) -> Violation:
        """Return that not everything came to its end."""
        jobs = [f"{job.id[-4:]} is {job.status}" for job in self.model.unended()]
        return self._broken(f"not ended at quiescence: {jobs}, {self.simulation.sites.busy}")

    def _broken(self, what: str) -> Violation:
        self.world.note(f"VIOLATION {what}")
        return Violation(what)
