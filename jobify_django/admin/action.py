"""Retrying and cancelling jobs through their stores, and telling what came of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

from django.utils.translation import ngettext, ngettext_lazy

from jobify_django import cancelling
from jobify_django.admin.job_list import Found
from jobify_django.admin.words import status_label
from jobify_django.cancelling import CancelResult
from jobify_django.exceptions import JobifyError
from jobify_django.stores.base import Store
from jobify_django.unconfigured import unserved

GONE = "gone"

STILL_RUNNING: dict[CancelResult, Any] = {
    CancelResult.ASKED: ngettext_lazy(
        "%(count)d is running and was asked to stop",
        "%(count)d are running and were asked to stop",
        "count",
    ),
    CancelResult.UNSURE: ngettext_lazy(
        "%(count)d is running and was asked to stop; its task is not known here",
        "%(count)d are running and were asked to stop; their tasks are not known here",
        "count",
    ),
    CancelResult.UNSTOPPABLE: ngettext_lazy(
        "%(count)d is running and cannot be stopped: a “def” ends as it ends",
        "%(count)d are running and cannot be stopped: a “def” ends as it ends",
        "count",
    ),
}


@dataclass
class Tally:
    """What an action did.

    Attributes:
        verb: tells how many jobs it changed.
        done: how many jobs it changed, by queue.
        asked: how many running jobs were asked to stop, by queue.
        running: what is true of them, and of those that cannot be stopped.
        others: how many it left alone, by the status they were in.
        problems: why it could not act on some.
    """

    verb: Any
    done: Counter[str] = field(default_factory=Counter)
    asked: Counter[str] = field(default_factory=Counter)
    running: Counter[CancelResult] = field(default_factory=Counter)
    others: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    @property
    def changed(self) -> int:
        """How many jobs it changed or asked."""
        return self.done.total() + self.asked.total()

    @property
    def without_effect(self) -> bool:
        """Whether nothing comes of it."""
        return self.changed == self.running[CancelResult.UNSTOPPABLE]

    @property
    def text(self) -> str:
        """The sentence that tells of it."""
        parts = [self.verb % {"count": self.done.total()}]
        parts += (
            words % {"count": self.running[result]}
            for result, words in STILL_RUNNING.items()
            if self.running[result]
        )
        parts += (_left_alone(status, count) for status, count in sorted(self.others.items()))
        return ", ".join(parts) + "."


Act = Callable[[Iterable[Found]], Tally]


def retry(jobs: Iterable[Found]) -> Tally:
    """Make failed and cancelled jobs wait again, but not where nobody would run them."""

    def act(store: Store, queue: str, ids: Collection[str], tally: Tally) -> None:
        if reason := unserved(store, [queue]).get(queue):
            tally.problems.append(reason)
            return
        retried = set(store.retry(ids))
        tally.done[queue] += len(retried)
        _leave(store, [id for id in ids if id not in retried], tally)

    return _each_queue(jobs, act, Tally(ngettext_lazy("%(count)d retried", "%(count)d retried", "count")))


def cancel(jobs: Iterable[Found]) -> Tally:
    """Cancel jobs that have not started, and ask running ones to stop."""

    def act(store: Store, queue: str, ids: Collection[str], tally: Tally) -> None:
        results = cancelling.cancel(store, ids)
        running = [result for result in results.values() if result in STILL_RUNNING]
        tally.running.update(running)
        tally.asked[queue] += len(running)
        tally.done[queue] += sum(result is CancelResult.CANCELLED for result in results.values())
        _leave(store, [id for id in ids if results.get(id, CancelResult.ENDED) is CancelResult.ENDED], tally)

    return _each_queue(jobs, act, Tally(ngettext_lazy("%(count)d cancelled", "%(count)d cancelled", "count")))


def _each_queue(
    jobs: Iterable[Found], act: Callable[[Store, str, Collection[str], Tally], None], tally: Tally
) -> Tally:
    by_queue: dict[tuple[Store, str], list[str]] = {}
    for store, job in jobs:
        by_queue.setdefault((store, job.queue), []).append(job.id)
    for (store, queue), ids in by_queue.items():
        try:
            act(store, queue, ids, tally)
        except JobifyError as error:
            tally.problems.append(str(error))
    return tally


def _leave(store: Store, ids: Collection[str], tally: Tally) -> None:
    records = store.get(ids) if ids else {}
    tally.others.update(str(records[id].status) if id in records else GONE for id in ids)


def _left_alone(status: str, count: int) -> str:
    if status == GONE:
        return ngettext("%(count)d is gone", "%(count)d are gone", count) % {"count": count}
    words = ngettext("%(count)d was already %(status)s", "%(count)d were already %(status)s", count)
    return words % {"count": count, "status": status_label(status)}
