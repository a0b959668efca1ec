"""Retrying and cancelling jobs through their stores, and telling what came of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

from django.utils.translation import ngettext

from jobify_django.admin.row import status_label
from jobify_django.conf import get_settings
from jobify_django.exceptions import JobifyError
from jobify_django.job import JobStatus
from jobify_django.stores import stores
from jobify_django.stores.base import Store

GONE = "gone"


@dataclass
class Tally:
    """What an action did.

    Attributes:
        done: how many jobs it changed, by queue.
        asked: how many running jobs were asked to stop, by queue.
        others: how many it left alone, by the status they were in.
        problems: why it could not act on some.
    """

    done: Counter[str] = field(default_factory=Counter)
    asked: Counter[str] = field(default_factory=Counter)
    others: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    @property
    def changed(self) -> int:
        """How many jobs it changed or asked."""
        return self.done.total() + self.asked.total()

    def words(self) -> list[str]:
        """Return the jobs left alone and asked, as parts of a sentence."""
        asked = self.asked.total()
        parts = []
        if asked:
            parts.append(
                ngettext(
                    "%(count)d is running and was asked to stop",
                    "%(count)d are running and were asked to stop",
                    asked,
                )
                % {"count": asked}
            )
        parts.extend(_left_alone(status, count) for status, count in sorted(self.others.items()))
        return parts


def retry(jobs: Iterable[tuple[str, str]]) -> Tally:
    """Make failed and cancelled jobs (id, queue) wait again."""

    def act(store: Store, queue: str, ids: Collection[str], tally: Tally) -> None:
        retried = set(store.retry(ids))
        tally.done[queue] += len(retried)
        left = [id for id in ids if id not in retried]
        records = store.get(left) if left else {}
        tally.others.update(str(records[id].status) if id in records else GONE for id in left)

    return _each_queue(jobs, act)


def cancel(jobs: Iterable[tuple[str, str]]) -> Tally:
    """Cancel jobs (id, queue) that have not started, and ask running ones to stop."""

    def act(store: Store, queue: str, ids: Collection[str], tally: Tally) -> None:
        before: Mapping[str, JobStatus] = store.cancel(ids)
        for id in ids:
            status = before.get(id)
            if status is JobStatus.RUNNING:
                tally.asked[queue] += 1
            elif status is None or status.ended:
                tally.others[str(status or GONE)] += 1
            else:
                tally.done[queue] += 1

    return _each_queue(jobs, act)


def retried_words(tally: Tally) -> str:
    """Return the sentence that tells of a retry."""
    done = tally.done.total()
    return _sentence(ngettext("%(count)d retried", "%(count)d retried", done) % {"count": done}, tally)


def cancelled_words(tally: Tally) -> str:
    """Return the sentence that tells of a cancellation."""
    done = tally.done.total()
    return _sentence(ngettext("%(count)d cancelled", "%(count)d cancelled", done) % {"count": done}, tally)


def _each_queue(
    jobs: Iterable[tuple[str, str]], act: Callable[[Store, str, Collection[str], Tally], None]
) -> Tally:
    by_queue: dict[str, list[str]] = {}
    for id, queue in jobs:
        by_queue.setdefault(queue, []).append(id)
    tally = Tally()
    for queue, ids in by_queue.items():
        try:
            act(stores.of(get_settings().queue(queue)), queue, ids, tally)
        except JobifyError as error:
            tally.problems.append(str(error))
    return tally


def _sentence(first: str, tally: Tally) -> str:
    return ", ".join([first, *tally.words()]) + "."


def _left_alone(status: str, count: int) -> str:
    if status == GONE:
        return ngettext("%(count)d is gone", "%(count)d are gone", count) % {"count": count}
    words = ngettext("%(count)d was already %(status)s", "%(count)d were already %(status)s", count)
    return words % {"count": count, "status": status_label(status)}
