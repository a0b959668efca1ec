"""The job that the calling code is part of: its pushes and waits ask it whether they may wait."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Protocol


class CurrentJob(Protocol):
    """The running job, as far as its own pushes and waits need it."""

    def begin_wait(self, queue: str, *, anyway: bool = False) -> bool:
        """Note that this job is about to wait for the queue.

        Returns ``False`` if no worker of it is left; then the wait counts only if it goes on ``anyway``.
        """

    def may_keep_waiting(self, queue: str) -> bool:
        """Whether a worker is left still: live tuning may have taken the others meanwhile."""

    def end_wait(self) -> None:
        """Note that the wait is over."""


CHECK_WORKERS_EVERY = 1.0
"""Seconds after which a wait from inside a job checks whether a worker is left to end it."""

current: ContextVar[CurrentJob | None] = ContextVar("jobify_current", default=None)
"""The job that this code is part of, if it is part of one: its pool sets it."""
