"""The workers of a pool: they run what it has claimed, and add the outcomes to its completer."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from contextvars import Context
from dataclasses import dataclass

from jobify_django.job import Claim
from jobify_django.log import get_log, quoted
from jobify_django.outcome import Outcome, cancelled, released
from jobify_django.pool.claim_loop import ClaimLoop
from jobify_django.pool.completer import Completer
from jobify_django.pool.execution import Unfinished, Work, arun_job, raised
from jobify_django.pool.loop import tell_loop
from jobify_django.pool.phase import Phase, Phases
from jobify_django.pool.slots import Running, Slots
from jobify_django.pool.threads import Threads
from jobify_django.registry import Registry
from jobify_django.runtime import Runtime
from jobify_django.stores.value import QueueState

logger = get_log("jobify.worker")


@dataclass(eq=False)
class Workers:
    """Runs claimed jobs, ``async def`` on the event loop and ``def`` on threads."""

    pool: str
    slots: Mapping[str, Slots]
    fixed: int | None
    """Jobs of each queue to run at once; given, it stands above settings and live tuning."""
    completer: Completer
    claim_loop: ClaimLoop
    gathers: bool
    """Whether outcomes wait a moment for others, to share a commit."""
    phases: Phases
    changed: Callable[[], None]
    """Called when live values were taken over."""
    tasks: Registry
    """What they can run."""
    runtime: Runtime

    def __post_init__(self) -> None:
        self.threads = Threads(self._ended, self._go_on, self.runtime)
        self.started = 0
        self._unknown: set[str] = set()

    def open(self) -> None:
        """Be ready. The running event loop is the one ``async def`` jobs run on."""
        self._loop = asyncio.get_running_loop()
        self._loop_thread = self.runtime.thread_id()
        self._resize_threads()

    @property
    def unknown(self) -> set[str]:
        """The names of tasks whose jobs were claimed and handed back, because this process has none such."""
        return {name for name in self._unknown if self.tasks.get(name) is None}

    def apply(self, states: Mapping[str, QueueState]) -> None:
        """Take over live values: more workers start at once, surplus ones end with their job."""
        changed = False
        for name, state in states.items():
            slots = self.slots[name]
            if slots.seen is state or slots.seen == state:
                continue
            changed = True
            slots.seen = state
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
        strange: list[Claim] = []
        on_loop: list[Running] = []
        on_thread: list[Running] = []
        for claim in claims:
            task = self.tasks.get(claim.task)
            if task is None:
                strange.append(claim)
                continue
            running = self.slots[claim.queue].take(claim, task)
            self.completer.hold(running)
            (on_loop if task.is_async else on_thread).append(running)
        if strange:
            self._hold_back(strange)
        # Once all of them are in their slots: if the grace is over after this look, they are told to end.
        if self.phases.now >= Phase.RELEASING:
            for running in (*on_loop, *on_thread):
                running.ending = "release"  # unrun: it would only be interrupted
            refused: list[Running] = []
        else:
            refused = [running for running in on_thread if not self.threads.run(running)]
            self._start_on_loop(on_loop)
        if refused:
            # As under a limit of memory or of processes.
            self._take_back(refused, "no thread could be started for it")
        started = len(on_loop) + len(on_thread) - len(refused)
        self.started += started
        return started

    def _hold_back(self, claims: Sequence[Claim]) -> None:
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

    def _take_back(self, jobs: Sequence[Running], reason: str) -> None:
        """Hand back jobs that could not be started."""
        for running in jobs:
            running.slots.leave(running)
            self.completer.settle(running.claim.id, running.claim.attempt)
        self._hand_back([running.claim for running in jobs], reason)

    def _hand_back(self, claims: Sequence[Claim], reason: str) -> None:
        for claim in claims:
            self.completer.add(released(claim, reason, pool=self.pool))
        self.claim_loop.wake()

    # On the event loop

    def _start_on_loop(self, jobs: Sequence[Running]) -> None:
        if not jobs:
            return
        if self.runtime.thread_id() == self._loop_thread:
            self._create_tasks(jobs)
        elif not tell_loop(self._loop, self._create_tasks, jobs):
            self._lose_loop(jobs)

    def _create_tasks(self, jobs: Sequence[Running]) -> None:
        create_task, run = self._loop.create_task, self._run
        for running in jobs:
            running.task = create_task(run(running), name=running.claim.id, context=Context())

    def _go_on(self, running: Running, rest: Unfinished) -> None:
        """Run on the loop what a ``def`` has left: it returned the coroutine of an ``async def``."""
        if not tell_loop(self._loop, self._start_rest, running, rest):
            rest.work.close()
            self._lose_loop([running])

    def _start_rest(self, running: Running, rest: Unfinished) -> None:
        work = self._run(running, rest.work)
        running.task = self._loop.create_task(work, name=running.claim.id, context=rest.context)

    def _lose_loop(self, jobs: Sequence[Running]) -> None:
        self.phases.enter(Phase.STOPPING)
        self._take_back(jobs, "its pool's event loop is closed")

    async def _run(self, running: Running, work: Work | None = None) -> None:
        try:
            # It may have been told to end before there was a task to cancel.
            if running.ending is not None:
                if work is not None:
                    work.close()
                raise asyncio.CancelledError
            outcome = await arun_job(running, work)
        except asyncio.CancelledError as error:
            if running.ending == "cancel":
                outcome = cancelled(running.claim)
            elif running.ending is None and not await self._stops():
                outcome = raised(running, error)  # it cancelled its own task
            else:
                self._drop(running)
                return
        self._ended(running, outcome)

    async def _stops(self) -> bool:
        """Whether a job was cancelled because the whole loop is: then its pool is told to stop, in the same
        breath or in the next, and hands the job back."""
        for _ in range(2):
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0)
        return self.phases.now >= Phase.DRAINING

    # The end of a job

    def _drop(self, running: Running) -> None:
        """Free the worker of a job that ended without an outcome."""
        running.slots.leave(running)
        if running.ending == "lost":
            self.completer.settle(running.claim.id, running.claim.attempt)
        self.claim_loop.wake()

    def _ended(self, running: Running, outcome: Outcome) -> None:
        running.slots.leave(running)
        self.completer.add(outcome)
        # Without a commit to share there is nothing to gather outcomes for.
        if self.gathers and any(slots.busy for slots in self.slots.values()):
            self.claim_loop.wake_soon()
        else:
            self.claim_loop.wake()
