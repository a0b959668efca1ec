"""The newest failures of all stores, and the newest changes of a queue's live values."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from jobify_django.admin.reading import all_stores, problem
from jobify_django.admin.words import change_words
from jobify_django.job import FAILED, JobRecord
from jobify_django.payload import brief
from jobify_django.stores.base import Store
from jobify_django.stores.value import JobQuery, QueueChange

FAILURES = 10
CHANGES = 10


def newest_failures() -> tuple[list[JobRecord], list[str]]:
    """Return the jobs that failed last, over all stores, and what kept us from looking into one."""
    found: list[JobRecord] = []
    problems: list[str] = []
    for store in all_stores(problems):
        try:
            found += store.query(JobQuery(status=FAILED, order="ended", limit=FAILURES))
        except Exception as error:
            problems.append(problem(error))
    found.sort(key=lambda job: job.ended_at or 0.0, reverse=True)
    return found[:FAILURES], problems


def newest_changes(store: Store, queue: str) -> list[tuple[QueueChange, str]]:
    """Return the newest changes of a queue's live values with their words, as far as its store keeps any."""
    return [(one, _difference(one.before, one.after)) for one in store.changes(queue, CHANGES)]


def _difference(before: Mapping[str, Any] | str, after: Mapping[str, Any] | str) -> str:
    try:
        return brief(change_words(before, after))  # type: ignore[arg-type]
    except (AttributeError, TypeError):  # a text that nobody can read, or values that are none
        return " → ".join(
            brief(values if isinstance(values, str) else json.dumps(values)) for values in (before, after)
        )
