"""Retrying and cancelling jobs through their stores, and telling what came of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field

from django.utils.translation import ngettext

from jobify_django import cancelling
from jobify_django.admin.row import status_label
from jobify_django.cancelling import Fate
from jobify_django.conf import get_settings
from jobify_django.exceptions import JobifyError
from jobify_django.leftover import unserved
from jobify_django.stores import stores
from jobify_django.stores.base import Store
from jobify_django.stores.database import DatabaseStore

GONE = "gone"

RUNS = (Fate.ASKED, Fate.UNSURE, Fate.UNSTOPPABLE)
Jobs = Iterable[tuple[str, str]]
"""The ids of jobs, with their queues."""

StoreOf = Callable[[str], Store]
"""Tells the store that the jobs of a queue are in."""


@dataclass
class Tally:
    """What an action did.

    Attributes:
        done: how many jobs it changed, by queue.
        asked: how many running jobs were asked to stop, by queue.
        running: what is true of them, and of those that cannot be stopped.
        others: how many it left alone, by the status they were in.
        problems: why it could not act on some.
    """

    done: Counter[str] = field(default_factory=Counter)
    asked: Counter[str] = field(default_factory=Counter)
    running: Counter[Fate] = field(default_factory=Counter)
    others: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    @property
    def changed(self) -> int:
        """How many jobs it changed or asked."""
        return self.done.total() + self.asked.total()

    @property
    def vain(self) -> bool:
        """Whether nothing comes of it."""
        return self.changed == self.running[Fate.UNSTOPPABLE]

    def words(self) -> list[str]:
        """Return the jobs left alone and asked, as parts of a sentence."""
        parts = [_still_running(fate, self.running[fate]) for fate in RUNS if self.running[fate]]
        parts.extend(_left_alone(status, count) for status, count in sorted(self.others.items()))
        return parts


def store_of_the_table(queue: str) -> Store:
    """Return the store that jobs of the list are in, whatever the settings say of their queue by now."""
    settings = get_settings().queues.get(queue)
    if settings is not None and isinstance(store := stores.of(settings), DatabaseStore):
        return store
    return stores["database"]


def retry(jobs: Jobs, store_of: StoreOf) -> Tally:
    """Make failed and cancelled jobs wait again, but not where nobody would run them."""

    def act(store: Store, queue: str, ids: Collection[str], tally: Tally) -> None:
        if reason := unserved(store, [queue]).get(queue):
            tally.problems.append(reason)
            return
        retried = set(store.retry(ids))
        tally.done[queue] += len(retried)
        _leave(store, [id for id in ids if id not in retried], tally)

    return _each_queue(jobs, store_of, act)


def cancel(jobs: Jobs, store_of: StoreOf) -> Tally:
    """Cancel jobs that have not started, and ask running ones to stop."""

    def act(store: Store, queue: str, ids: Collection[str], tally: Tally) -> None:
        fates = cancelling.cancel(store, ids)
        for id in ids:
            fate = fates.get(id)
            if fate in RUNS:
                tally.asked[queue] += 1
                tally.running[fate] += 1
            elif fate is Fate.CANCELLED:
                tally.done[queue] += 1
        left = [id for id in ids if fates.get(id) in (None, Fate.OVER)]
        _leave(store, left, tally)

    return _each_queue(jobs, store_of, act)


Act = Callable[[Jobs, StoreOf], Tally]


def _leave(store: Store, ids: Collection[str], tally: Tally) -> None:
    records = store.get(ids) if ids else {}
    tally.others.update(str(records[id].status) if id in records else GONE for id in ids)


def retried_words(tally: Tally) -> str:
    """Return the sentence that tells of a retry."""
    done = tally.done.total()
    return _sentence(ngettext("%(count)d retried", "%(count)d retried", done) % {"count": done}, tally)


def cancelled_words(tally: Tally) -> str:
    """Return the sentence that tells of a cancellation."""
    done = tally.done.total()
    return _sentence(ngettext("%(count)d cancelled", "%(count)d cancelled", done) % {"count": done}, tally)


def _each_queue(
    jobs: Jobs, store_of: StoreOf, act: Callable[[Store, str, Collection[str], Tally], None]
) -> Tally:
    by_queue: dict[str, list[str]] = {}
    for id, queue in jobs:
        by_queue.setdefault(queue, []).append(id)
    tally = Tally()
    for queue, ids in by_queue.items():
        try:
            act(store_of(queue), queue, ids, tally)
        except JobifyError as error:
            tally.problems.append(str(error))
    return tally


def _sentence(first: str, tally: Tally) -> str:
    return ", ".join([first, *tally.words()]) + "."


def _still_running(fate: Fate, count: int) -> str:
    words = ngettext(
        "%(count)d is running and was asked to stop", "%(count)d are running and were asked to stop", count
    )
    if fate is Fate.UNSURE:
        words = ngettext(
            "%(count)d is running and was asked to stop; its task is not known here",
            "%(count)d are running and were asked to stop; their tasks are not known here",
            count,
        )
    elif fate is Fate.UNSTOPPABLE:
        words = ngettext(
            "%(count)d is running and cannot be stopped: a “def” ends as it ends",
            "%(count)d are running and cannot be stopped: a “def” ends as it ends",
            count,
        )
    return words % {"count": count}


def _left_alone(status: str, count: int) -> str:
    if status == GONE:
        return ngettext("%(count)d is gone", "%(count)d are gone", count) % {"count": count}
    words = ngettext("%(count)d was already %(status)s", "%(count)d were already %(status)s", count)
    return words % {"count": count, "status": status_label(status)}
