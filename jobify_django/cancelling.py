"""Cancelling jobs, and what is true of each then: not every running one can be stopped."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import Enum

from jobify_django.job import JobStatus
from jobify_django.registry import tasks
from jobify_django.stores.base import Store


class CancelResult(Enum):
    """What a cancel did to a job."""

    CANCELLED = "it had not started, and never will"
    ASKED = "it runs, and ends where it awaits"
    UNSTOPPABLE = "it runs, is a 'def', and ends as it ends"
    UNSURE = "it runs, and its task is not known here: it ends early if it is an 'async def'"
    ENDED = "it had ended"


def cancel(store: Store, ids: Collection[str]) -> Mapping[str, CancelResult]:
    """Cancel jobs of a store; return what became of those that it knows. Raises ``StoreError``."""
    before = store.cancel(ids)
    running = [id for id, status in before.items() if status is JobStatus.RUNNING]
    names = {id: record.task for id, record in store.get(running).items()} if running else {}
    return {id: _result(status, names.get(id, "")) for id, status in before.items()}


def _result(status: JobStatus, task: str) -> CancelResult:
    if status is not JobStatus.RUNNING:
        return CancelResult.ENDED if status.ended else CancelResult.CANCELLED
    known = tasks.get(task)
    if known is None:
        return CancelResult.UNSURE
    return CancelResult.ASKED if known.is_async else CancelResult.UNSTOPPABLE
