"""The slots of a queue, and the jobs in them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Literal

from jobify_django.conf import QueueSettings
from jobify_django.job import Claim
from jobify_django.pool.loop import call_on_loop
from jobify_django.registry import Registered
from jobify_django.runtime import Runtime
from jobify_django.stores.value import QueueState

StopReason = Literal["cancel", "release", "lost"]


class RunningJob:
    """A job in a worker. To the job's own pushes it is the ``CurrentJob`` that says whether they may wait.

    Attributes:
        job_task: what it is a call of; ``task`` is the one of asyncio that runs it on the event loop.
        exception: what it raised, from its end until that is reported.
    """

    __slots__ = (
        "_waits",
        "began",
        "claim",
        "exception",
        "job_task",
        "seconds",
        "slots",
        "stop_reason",
        "stop_reasons",
        "task",
    )

    def __init__(self, claim: Claim, job_task: Registered, slots: Slots) -> None:
        self.claim = claim
        self.job_task = job_task
        self.slots = slots
        self.began = slots.monotonic()
        self.seconds = 0.0
        self.task: asyncio.Task[None] | None = None
        self.stop_reason: StopReason | None = None
        self.exception: BaseException | None = None
        self.stop_reasons: tuple[StopReason, ...] = ()
        self._waits = 0

    def stop(self, stop_reason: StopReason) -> None:
        """Stop an ``async def`` job: because it was cancelled, handed back, or is no longer ours.

        Once for each of these, however often it is asked: a job that awaits in its ``finally`` is let do so.
        """
        if stop_reason in self.stop_reasons:
            return
        self.stop_reasons = (*self.stop_reasons, stop_reason)
        self.stop_reason = self.stop_reason or stop_reason
        task = self.task
        if task is not None:
            call_on_loop(task.get_loop(), task.cancel)

    def begin_wait(self, queue: str, *, anyway: bool = False) -> bool:
        with self.slots.of_process.lock:
            self._waits += 1
            leaves = self._leaves_a_worker(queue)
            if not leaves and not anyway:
                self._waits -= 1
            return leaves

    def may_keep_waiting(self, queue: str) -> bool:
        with self.slots.of_process.lock:
            return self._leaves_a_worker(queue)

    def _leaves_a_worker(self, queue: str) -> bool:
        target = self.slots.of_process.get(queue)
        return target is None or target.size > sum(job.waits for job in target.jobs())

    def end_wait(self) -> None:
        with self.slots.of_process.lock:
            self._waits -= 1

    @property
    def waits(self) -> bool:
        """Whether this job waits: for room in a queue, or for another job's end."""
        return self._waits > 0


class ProcessSlots(dict[str, "Slots"]):
    """The slots of every queue that this process serves, by the queue's name; its pools share them.

    Attributes:
        runtime: the machine they run on.
        lock: one for all of them: whether a job may wait can depend on another queue's workers.
        quarantined: those of the jobs that run which ran when a process died. Hardly ever is there one, and
            each turn asks.
    """

    def __init__(self, runtime: Runtime) -> None:
        super().__init__()
        self.runtime = runtime
        self.lock = runtime.lock()
        self.quarantined: dict[RunningJob, None] = {}


class Slots:
    """A queue's workers in this process: how many, and what they run.

    Args:
        settings: the queue.
        size: how many jobs may run at once; it may change at any time.
        of_process: those of every queue this process serves; these join them.
    """

    def __init__(self, settings: QueueSettings, size: int, of_process: ProcessSlots) -> None:
        self.settings = settings
        self.size = size
        self.version = 0
        self.state = QueueState(settings.name)
        self.of_process = of_process
        self.runtime = of_process.runtime
        self.monotonic = self.runtime.monotonic
        self._running: dict[RunningJob, None] = {}
        of_process[settings.name] = self

    @property
    def idle(self) -> int:
        """How many more jobs may start now."""
        return max(0, self.size - len(self._running))

    @property
    def busy(self) -> int:
        """How many jobs run."""
        return len(self._running)

    def jobs(self) -> Iterable[RunningJob]:
        """Return the jobs that run."""
        return list(self._running)

    def youngest(self) -> RunningJob | None:
        """Return the job that started last, of those that run."""
        try:
            return next(reversed(self._running), None)
        except RuntimeError:  # one ended on its thread meanwhile
            return self.youngest()

    def take(self, claim: Claim, job_task: Registered) -> RunningJob:
        """Put a job into a slot."""
        running = RunningJob(claim, job_task, self)
        # By itself, not by its id: a job that was lost may come back here while the old attempt still runs.
        self._running[running] = None
        if claim.crashes:
            self.of_process.quarantined[running] = None
        return running

    def holds(self, running: RunningJob) -> bool:
        """Whether a job is in a slot still."""
        return running in self._running

    def leave(self, running: RunningJob) -> None:
        """Free a job's slot."""
        running.seconds = self.monotonic() - running.began
        # The task's context holds this object: the cycle would leave every job to the garbage collector.
        running.task = None
        self._running.pop(running, None)
        self.of_process.quarantined.pop(running, None)
