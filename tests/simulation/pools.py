"""The processes that run jobs, what their jobs do, and what must hold while they do it."""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from jobify_django.job import Claim
from jobify_django.outcome import CRASH_LIMIT
from jobify_django.pool import Service
from jobify_django.pool.pool import RELEASE_TIMEOUT, Pool
from jobify_django.pool.quarantine import QUARANTINE
from jobify_django.stores.value import Demand, Quarantine
from tests.simulation import work
from tests.simulation.loop import start_loop
from tests.simulation.options import QUEUES
from tests.simulation.world import Process

if TYPE_CHECKING:
    from tests.simulation.simulation import Simulation

SLACK = 0.5
AGAIN = {"retried by hand", "its pool stopped", "its task is not known here"}
"""The reasons for which a job may start again where nothing goes wrong."""


class Pools:
    """Processes with a ``Service``. It is the stage of their jobs, too."""

    def __init__(self, simulation: Simulation) -> None:
        self.simulation = simulation
        self.world = simulation.world
        self.process_of: dict[str, Process] = {}
        self.started: set[tuple[str, int]] = set()
        self.executing: dict[tuple[str, int], tuple[Process, Claim]] = {}
        self._sizes: dict[tuple[Process, str], list[tuple[float, int]]] = defaultdict(list)
        self._asked: dict[Process, deque[float]] = defaultdict(lambda: deque([0.0], maxlen=3))

    @property
    def serving(self) -> list[Process]:
        """The processes that run jobs, and are not told to stop."""
        return [p for p in self.world.processes if p.alive and p.service is not None and not p.stopping]

    def start(self, name: str, queues: tuple[str, ...] = QUEUES, *, old: bool = False) -> None:
        """Start a process; one of an old release is followed by one of the new."""
        process = self.simulation.process(name, old=old)
        process.again = partial(self.start, name, queues)
        start_loop(process).start(self._serve(process, queues))

    def stop(self, process: Process) -> None:
        """Tell a process to drain and end."""
        process.stopping = True
        process.again = None
        assert process.loop is not None
        process.loop.call_soon_threadsafe(process.stop.set)  # type: ignore[attr-defined]

    async def _serve(self, process: Process, queues: tuple[str, ...]) -> None:
        process.stop = stop = asyncio.Event()  # type: ignore[attr-defined]
        process.service = Service(queues, tasks=process.tasks, stores=process.stores, runtime=process.runtime)
        for pool in process.service.pools:
            self._watch(process, pool)
        await process.service.start()
        await stop.wait()
        began = self.world.now
        grace = self.world.rng.choice((0.0, 0.5, 2.0))
        self.world.note(f"{process.name} drains within {grace} s")
        if self.world.rng.random() < 0.2:
            process.service.release_now()
        await process.service.drain(grace)
        taken = self.world.now - began - process.stalled(began)
        if taken > grace + RELEASE_TIMEOUT * 1.5 + SLACK:
            self.world.fail(f"{process.name} took {taken:.1f} s to drain, its grace was {grace} s")
        self.world.note(f"{process.name} has drained")
        process.ended = True

    # How many run

    def _watch(self, process: Process, pool: Pool) -> None:
        self.process_of[pool.id] = process
        apply = pool.workers.apply

        def watched(states: Any) -> None:
            apply(states)
            self._note_sizes(process)

        self._note_sizes(process)
        pool.workers.apply = watched  # type: ignore[method-assign]
        process.view.watch_claim = partial(self._claims, process)

    def _note_sizes(self, process: Process) -> None:
        for pool in process.service.pools:
            for name, slots in pool.slots.items():
                noted = self._sizes[process, name]
                if not noted or noted[-1][1] != slots.size:
                    noted.append((self.world.now, slots.size))

    def _allowed(self, process: Process, name: str) -> int:
        """The most workers that were in force since the claim before the last."""
        self._note_sizes(process)
        since = self._asked[process][0]
        sizes = self._sizes[process, name]
        before = [size for at, size in sizes if at <= since][-1:]
        return max([*before, *(size for at, size in sizes if at > since)])

    def _busy(self, process: Process, name: str) -> int:
        return sum(p is process and claim.queue == name for p, claim in self.executing.values())

    def recent(self, process: Process) -> list[Claim]:
        """Return the jobs that run in a process and have not run for long."""
        since = self.world.now - QUARANTINE + 1e-6
        mine = ((key, claim) for key, (place, claim) in self.executing.items() if place is process)
        return [claim for key, claim in mine if process.view.given[key] > since]

    def _hold_apart(self, process: Process, quarantine: Quarantine) -> None:
        """What may be to blame for the end of a process is not run beside others."""
        recent, now = self.recent(process), self.world.now
        if any(claim.crashes for claim in recent):
            self.world.fail(f"{process.name} asks for jobs, and one in quarantine has just started: {recent}")
        # A job in quarantine that others go before is held back for a while, and not for ever.
        waited = any(now - 2 * QUARANTINE < at <= now - QUARANTINE + 1e-6 for at in process.view.deferred)
        if quarantine == "alone" and recent and not waited:
            self.world.fail(f"{process.name} asks for one in quarantine beside {recent}")
        mine = [claim for place, claim in self.executing.values() if place is process]
        if quarantine != "skip" and any(claim.crashes >= CRASH_LIMIT - 1 for claim in mine):
            self.world.fail(f"{process.name} asks for one in quarantine beside a last chance: {mine}")

    def _claims(self, process: Process, demand: Demand) -> None:
        self._hold_apart(process, demand.quarantine)
        # What was given at this moment may not have begun yet, however often the pool asks meanwhile.
        if self._asked[process][-1] != self.world.now:
            self._asked[process].append(self.world.now)
        for name, lane in demand.lanes.items():
            want, busy, allowed = lane.want, self._busy(process, name), self._allowed(process, name)
            if busy + want > allowed:
                self.world.fail(f"{process.name} asks for {want} of {name!r}: {busy} run, {allowed} workers")

    # The stage

    def began(self, claim: Claim) -> None:
        """An attempt begins to run."""
        assert self.world.current is not None
        process, key = self.world.current.process, (claim.id, claim.attempt)
        self.world.note(f"job {claim.id[-4:]}#{claim.attempt} begins")
        if key not in process.view.given:
            self.world.fail(f"job {key} begins in {process.name}, which was not given it")
        if process.tasks.get(claim.task) is None:
            self.world.fail(f"job {claim.id} begins in {process.name}, which does not know its task")
        if key in self.started:
            self.world.fail(f"attempt {key} begins twice")
        job = self.simulation.model.jobs.get(claim.id)
        if job is None:
            self.world.fail(f"job {claim.id} begins, and it is not in the store")
        elif self.simulation.options.calm and not {entry.reason for entry in job.history} <= AGAIN:
            self.world.fail(f"job {claim.id} begins again although nothing went wrong: {job.history}")
        self.started.add(key)
        self.executing[key] = (process, claim)
        busy, allowed = self._busy(process, claim.queue), self._allowed(process, claim.queue)
        if busy > allowed:
            self.world.fail(f"{busy} jobs of {claim.queue!r} run in {process.name} on {allowed} workers")

    def ended(self, claim: Claim) -> None:
        """An attempt no longer runs."""
        self.executing.pop((claim.id, claim.attempt), None)
        self.world.note(f"job {claim.id[-4:]}#{claim.attempt} is over")

    def sleep(self, seconds: float) -> None:
        """Let the thread sleep."""
        self.world.park(seconds)

    def act(self, kind: str) -> None:
        """Do what has no ``await`` in it."""
        if kind == "fail":
            raise ValueError("as the script says")
        if kind == "base":
            raise work.Bad("as the script says")
        if kind == "exit":
            raise SystemExit(3)
        if kind == "crash" and not self.simulation.healed:
            assert self.world.current is not None
            self.world.current.process.crash("poison")

    def task(self, function: Callable[..., Any]) -> Any:
        """Return the task that a function is in the current process."""
        assert self.world.current is not None
        return self.world.current.process.tasks[work.name_of(function)]

    def child(self) -> tuple[Any, ...]:
        """Return the arguments of the job that a job pushes."""
        assert self.world.current is not None
        return (self.simulation.sites.new(self.world.current.process).tag, "ok", 0.0)

    def forget(self, process: Process) -> None:
        """Nothing of a dead process runs any more."""
        self.executing = {key: held for key, held in self.executing.items() if held[0] is not process}
