"""Workers: the slots of a queue, the jobs in them, and the threads that ``def`` jobs run on."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterable
from queue import SimpleQueue
from typing import Literal

from django.db import connections

from jobify_django.conf import QueueSettings
from jobify_django.job import Claim
from jobify_django.log import get_log, quoted
from jobify_django.outcome import Outcome
from jobify_django.pool.execution import Unfinished, run_job
from jobify_django.stores.value import QueueState

logger = get_log("jobify.worker")

Ending = Literal["cancel", "release", "lost"]

TRY_AGAIN = 5.0
"""Seconds until one more thread is tried after the system has refused one."""


class Running:
    """A job in a worker. To the job's own pushes it is the ``Inside`` that says whether they may wait.

    ``exception`` is what it raised, from its end until that is reported.
    """

    __slots__ = ("_waits", "asked", "began", "claim", "ending", "exception", "seconds", "slots", "task")

    def __init__(self, claim: Claim, slots: Slots) -> None:
        self.claim = claim
        self.slots = slots
        self.began = time.monotonic()
        self.seconds = 0.0
        self.task: asyncio.Task[None] | None = None
        self.ending: Ending | None = None
        self.exception: BaseException | None = None
        self.asked: tuple[str, ...] = ()
        self._waits = 0

    def begin_wait(self, queue: str, *, anyway: bool = False) -> bool:
        with self.slots.lock:
            self._waits += 1
            leaves = self._leaves_a_worker(queue)
            if not leaves and not anyway:
                self._waits -= 1
            return leaves

    def may_go_on(self, queue: str) -> bool:
        with self.slots.lock:
            return self._leaves_a_worker(queue)

    def _leaves_a_worker(self, queue: str) -> bool:
        target = self.slots.peers.get(queue)
        return target is None or target.size > sum(job.waits for job in target.jobs())

    def end_wait(self) -> None:
        with self.slots.lock:
            self._waits -= 1

    @property
    def waits(self) -> bool:
        """Whether this job waits: for room in a queue, or for another job's end."""
        return self._waits > 0


class Slots:
    """A queue's workers in this process: how many, and what they run.

    Args:
        settings: the queue.
        size: how many jobs may run at once; it may change at any time.
        peers: the slots of every queue this process serves, by name, this one's among them.
    """

    # One lock for all slots: whether a job may wait can depend on another queue's workers.
    lock = threading.Lock()

    def __init__(self, settings: QueueSettings, size: int, peers: dict[str, Slots]) -> None:
        self.settings = settings
        self.size = size
        self.version = 0
        self.seen = QueueState(settings.name)
        self.peers = peers
        self._running: dict[Running, None] = {}
        self._suspects: dict[Running, None] = {}
        peers[settings.name] = self

    @property
    def idle(self) -> int:
        """How many more jobs may start now."""
        return max(0, self.size - len(self._running))

    @property
    def busy(self) -> int:
        """How many jobs run."""
        return len(self._running)

    def jobs(self) -> Iterable[Running]:
        """Return the jobs that run."""
        return list(self._running)

    def suspects(self) -> Iterable[Running]:
        """Return those of the jobs that run which ran when a process died."""
        return list(self._suspects)

    def youngest(self) -> Running | None:
        """Return the job that started last, of those that run."""
        try:
            return next(reversed(self._running), None)
        except RuntimeError:  # one ended on its thread meanwhile
            return self.youngest()

    def take(self, claim: Claim) -> Running:
        """Put a job into a slot."""
        running = Running(claim, self)
        # By itself, not by its id: a job that was lost may come back here while the old attempt still runs.
        self._running[running] = None
        if claim.crashes:
            self._suspects[running] = None
        return running

    def holds(self, running: Running) -> bool:
        """Whether a job is in a slot still."""
        return running in self._running

    def leave(self, running: Running) -> None:
        """Free a job's slot."""
        running.seconds = time.monotonic() - running.began
        # The task's context holds this object: the cycle would leave every job to the garbage collector.
        running.task = None
        self._running.pop(running, None)
        self._suspects.pop(running, None)


class Threads:
    """Daemon threads that run ``def`` jobs: as many as are needed at once, kept for the next job.

    They are daemons because a thread cannot be stopped: a process that has handed its jobs back must be
    able to end while one still runs.

    Args:
        done: told how a job ended.
        go_on: told what a job has left for the event loop.
    """

    def __init__(
        self, done: Callable[[Running, Outcome], None], go_on: Callable[[Running, Unfinished], None]
    ) -> None:
        self._done = done
        self._go_on = go_on
        self._work: SimpleQueue[Running | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._idle = 0
        self._total = 0
        self._limit = 0
        self._refused_at: float | None = None

    @property
    def room(self) -> int | None:
        """How many more jobs may start while the system refuses threads; ``None`` while it does not."""
        with self._lock:
            if self._refused_at is None:
                return None
            return self._idle + (time.monotonic() - self._refused_at >= TRY_AGAIN)

    def resize(self, limit: int) -> None:
        """Keep at most so many threads; surplus ones end when they are idle."""
        with self._lock:
            self._limit = limit
            while self._total > limit and self._idle:
                self._idle -= 1
                self._total -= 1
                self._work.put(None)

    def run(self, running: Running) -> bool:
        """Run a job on an idle thread, or on a new one; return ``False`` if the system refuses a thread."""
        with self._lock:
            if self._idle:
                self._idle -= 1
            elif not self._add():
                return False
        self._work.put(running)
        return True

    def _add(self) -> bool:
        name = f"jobify-worker-{self._total + 1}"
        try:
            threading.Thread(target=self._loop, name=name, daemon=True).start()
        except (RuntimeError, MemoryError) as error:
            if self._refused_at is None:
                logger.warning(
                    "event=no-thread error=%r threads=%d: fewer jobs run at once until it has more",
                    str(error),
                    self._total,
                )
            self._refused_at = time.monotonic()
            return False
        # Only now: one that never was must not count.
        self._total += 1
        if self._refused_at is not None and self._total >= self._limit:
            self._refused_at = None
            logger.info("event=threads-back threads=%d", self._total)
        return True

    def _loop(self) -> None:
        while (running := self._work.get()) is not None:
            outcome = run_job(running.claim, running)
            with self._lock:
                # Before the outcome is told: the next job may come at once, and belongs on this thread.
                surplus = self._total > self._limit
                if surplus:
                    self._total -= 1
                else:
                    self._idle += 1
            self._tell(running, outcome)
            if surplus:
                break
        with contextlib.suppress(Exception):
            connections.close_all()

    def _tell(self, running: Running, outcome: Outcome | Unfinished) -> None:
        try:
            if isinstance(outcome, Unfinished):
                self._go_on(running, outcome)
            else:
                self._done(running, outcome)
        except Exception:
            # A dead thread would still be counted as idle, and the next job would wait for it for ever.
            logger.critical("event=outcome-untold id=%s", quoted(running.claim.id), exc_info=True)
