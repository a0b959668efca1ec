"""Threads: those that ``def`` jobs run on."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
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
        self._work: Any = runtime.queue()  # of jobs; None ends a thread
        self._lock = runtime.lock()
        self._idle = 0
        self._total = 0
        self._limit = 0
        self._refused_at: float | None = None

    @property
    def idle(self) -> int:
        """How many threads wait for a job."""
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
            while self._total > limit and self._idle:
                self._idle -= 1
                self._total -= 1
                self._work.put(None)

    def run(self, running: RunningJob) -> bool:
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

    def _loop(self) -> None:
        while (running := self._work.get()) is not None:
            outcome = run_job(running)
            with self._lock:
                # Before the outcome is told: the next job may come at once, and belongs on this thread.
                surplus = self._total > self._limit
                if surplus:
                    self._total -= 1
                else:
                    self._idle += 1
            self._report(running, outcome)
            if surplus:
                break
        with contextlib.suppress(Exception):
            connections.close_all()

    def _report(self, running: RunningJob, outcome: Outcome | Unfinished) -> None:
        try:
            if isinstance(outcome, Unfinished):
                self._continue_on_loop(running, outcome)
            else:
                self._done(running, outcome)
        except Exception:
            # A dead thread would still be counted as idle, and the next job would wait for it for ever.
            logger.critical("event=outcome-untold id=%s", quoted(running.claim.id), exc_info=True)
