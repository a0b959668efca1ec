"""Cancelling jobs, and what is true of each then: not every running one can be stopped."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import Enum

from jobify_django.job import JobStatus
from jobify_django.registry import tasks
from jobify_django.stores.base import Store


class Fate(Enum):
    """What a cancel did to a job."""

    CANCELLED = "it had not started, and never will"
    ASKED = "it runs, and ends where it awaits"
    UNSTOPPABLE = "it runs, is a 'def', and ends as it ends"
    UNSURE = "it runs, and its task is not known here: it ends early if it is an 'async def'"
    OVER = "it had ended"


def cancel(store: Store, ids: Collection[str]) -> Mapping[str, Fate]:
    """Cancel jobs of a store; return what became of those that it knows. Raises ``StoreError``."""
    before = store.cancel(ids)
    running = [id for id, status in before.items() if status is JobStatus.RUNNING]
    names = {id: record.task for id, record in store.get(running).items()} if running else {}
    return {id: _fate(status, names.get(id, "")) for id, status in before.items()}


def _fate(status: JobStatus, task: str) -> Fate:
    if status is not JobStatus.RUNNING:
        return Fate.OVER if status.ended else Fate.CANCELLED
    known = tasks.get(task)
    if known is None:
        return Fate.UNSURE
    return Fate.ASKED if known.is_async else Fate.UNSTOPPABLE
