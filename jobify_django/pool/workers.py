"""The workers of a pool: they run what it has claimed, and add the outcomes to its completer."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable, Mapping, Sequence
from contextvars import Context
from dataclasses import dataclass

from jobify_django.job import Claim
from jobify_django.log import get_log, quoted
from jobify_django.outcome import Outcome, cancelled, released
from jobify_django.pool.claim_loop import ClaimLoop
from jobify_django.pool.completer import Completer
from jobify_django.pool.execution import Unfinished, Work, arun_job, raised
from jobify_django.pool.loop import call_on_loop
from jobify_django.pool.phase import Phase, Phases
from jobify_django.pool.slots import RunningJob, Slots
from jobify_django.pool.threads import Threads
from jobify_django.registry import Registry
from jobify_django.runtime import Runtime
from jobify_django.stores.value import QueueState

logger = get_log("jobify.worker")

SHORT = 0.005
"""Seconds from its claim to its end within which a job was short: those that were claimed with it are perhaps
as short. Other jobs give their workers free at once."""

EAGER = sys.version_info >= (3, 12, 5)
"""Whether a task can take its first step where it is made. Before 3.12.5 the interpreter crashes when
somebody asks such a task for its coroutine after its end: https://github.com/python/cpython/issues/122332"""


@dataclass(eq=False)
class Workers:
    """Runs claimed jobs, ``async def`` on the event loop and ``def`` on threads."""

    pool: str
    slots: Mapping[str, Slots]
    fixed: int | None
    """Jobs of each queue to run at once; given, it stands above settings and live tuning."""
    completer: Completer
    claim_loop: ClaimLoop
    phases: Phases
    changed: Callable[[], None]
    """Called when live values were taken over."""
    tasks: Registry
    """What they can run."""
    runtime: Runtime

    def __post_init__(self) -> None:
        self.threads = Threads(self._ended, self._continue_on_loop, self.runtime)
        self.started = 0
        self._unknown: set[str] = set()
        # Those that run still of the jobs that were started last. No lock: see ``Completer``.
        self._batch: dict[RunningJob, None] = {}
        self._short = True

    def open(self) -> None:
        """Be ready. The running event loop is the one ``async def`` jobs run on."""
        self._loop = asyncio.get_running_loop()
        self._loop_thread = self.runtime.thread_id()
        self._resize_threads()

    @property
    def unknown_tasks(self) -> set[str]:
        """The names of tasks whose jobs were claimed and handed back, because this process has none such."""
        return {name for name in self._unknown if self.tasks.get(name) is None}

    @property
    def gathering(self) -> bool:
        """Whether more outcomes may follow soon: those of the jobs that were started last, if these are
        short."""
        return self._short and bool(self._batch)

    def apply(self, states: Mapping[str, QueueState]) -> None:
        """Take over live values: more workers start at once, surplus ones end with their job."""
        changed = False
        for name, state in states.items():
            slots = self.slots[name]
            if slots.state is state or slots.state == state:
                continue
            changed = True
            slots.state = state
            # A changed order is in force only once every job stands where it wants it.
            slots.version = slots.version if state.reordering else state.version
            slots.size = self.fixed or state.workers or slots.settings.workers
        if changed:
            self._resize_threads()
            self.changed()

    def _resize_threads(self) -> None:
        self.threads.resize(sum(slots.size for slots in self.slots.values()))

    def start(self, claims: Sequence[Claim]) -> int:
        """Start jobs, and return how many; those that could not be are handed back."""
        unregistered: list[Claim] = []
        on_loop: list[RunningJob] = []
        on_thread: list[RunningJob] = []
        for claim in claims:
            task = self.tasks.get(claim.task)
            if task is None:
                unregistered.append(claim)
                continue
            running = self.slots[claim.queue].take(claim, task)
            self.completer.hold(running)
            (on_loop if task.is_async else on_thread).append(running)
        if unregistered:
            self._hand_back_unregistered(unregistered)
        # Once all of them are in their slots: if the grace is over after this check, they are told to end.
        if self.phases.now >= Phase.RELEASING:
            for running in (*on_loop, *on_thread):
                running.stop_reason = "release"  # unrun: it would only be interrupted
            refused: list[RunningJob] = []
        else:
            self._batch = dict.fromkeys((*on_loop, *on_thread))
            refused = list(self.threads.run(on_thread)) if on_thread else []
            self._start_on_loop(on_loop)
        if refused:
            # As under a limit of memory or of processes.
            self._hand_back_unstarted(refused, "no thread could be started for it")
        started = len(on_loop) + len(on_thread) - len(refused)
        self.started += started
        return started

    def _hand_back_unregistered(self, claims: Sequence[Claim]) -> None:
        """Hand back jobs of tasks that this process does not know, as in a deploy before it has the new code.

        They are passed over from now on, and wait for a pool that knows them.
        """
        for name in sorted({claim.task for claim in claims} - self._unknown):
            logger.warning(
                "event=held task=%s: no such task is registered here; its jobs wait for a pool that has it",
                quoted(name),
            )
        self._unknown.update(claim.task for claim in claims)
        self._hand_back(claims, "its task is not known here")

    def _hand_back_unstarted(self, jobs: Sequence[RunningJob], reason: str) -> None:
        """Hand back jobs that could not be started."""
        for running in jobs:
            self._leave(running)
            self.completer.forget(running.claim.id, running.claim.attempt)
        self._hand_back([running.claim for running in jobs], reason)

    def _hand_back(self, claims: Sequence[Claim], reason: str) -> None:
        for claim in claims:
            self.completer.add(released(claim, reason, pool=self.pool))
        self.claim_loop.wake()

    # On the event loop

    def _start_on_loop(self, jobs: Sequence[RunningJob]) -> None:
        if not jobs:
            return
        if self.runtime.thread_id() == self._loop_thread:
            self._create_tasks(jobs)
        elif not call_on_loop(self._loop, self._create_tasks, jobs):
            self._lose_loop(jobs)

    def _create_tasks(self, jobs: Sequence[RunningJob]) -> None:
        loop, run = self._loop, self._run
        # Each takes its first step at once, where it can: to wait for the loop's next round is most of what a
        # short job costs, and there the loop would let all of them take theirs in a row, too.
        if sys.version_info >= (3, 12) and EAGER and loop.get_task_factory() is None:
            for running in jobs:
                asyncio.Task(
                    run(running), loop=loop, name=running.claim.id, context=Context(), eager_start=True
                )
        else:
            for running in jobs:
                _keep(running, loop.create_task(run(running), name=running.claim.id, context=Context()))

    def _continue_on_loop(self, running: RunningJob, unfinished: Unfinished) -> None:
        """Run on the loop what a ``def`` has left: it returned the coroutine of an ``async def``."""
        if not call_on_loop(self._loop, self._start_unfinished, running, unfinished):
            unfinished.work.close()
            self._lose_loop([running])

    def _start_unfinished(self, running: RunningJob, unfinished: Unfinished) -> None:
        work = self._run(running, unfinished.work)
        _keep(running, self._loop.create_task(work, name=running.claim.id, context=unfinished.context))

    def _lose_loop(self, jobs: Sequence[RunningJob]) -> None:
        self.phases.enter(Phase.STOPPING)
        self._hand_back_unstarted(jobs, "its pool's event loop is closed")

    async def _run(self, running: RunningJob, work: Work | None = None) -> None:
        # Here, where an eager task begins before whoever makes it has it.
        running.task = asyncio.current_task()
        try:
            # It may have been told to end before there was a task to cancel.
            if running.stop_reason is not None:
                if work is not None:
                    work.close()
                raise asyncio.CancelledError
            outcome = await arun_job(running, work)
        except asyncio.CancelledError as error:
            if running.stop_reason == "cancel":
                outcome = cancelled(running.claim)
            elif running.stop_reason is None and not await self._pool_stops():
                outcome = raised(running, error)  # it cancelled its own task
            else:
                self._drop(running)
                return
        self._ended(running, outcome)

    async def _pool_stops(self) -> bool:
        """Whether a job was cancelled because the whole loop is: then its pool is told to stop, in the same
        breath or in the next, and hands the job back."""
        for _ in range(2):
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0)
        return self.phases.now >= Phase.DRAINING

    # The end of a job

    def _drop(self, running: RunningJob) -> None:
        """Free the worker of a job that ended without an outcome."""
        self._leave(running)
        if running.stop_reason == "lost":
            self.completer.forget(running.claim.id, running.claim.attempt)
        self.claim_loop.wake()

    def _ended(self, running: RunningJob, outcome: Outcome) -> None:
        self._leave(running)
        self._short = running.seconds < SHORT
        self.completer.add(outcome)
        self.claim_loop.wake_for_outcome()

    def _leave(self, running: RunningJob) -> None:
        running.slots.leave(running)
        self._batch.pop(running, None)


def _keep(running: RunningJob, task: asyncio.Task[None]) -> None:
    """Keep the task of a job that has not ended: some event loops run a task at once where it is made."""
    if not task.done():
        running.task = task
