"""Threads: those that ``def`` jobs run on."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from django.db import connections

from jobify_django.log import get_log, quoted
from jobify_django.outcome import Outcome
from jobify_django.pool.execution import Unfinished, run_job
from jobify_django.pool.slots import RunningJob
from jobify_django.runtime import Runtime

logger = get_log("jobify.worker")

TRY_AGAIN = 5.0
"""Seconds until one more thread is tried after the system has refused one."""


class Threads:
    """Daemon threads that run ``def`` jobs: as many as are needed at once, kept for the next job.

    They are daemons because a thread cannot be stopped: a process that has handed its jobs back must be
    able to end while one still runs.

    A thread that takes a job first wakes another one if more jobs are left, and looks for the next job before
    it sleeps. So while a job waits and a thread is idle, one is on its way: jobs that block all run at once,
    and of jobs that hold the GIL to their end one thread runs many, without a wake-up for each.

    Args:
        done: called with a job and how it ended.
        continue_on_loop: called with a job and the rest of it that must run on the event loop.
        runtime: the machine they run on.
    """

    def __init__(
        self,
        done: Callable[[RunningJob, Outcome], None],
        continue_on_loop: Callable[[RunningJob, Unfinished], None],
        runtime: Runtime,
    ) -> None:
        self._done = done
        self._continue_on_loop = continue_on_loop
        self._runtime = runtime
        self._lock = runtime.lock()
        # All of this with the lock held. Each job in the line has a thread: an idle one, or a new one.
        self._line: deque[RunningJob] = deque()
        self._idle = 0
        self._total = 0
        self._limit = 0
        self._refused_at: float | None = None
        self._wake_ups: Any = runtime.queue()  # one for each thread that is to wake up
        self._asleep = 0
        self._one_is_coming = False

    @property
    def idle(self) -> int:
        """How many threads have no job."""
        return self._idle

    @property
    def startable(self) -> int | None:
        """How many more jobs may start while the system refuses threads; ``None`` while it does not."""
        refused_at = self._refused_at
        return (
            None if refused_at is None else self._idle + (self._runtime.monotonic() - refused_at >= TRY_AGAIN)
        )

    def resize(self, limit: int) -> None:
        """Keep at most so many threads; surplus ones end when they are idle."""
        with self._lock:
            self._limit = limit
            for _ in range(min(self._asleep, self._total - limit)):
                self._wake_one()

    def run(self, jobs: Sequence[RunningJob]) -> Sequence[RunningJob]:
        """Run jobs on idle threads, or on new ones; return those for which the system refuses a thread."""
        refused: list[RunningJob] = []
        with self._lock:
            for running in jobs:
                if self._idle:
                    self._idle -= 1
                elif not self._add():
                    refused.append(running)
                    continue
                self._line.append(running)
            self._wake_one_for_the_line()
        return refused

    def _add(self) -> bool:
        name = f"jobify-worker-{self._total + 1}"
        try:
            self._runtime.thread(target=self._loop, name=name, daemon=True).start()
        except (RuntimeError, MemoryError) as error:
            if self._refused_at is None:
                logger.warning(
                    "event=no-thread error=%r threads=%d: fewer jobs run at once until it has more",
                    str(error),
                    self._total,
                )
            self._refused_at = self._runtime.monotonic()
            return False
        # Only now: one that never was must not count.
        self._total += 1
        if self._refused_at is not None and self._total >= self._limit:
            self._refused_at = None
            logger.info("event=threads-back threads=%d", self._total)
        return True

    def _wake_one_for_the_line(self) -> None:
        # One at a time: it may find the line empty, for a thread that is awake takes jobs sooner.
        if self._line and self._asleep and not self._one_is_coming:
            self._one_is_coming = True
            self._wake_one()

    def _wake_one(self) -> None:
        self._asleep -= 1
        self._wake_ups.put(None)

    def _loop(self) -> None:
        while (found := self._next()) is not None:
            running, slept = found
            outcome = run_job(running, tidy=not slept)
            with self._lock:
                # Before the outcome is told: the next job may come at once, and belongs on this thread.
                self._idle += 1
            self._report(running, outcome)
        with contextlib.suppress(Exception):
            connections.close_all()

    def _next(self) -> tuple[RunningJob, bool] | None:
        """Return the next job, and whether this thread has slept since its last one; ``None``
        if it is to end."""
        slept = False
        self._lock.acquire()
        try:
            while not self._line:
                if self._total > self._limit:
                    self._total -= 1
                    self._idle -= 1
                    return None
                self._asleep += 1
                self._lock.release()
                try:
                    self._wake_ups.get()
                except Exception as error:
                    # What a job's own time limit threw into its thread, too late: it comes with a wake-up,
                    # and whoever sent that counts on this thread.
                    logger.debug("an idle worker thread was interrupted: %r", error)
                finally:
                    self._lock.acquire()
                    self._one_is_coming = False
                slept = True
            running = self._line.popleft()
            self._wake_one_for_the_line()
            return running, slept
        finally:
            self._lock.release()

    def _report(self, running: RunningJob, outcome: Outcome | Unfinished) -> None:
        try:
            if isinstance(outcome, Unfinished):
                self._continue_on_loop(running, outcome)
            else:
                self._done(running, outcome)
        except Exception:
            # A dead thread would still be counted as idle, and the next job would wait for it for ever.
            logger.critical("event=outcome-untold id=%s", quoted(running.claim.id), exc_info=True)
