"""What pages read from the stores, and what they say of one that fails."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from django.utils.translation import gettext as _

from jobify_django.admin.words import change_words
from jobify_django.exceptions import JobifyError
from jobify_django.job import FAILED, JobRecord
from jobify_django.log import get_log
from jobify_django.payload import brief
from jobify_django.repeated_failure import RepeatedFailure
from jobify_django.stores import reachable, unconfigured_stores
from jobify_django.stores.base import Store
from jobify_django.stores.value import JobQuery, QueueChange

T = TypeVar("T")

logger = get_log("jobify.admin")

read_failures = RepeatedFailure()
"""What pages could not read: told once, not for each page and poll."""

UNREADABLE_FOR = 10.0
"""Seconds after the last failure until a page that could read everything says so: others may ask for more."""

FAILURES = 10
CHANGES = 10


def listed_stores(problems: list[str]) -> list[Store]:
    """Return the stores whose jobs are listed: those that look the same from every process."""
    return [store for store in all_stores(problems) if store.shared]


def all_stores(problems: list[str]) -> list[Store]:
    """Return every store that may hold jobs; one that cannot be made is told in ``problems``."""
    found, failed = reachable()
    problems += map(problem, failed.values())
    return [*found, *unconfigured_stores(found)]


def newest_failures() -> tuple[list[JobRecord], list[str]]:
    """Return the jobs that failed last, over all stores, and what kept us from looking into one."""
    problems: list[str] = []
    query = JobQuery(status=FAILED, order="ended", limit=FAILURES)
    by_store = answers(all_stores(problems), lambda store: store.query(query), problems)
    found = [job for _store, jobs in by_store for job in jobs]
    found.sort(key=lambda job: job.ended_at or 0.0, reverse=True)
    return found[:FAILURES], problems


def newest_changes(store: Store, queue: str) -> list[tuple[QueueChange, str]]:
    """Return the newest changes of a queue's live values with their words, as far as its store keeps any."""
    return [(one, _difference(one.before, one.after)) for one in store.changes(queue, CHANGES)]


def _difference(before: Mapping[str, Any] | str, after: Mapping[str, Any] | str) -> str:
    try:
        return brief(change_words(before, after))  # type: ignore[arg-type]
    except (AttributeError, TypeError):  # a text that nobody can read, or values that are none
        both = (values if isinstance(values, str) else json.dumps(values) for values in (before, after))
        return " → ".join(map(brief, both))


def answers(
    stores: Iterable[Store], ask: Callable[[Store], T], problems: list[str]
) -> Iterator[tuple[Store, T]]:
    """Ask one store after the other; one that fails is told in ``problems``, and has no answer."""
    for store in stores:
        try:
            answer = ask(store)
        except Exception as error:
            problems.append(problem(error))
        else:
            yield store, answer


def problem(error: Exception) -> str:
    """Return what a page may say about an error; the log has all of it, once."""
    if (report := read_failures.fail(error)) is not None:
        logger.warning(
            "event=store-unreadable times=%d: an admin page could not read a store",
            report.times,
            exc_info=error if report.new else None,
        )
    if isinstance(error, JobifyError):
        return str(error)
    return _("The store failed (%(type)s); the log has more.") % {"type": type(error).__name__}


def readable() -> None:
    """Note that a page could read all it wanted."""
    if times := read_failures.recovered(UNREADABLE_FOR):
        logger.info("event=store-readable times=%d: an admin page could read every store again", times)
