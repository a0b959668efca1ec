"""The store contract as a small, obvious model: what every store must answer, and hold, after each call.

No heaps, no counters, no SQL: a dictionary of jobs, and lists sorted when they are needed. A job that is due
counts as waiting, whenever a store moves it.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from jobify_django.conf import QueueSettings
from jobify_django.job import (
    CANCELLED,
    DELAYED,
    FAILED,
    RUNNING,
    SUCCESSFUL,
    WAITING,
    Claim,
    Interruption,
    JobRecord,
    JobSpec,
    JobStatus,
)
from jobify_django.outcome import CRASH_LIMIT, Outcome, crash_error
from jobify_django.stores.value import (
    Added,
    Claimed,
    Demand,
    QueueState,
    Renewed,
    Rescued,
    Synced,
)


class Differs(AssertionError):
    """A store did something else than the contract says."""


@dataclass
class ModelJob:
    """A job as it must be."""

    id: str
    queue: str
    task: str
    arguments: str
    priority: int
    number: int
    pushed_at: float
    eligible_at: float
    status: JobStatus = WAITING
    attempt: int = 0
    crashes: int = 0
    started_at: float | None = None
    ended_at: float | None = None
    lease_until: float | None = None
    pool: str = ""
    cancel_requested: bool = False
    result: str | None = None
    error: Any = None
    history: tuple[Interruption, ...] = ()
    flags: int = 0
    extra: str | None = None

    @property
    def tag(self) -> int:
        """What a simulated job is told apart by: its first argument."""
        return int(self.arguments[2:].split(",")[0])

    def waits(self, now: float) -> bool:
        """Whether it may be claimed."""
        return self.status is WAITING and self.eligible_at <= now

    def seen(self, now: float) -> tuple[Any, ...]:
        """Return what a store must say of it."""
        status = DELAYED if self.status is WAITING and self.eligible_at > now else self.status
        return (
            self.queue,
            self.task,
            self.arguments,
            self.priority,
            status,
            self.attempt,
            self.crashes,
            self.pushed_at,
            self.eligible_at,
            self.started_at,
            self.ended_at,
            self.lease_until,
            self.pool,
            self.cancel_requested,
            self.result,
            self.error,
            self.history,
            self.flags,
            self.extra,
        )


def seen(record: JobRecord, now: float) -> tuple[Any, ...]:
    """Return what a store says of a job, comparable with ``ModelJob.seen``."""
    due = record.status is DELAYED and record.eligible_at <= now
    values = record._asdict()
    del values["id"], values["sequence"]
    values["status"] = WAITING if due else record.status
    return tuple(values.values())


FIELDS = [name for name in JobRecord._fields if name not in ("id", "sequence")]


@dataclass
class Model:
    """All jobs and queues. Each verb takes what the store was given and what it answered, and compares."""

    queues: Mapping[str, QueueSettings]
    jobs: dict[str, ModelJob] = field(default_factory=dict)
    states: dict[str, QueueState] = field(default_factory=dict)
    number: int = 0
    pruned: dict[str, ModelJob] = field(default_factory=dict)

    def copy(self) -> Model:
        """Return the model as it is now."""
        return Model(
            self.queues, {id: copy.copy(job) for id, job in self.jobs.items()}, dict(self.states), self.number
        )

    def go_back_to(self, before: Model) -> None:
        """Forget what happened since that copy was made."""
        self.jobs, self.states, self.number = before.jobs, before.states, before.number

    # Looking

    def state(self, queue: str) -> QueueState:
        return self.states.get(queue) or QueueState(queue)

    def live(self, queue: str) -> QueueSettings:
        return self.state(queue).applied_to(self.queues[queue])

    def waiting(self, queue: str, now: float) -> list[ModelJob]:
        """Return the jobs that wait, in claim order."""
        order = self.live(queue).order
        found = [job for job in self.jobs.values() if job.queue == queue and job.waits(now)]
        if order == "priority":
            return sorted(found, key=lambda job: (-job.priority, job.number))
        return sorted(found, key=lambda job: job.number, reverse=order == "lifo")

    def running(self, queue: str | None = None) -> list[ModelJob]:
        """Return the jobs that run."""
        return [j for j in self.jobs.values() if j.status is RUNNING and queue in (None, j.queue)]

    def unended(self) -> list[ModelJob]:
        """Return the jobs that have not ended."""
        return [job for job in self.jobs.values() if not job.status.ended]

    def compare(self, records: Sequence[JobRecord], now: float) -> None:
        """Hold everything a store has against what it must have."""
        found = {record.id: record for record in records}
        if found.keys() != self.jobs.keys():
            lost, invented = self.jobs.keys() - found.keys(), found.keys() - self.jobs.keys()
            raise Differs(f"the store lost {sorted(lost)} and invented {sorted(invented)}")
        for id, record in found.items():
            self.compare_one(record, self.jobs[id], now)

    def compare_order(self, queue: str, ids: Sequence[str], now: float) -> None:
        """Hold a store's waiting jobs, in claim order, against what they must be; due ones may be missing."""
        there = set(ids)
        expected = [job.id for job in self.waiting(queue, now) if job.id in there]
        _same(f"the order of {queue}", list(ids), expected)

    @staticmethod
    def compare_one(record: JobRecord, job: ModelJob, now: float) -> None:
        is_so, must_be = seen(record, now), job.seen(now)
        if is_so != must_be:
            wrong = [
                f"{name} is {have!r} and must be {want!r}"
                for name, have, want in zip(FIELDS, is_so, must_be, strict=True)
                if have != want
            ]
            raise Differs(f"job {record.id}: {'; '.join(wrong)}")

    # The verbs

    def add(
        self,
        now: float,
        added: Added,
        queue: QueueSettings,
        specs: Sequence[JobSpec],
        *,
        all_or_nothing: bool = False,
        lock_timeout: float | None = None,
    ) -> None:
        live = self.live(queue.name)
        room = live.maxsize - len(self.waiting(queue.name, now))
        taken: list[JobSpec] = []
        for spec in specs:
            at = spec.eligible_at(now)
            if spec.id not in self.jobs and at <= now:
                if room <= 0:
                    break
                room -= 1
            taken.append(spec)
        if all_or_nothing and len(taken) < len(specs):
            taken = []
        for spec in taken:
            if spec.id in self.jobs:
                continue
            self.number += 1
            job = ModelJob(
                spec.id,
                queue.name,
                spec.task,
                spec.arguments,
                spec.priority,
                self.number,
                pushed_at=now,
                eligible_at=spec.eligible_at(now),
                flags=spec.flags,
                extra=spec.extra,
            )
            self.jobs[spec.id] = job
        depth = len(self.waiting(queue.name, now))
        _same("add", tuple(added[:3]), (len(taken), depth, live.maxsize))

    def claim(self, now: float, claimed: Claimed, demand: Demand, outcomes: Sequence[Outcome] = ()) -> None:
        self.settle(now, claimed.refused, outcomes)
        first, deferred = self._first(now, demand)
        for job in first:
            job.status, job.attempt, job.pool = RUNNING, job.attempt + 1, demand.pool
            job.started_at, job.lease_until = now, now + demand.lanes[job.queue].lease
        _same("claim", list(claimed.claims), [self._claim(job) for job in first])
        _same("deferred", claimed.deferred, deferred)
        _same("states", claimed.states, self._states(demand.lanes))
        # Only where the job could be claimed then: time opens neither a paused queue nor a full one.
        open_ = {
            queue
            for queue, lane in demand.lanes.items()
            if not self.state(queue).paused and lane.max_running is None
        }
        later = [j.eligible_at - now for j in self.jobs.values() if j.status is WAITING and j.queue in open_]
        due = min((seconds for seconds in later if seconds > 0), default=None)
        if (
            due is not None
            and not demand.unknown_tasks
            and (claimed.next_due is None or claimed.next_due > due)
        ):
            raise Differs(f"claim: next_due is {claimed.next_due}, and a job is due in {due} s")

    def _first(self, now: float, demand: Demand) -> tuple[list[ModelJob], bool]:
        """Return the jobs that a claim starts, and whether one in quarantine holds them up."""
        lines = []
        for queue, lane in demand.lanes.items():
            want = lane.want
            if lane.max_running is not None:
                running = [job for job in self.running(queue) if (job.lease_until or 0) >= now]
                want = min(want, lane.max_running - len(running))
            if want > 0 and not self.state(queue).paused:
                waiting = [job for job in self.waiting(queue, now) if job.task not in demand.unknown_tasks]
                lines.append((waiting, want))
        heads = [waiting[0] for waiting, _ in lines if waiting and waiting[0].crashes]
        if heads and demand.quarantine != "skip":
            return ([], True) if demand.quarantine == "defer" else (heads[:1], False)
        return [j for waiting, want in lines for j in [j for j in waiting if not j.crashes][:want]], False

    @staticmethod
    def _claim(job: ModelJob) -> Claim:
        assert job.started_at is not None
        return Claim(
            job.id,
            job.attempt,
            job.queue,
            job.task,
            job.arguments,
            job.priority,
            job.pushed_at,
            job.eligible_at,
            job.started_at,
            job.crashes,
            job.flags,
            job.extra,
        )

    def settle(self, now: float, refused: Sequence[Outcome], outcomes: Sequence[Outcome]) -> None:
        expected = [outcome for outcome in outcomes if not self._settled(outcome, now)]
        _same("settle", list(refused), expected)

    def _settled(self, outcome: Outcome, now: float) -> bool:
        job = self._held(outcome.id, outcome.attempt)
        if job is None or (outcome.pool and outcome.pool != job.pool):
            return False
        if outcome.happened == "released":
            self._interrupt(job, outcome.reason, now, charged=False)
            self._come_back(job, now, until=outcome.until)
        else:
            job.result, job.error = outcome.result, outcome.error
            self._end(job, outcome.status, now)
        return True

    def renew(self, now: float, renewed: Renewed, pool: str, held: Mapping[str, int], lease: float) -> None:
        lost, cancel = set(), set()
        for id, attempt in held.items():
            job = self._held(id, attempt)
            if job is None:
                lost.add(id)
                continue
            job.lease_until = now + lease
            if job.cancel_requested:
                cancel.add(id)
        _same("renew", (set(renewed.lost), set(renewed.cancel_requested)), (lost, cancel))

    def reconcile(self, now: float, released: Collection[str], pool: str, held: Collection[str]) -> None:
        unknown_tasks = [job for job in self.running() if job.pool == pool and job.id not in held]
        _same("reconcile", set(released), {job.id for job in unknown_tasks})
        for job in unknown_tasks:
            self._interrupt(job, "the reply to its claim was lost", now, charged=False)
            self._come_back(job, now)

    def rescue(
        self,
        now: float,
        rescued: Sequence[Rescued],
        limit: int = 500,
        *,
        outage: tuple[float, float] | None = None,
        max_lease_left: float | None = None,
    ) -> None:
        expected = []
        for job in self.running():
            # No pool sends heartbeats here, so none is known to be alive.
            if max_lease_left is not None and (job.lease_until or 0) > now + max_lease_left:
                job.lease_until = now + max_lease_left
            if job.lease_until is None or job.lease_until >= now:
                continue
            pool = job.pool
            charged = outage is None or not outage[0] < job.lease_until <= outage[1]
            job.crashes += charged
            reason = "its worker's lease ran out"
            reason = reason if charged else f"{reason} while the store was away"
            self._interrupt(job, reason, now, charged=charged)
            if charged and job.crashes >= CRASH_LIMIT:
                job.error = crash_error(job.crashes)
                self._end(job, FAILED, now)
            else:
                self._come_back(job, now)
            expected.append(Rescued(job.id, job.queue, job.task, job.attempt, pool, job.status))
        _same("rescue", sorted(rescued, key=lambda r: r.id), sorted(expected, key=lambda r: r.id))

    def cancel(self, now: float, before: Mapping[str, JobStatus], ids: Collection[str]) -> None:
        expected = {}
        for id in ids:
            if (job := self.jobs.get(id)) is None:
                continue
            expected[id] = job.status
            if job.status is RUNNING:
                job.cancel_requested = True
            elif not job.status.ended:
                self._end(job, CANCELLED, now)
        told = {id: WAITING if status is DELAYED else status for id, status in before.items()}
        _same("cancel", told, expected)

    def retry(self, now: float, retried: Collection[str], ids: Collection[str]) -> None:
        again = [j for id in set(ids) if (j := self.jobs.get(id)) and j.status in (FAILED, CANCELLED)]
        _same("retry", set(retried), {job.id for job in again})
        for job in again:
            self._interrupt(job, "retried by hand", now, charged=False)
            job.crashes, job.ended_at, job.result, job.error = 0, None, None, None
            job.cancel_requested, job.eligible_at = False, now
            self._wait_again(job)

    def prune(
        self, now: float, pruned: int, *, older_than: float, failed_older_than: float, limit: int = 500
    ) -> None:
        old = [
            job.id
            for job in self.jobs.values()
            if job.ended_at is not None
            and now - job.ended_at > (older_than if job.status is SUCCESSFUL else failed_older_than)
        ]
        _same("prune", pruned, len(old))
        for id in old:
            self.pruned[id] = self.jobs.pop(id)

    def sync(self, now: float, synced: Synced, pool: str, queues: Collection[str]) -> None:
        asked = {job.id for job in self.running() if pool and job.pool == pool and job.cancel_requested}
        _same("sync", (synced.states, set(synced.cancel_requested)), (self._states(queues), asked))

    def tune(
        self,
        now: float,
        state: QueueState,
        queue: QueueSettings,
        changes: Mapping[str, Any],
        *,
        actor: str,
        source: str,
        expected: int | None = None,
        progress: object = None,
    ) -> None:
        before = self.state(queue.name)
        after = self.states[queue.name] = replace(before, version=before.version + 1, **changes)
        _same("tune", state, after)

    # Inside

    def _held(self, id: str, attempt: int) -> ModelJob | None:
        job = self.jobs.get(id)
        return job if job and job.status is RUNNING and job.attempt == attempt else None

    def _end(self, job: ModelJob, status: JobStatus, now: float) -> None:
        job.status, job.ended_at, job.lease_until = status, now, None

    def _states(self, queues: Collection[str]) -> dict[str, QueueState]:
        return {queue: self.state(queue) for queue in queues}

    def _come_back(self, job: ModelJob, now: float, until: float | None = None) -> None:
        if job.cancel_requested:
            self._end(job, CANCELLED, now)
            return
        if until is not None and until > now:
            job.eligible_at = until
        self._wait_again(job)

    def _wait_again(self, job: ModelJob) -> None:
        job.status, job.lease_until, job.pool = WAITING, None, ""

    def _interrupt(self, job: ModelJob, reason: str, now: float, *, charged: bool) -> None:
        job.history = (*job.history, Interruption(job.attempt, reason, now, job.pool, charged))


def _same(verb: str, is_so: object, must_be: object) -> None:
    if is_so != must_be:
        raise Differs(f"{verb} answered {is_so!r} and must answer {must_be!r}")
