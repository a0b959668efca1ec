"""What goes wrong, and whether it is reason enough for what follows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobify_django.job import JobRecord
from tests.simulation.view import Fault
from tests.simulation.world import Process

if TYPE_CHECKING:
    from tests.simulation.simulation import Simulation


class Luck:
    """Crashes and freezes at every turn, and faults at every call."""

    def __init__(self, simulation: Simulation) -> None:
        self.simulation = simulation
        self.options = simulation.options
        self.world = simulation.world
        self.rng = simulation.world.rng
        self._began = self.world.now

    def strike(self, process: Process) -> None:
        """Perhaps let a process crash or freeze before its next turn."""
        if self.simulation.healed:
            return
        if self.options.crashes and self.rng.random() < self.options.crashes:
            process.crash("killed")
        elif self.options.freezes and self.rng.random() < self.options.freezes:
            process.freeze(self.rng.uniform(0.2, 2.5) * self.options.lease)

    def fault(self, process: Process, verb: str) -> Fault:
        """Return what befalls a call."""
        rng, options = self.rng, self.options
        usual, back = (rng.expovariate(1 / options.latency) if rng.random() < 0.3 else 0.0 for _ in "->")
        if self.simulation.healed or not process.mortal or options.calm:
            return Fault(usual, after=back)
        seconds = self.world.now - self._began
        if any(start <= seconds < end for start, end in options.outages):
            return Fault(usual, fails=True)
        if rng.random() < 10 * options.crashes:
            process.crash(f"killed before {verb}")
        if rng.random() < 10 * options.freezes:
            process.freeze(rng.uniform(0.2, 2.5) * options.lease)
        return Fault(
            before=rng.uniform(0.1, 1.5 * options.lease) if rng.random() < options.delays else usual,
            fails=rng.random() < options.failures,
            kills=rng.random() < 10 * options.crashes,
            after=rng.uniform(0.0, options.lease) if rng.random() < options.delays else back,
            loses_reply=rng.random() < options.lost,
        )

    def died(self, process: Process) -> None:
        """Forget what a dead process did, and start it again soon."""
        self.simulation.sites.forget(process)
        self.simulation.pools.forget(process)
        if process.again is not None:
            self.world.at(self.world.now + self.rng.uniform(0.1, 3), process.again)

    def rescued(self, record: JobRecord) -> None:
        """A job was taken from its pool and charged: something must have gone wrong there."""
        process = self.simulation.pools.process_of.get(record.pool)
        if process is None or record.lease_until is None:
            return
        now = self.world.now
        since = record.lease_until - self.world.clock() + now - self.options.lease - 0.01
        if self.options.profile == "outages" and not process.stopping:
            # Nobody else could renew or rescue meanwhile: who comes back has time to.
            self.world.fail(f"job {record.id} was taken from {process.name}; only the store was away")
        met = [what for start, end, what in process.troubles if end >= since and start <= now]
        failures = met.count("failure")
        # One call that fails is no reason: a lease outlasts two tries, but for a pool's last words.
        enough = 1 if process.ended else 2
        if failures < enough and len(met) == failures:
            self.world.fail(f"job {record.id} was taken from {process.name}, which is well ({met})")
