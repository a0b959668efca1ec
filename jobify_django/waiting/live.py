"""Waiting for a live job: one that is read without asking its store, and that wakes those who wait for it.

Nothing is asked, and nobody polls: a wait is an entry in the job it waits for, and costs the other waits
nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from asyncio import _get_running_loop
from collections.abc import Callable, Generator
from typing import Any

from jobify_django.job import JobRecord
from jobify_django.stores.value import LiveJob
from jobify_django.waiting.awaited import WorkerCheck, timed_out
from jobify_django.waiting.waker import Pause, Steps, Waker

LONGEST_PAUSE = 86_400.0
"""Seconds of one pause at most, of which there may be many: a lock takes no number as large as a timeout may
be."""


class EndFuture(asyncio.Future[None]):
    """One wait on an event loop. Any thread may wake it; a loop that is closed has nobody waiting."""

    __slots__ = ()

    def wake(self) -> None:
        """Let the wait look again."""
        loop = self.get_loop()
        if _get_running_loop() is loop:
            if not self.done():
                self.set_result(None)
        else:
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(self.wake)


def await_live_end(
    live: LiveJob, timeout: float | None, monotonic: Callable[[], float]
) -> Generator[Any, Any, JobRecord]:
    """Return a live job's record once it has ended, on the running event loop and outside of any job.

    Args:
        live: the job.
        timeout: seconds; ``None`` waits without end.
        monotonic: returns seconds since some moment.

    Raises ``WaitTimeout``.
    """
    until = None if timeout is None else monotonic() + timeout
    while not live.status.ended or not (record := live.record()).status.ended:
        loop, timer = asyncio.get_running_loop(), None
        ended = EndFuture(loop=loop)
        live.add_waker(ended)
        try:
            # Looked at again, now that an end would wake it: nothing falls in between.
            if live.status.ended:
                continue
            if until is not None:
                if (left := until - monotonic()) <= 0:
                    raise timed_out(live.id, timeout)
                timer = loop.call_later(left, ended.wake)
            yield from ended
        finally:
            live.remove_waker(ended)
            if timer is not None:
                timer.cancel()
    return record


def live_end(
    live: LiveJob,
    timeout: float | None,
    waker: Waker,
    monotonic: Callable[[], float],
    worker_check: WorkerCheck | None = None,
) -> Steps[JobRecord]:
    """Return the same in a thread, or from inside a job, whose ``worker_check`` may raise meanwhile."""
    until = math.inf if timeout is None else monotonic() + timeout
    live.add_waker(waker)
    try:
        while not (record := live.record()).status.ended:
            if (pause := until - monotonic()) <= 0:
                raise timed_out(live.id, timeout)
            if worker_check is not None:
                yield from worker_check.check()
                pause = max(0.0, min(pause, worker_check.next_check - monotonic()))
            yield Pause(min(pause, LONGEST_PAUSE))
    finally:
        live.remove_waker(waker)
    return record
