"""What the conformance tests stand on: a store, a clock, a queue, and short words for what they do."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

from jobify_django.conf import QueueSettings
from jobify_django.job import Claim, JobRecord, JobSpec, JobStatus
from jobify_django.outcome import Outcome, cancelled, failed, released, succeeded
from jobify_django.runtime import Runtime
from jobify_django.stores import value
from jobify_django.stores.base import Store
from jobify_django.testing.clock import FakeClock

LEASE = 30.0
POOL = "pool-1"
OTHER = "pool-2"
NOBODY = "00000000-0000-7000-8000-00000000ffff"
ENDS: Mapping[JobStatus, Callable[..., Outcome]] = {
    JobStatus.SUCCESSFUL: succeeded,
    JobStatus.FAILED: failed,
    JobStatus.CANCELLED: cancelled,
}
ARGUMENTS = '[["a"],{"b":1}]'


class Ground:
    """One test's store. Every test gets a new instance, and so an empty one."""

    def make_store(self, runtime: Runtime) -> Store:
        """Return an empty store that runs on ``runtime``, whose clock is the tests' own."""
        raise NotImplementedError

    @cached_property
    def clock(self) -> FakeClock:
        """The store's clock."""
        return FakeClock()

    @cached_property
    def store(self) -> Store:
        """The store under test."""
        return self.make_store(self.clock.runtime())

    @cached_property
    def queue(self) -> QueueSettings:
        """The queue most tests use: by priority, with room for all they add."""
        return a_queue()

    @cached_property
    def _numbers(self) -> itertools.count[int]:
        return itertools.count(1)

    def spec(self, priority: int = 0, **values: Any) -> JobSpec:
        """Return a job to add, with an id that sorts behind those before it."""
        id = f"{next(self._numbers):08x}-0000-7000-8000-000000000000"
        given = {"task": "app.tasks.a", "arguments": ARGUMENTS, "priority": priority, **values}
        return JobSpec(id, **given)

    def add(self, *priorities: int, queue: QueueSettings | None = None, **values: Any) -> list[str]:
        """Add a job for each priority, each in a call of its own, and return their ids."""
        specs = [self.spec(priority, **values) for priority in priorities]
        for spec in specs:
            assert self.takes(spec, queue=queue), "there was room, yet add took nothing"
        return [spec.id for spec in specs]

    def takes(self, *specs: JobSpec, queue: QueueSettings | None = None) -> int:
        """Add the jobs, by default a plain one, in one call; return how many were taken."""
        return self.store.add(queue or self.queue, specs or [self.spec()]).taken

    def full(self, maxsize: int = 1) -> QueueSettings:
        """Return the queue with a bound, and with as many jobs that wait."""
        queue = a_queue(maxsize=maxsize)
        self.add(*[0] * maxsize, queue=queue)
        return queue

    def claim(
        self,
        want: int = 100,
        *,
        queue: QueueSettings | None = None,
        lease: float = LEASE,
        max_running: int | None = None,
        **choices: Any,
    ) -> list[Claim]:
        """Claim up to ``want`` jobs."""
        name = (queue or self.queue).name
        return list(self.ask({name: value.Lane(want, lease, max_running)}, **choices).claims)

    def ask(
        self,
        wants: Mapping[str, int | value.Lane],
        outcomes: Sequence[Outcome] = (),
        pool: str = POOL,
        **choices: Any,
    ) -> value.Claimed:
        """Claim of several queues: of each so many jobs, or what its lane says."""
        lanes = {name: value.Lane(of, LEASE) if isinstance(of, int) else of for name, of in wants.items()}
        return self.store.claim(value.Demand(pool, lanes, **choices), outcomes)

    def claimed(self, want: int = 100, **values: Any) -> list[str]:
        """Claim, and return only the ids."""
        return [claim.id for claim in self.claim(want, **values)]

    def start(self, *, pool: str = POOL, queue: QueueSettings | None = None) -> Claim:
        """Add a job and claim it."""
        self.add(0, queue=queue)
        (claim,) = self.claim(1, pool=pool, queue=queue)
        return claim

    def renew(self, *claims: Claim, pool: str = POOL, lease: float = LEASE) -> value.Renewed:
        """Renew the leases of attempts."""
        return self.store.renew(pool, {claim.id: claim.attempt for claim in claims}, lease)

    def release(
        self, claims: Sequence[Claim], reason: str = "it stopped", *, pool: str = POOL, **values: Any
    ) -> list[str]:
        """Release attempts; return the ids of those whose job they held."""
        refused = self.store.settle([released(claim, reason, pool=pool, **values) for claim in claims])
        return [claim.id for claim in claims if claim.id not in {one.id for one in refused}]

    def crash(self, **choices: Any) -> list[value.Rescued]:
        """Let every lease run out, and rescue."""
        self.clock.advance(LEASE + 1)
        return list(self.store.rescue(**choices))

    def end(self, status: JobStatus, **values: Any) -> str:
        """Let a job run and end so; return its id."""
        claim = self.start(**values)
        assert list(self.store.settle([outcome(claim, status)])) == []
        return claim.id

    def record(self, id: str) -> JobRecord:
        """Return a job that must exist."""
        found = self.store.get([id])
        assert id in found, f"the store lost job {id}"
        return found[id]

    def status(self, id: str) -> JobStatus:
        """Return the status of a job that must exist."""
        return self.record(id).status

    def query(self, **conditions: Any) -> list[str]:
        """Return the ids of the jobs that a query asks for."""
        return [job.id for job in self.store.query(value.JobQuery(**conditions))]

    def stats(self, queue: QueueSettings | None = None) -> value.QueueStats:
        """Return the state of one queue."""
        queue = queue or self.queue
        return self.store.stats([queue])[queue.name]

    def waiting(self, queue: QueueSettings | None = None) -> int:
        """Return how many jobs wait."""
        return self.stats(queue).waiting

    def state(self) -> value.QueueState:
        """Return the live values of the queue most tests use."""
        return self.store.sync("", ["default"]).states["default"]

    def tune(
        self, queue: QueueSettings | None = None, expected: int | None = None, **changes: Any
    ) -> value.QueueState:
        """Change live values."""
        return self.store.tune(queue or self.queue, changes, actor="ada", source="code", expected=expected)


def a_queue(name: str = "default", **changes: Any) -> QueueSettings:
    """Return a queue's settings."""
    values: dict[str, Any] = {
        "store": "",
        "priorities": {},
        "push_timeout": 10,
        "max_waiting_pushes": 1000,
        "lease": LEASE,
        "workers": 10,
        "maxsize": 1024,
        "order": "priority",
    }
    return QueueSettings(name=name, **{**values, **changes})


def outcome(claim: Claim, status: JobStatus = JobStatus.SUCCESSFUL, **values: Any) -> Outcome:
    """Return how an attempt ended."""
    return ENDS[status](claim, **values)


def a_pool(id: str = POOL, *queues: str) -> value.PoolRecord:
    """Return what a pool says of itself."""
    serves = {name: value.PoolQueue(4, 2, 7) for name in queues or ("default",)}
    return value.PoolRecord(id, "host", 42, "code", 1.0, serves)
