"""Django's changelist over the jobs of stores, which are no querysets."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection
from dataclasses import replace
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

from django.contrib.admin.views.main import ChangeList
from django.core.paginator import Paginator
from django.http import HttpRequest

from jobify_django.job import JobRecord
from jobify_django.models import Job
from jobify_django.stores.base import Store
from jobify_django.stores.value import JobOrder, JobQuery

T = TypeVar("T")

MOST = 10_000
"""Jobs that are counted, and that can be paged to. A filter or an id finds the others."""

COLUMNS = (
    *("id", "queue", "task", "priority", "status", "attempt"),
    *("pushed_at", "eligible_at", "started_at", "ended_at"),
)


class JobList(ChangeList):
    """The list of jobs, newest first unless the header of the column "pushed" asks for the oldest."""

    root_queryset: JobRows  # type: ignore[assignment]

    def get_queryset(  # type: ignore[override]
        self, request: HttpRequest, exclude_parameters: list[str] | None = None
    ) -> JobRows:
        """Return the jobs that the filters and the search name."""
        filters = self.get_filters(request)
        self.filter_specs, self.has_filters, _params, _duplicates, self.has_active_filters = filters
        self.clear_all_filters_qs = self.get_query_string(remove=list(self.get_filters_params()))
        rows = self.root_queryset.where(order=self._order())
        for spec in self.filter_specs:
            rows = spec.queryset(request, rows)  # type: ignore[assignment,arg-type]
        term = self.query.strip()
        return rows.filter(pk__in=[term]) if term else rows

    def _order(self) -> JobOrder:
        directions = self.get_ordering_field_columns()
        pushed = [directions.get(column) for column, name in enumerate(self.list_display) if name == "pushed"]
        return "oldest" if pushed == ["asc"] else "newest"


class CappedCount(int):
    """A count that stopped: in text it is ``10 000+``."""

    def __str__(self) -> str:
        return f"{int(self):,}+".replace(",", "\u202f")


class CappedPaginator(Paginator):  # type: ignore[type-arg]
    """Counts up to ``MOST`` jobs: 1 ms instead of a second on millions of them."""

    @cached_property
    def count(self) -> int:
        found: int = super().count
        return CappedCount(MOST) if found > MOST else found


class Found(NamedTuple):
    """A job, and the store that holds it."""

    store: Store
    job: JobRecord


class JobRows:
    """Some jobs of some stores: as much of a queryset as Django's changelist and its actions ask for.

    Args:
        stores: where to look. One that fails is taken out.
        on_error: what is done with the error of one that fails.
        query: which jobs.
    """

    def __init__(self, stores: list[Store], on_error: Callable[[Exception], None], query: JobQuery) -> None:
        self._stores = stores
        self._on_error = on_error
        self.query = query

    def where(self, **conditions: Any) -> JobRows:
        """Return those of them for which these conditions of a ``JobQuery`` hold as well."""
        return JobRows(self._stores, self._on_error, replace(self.query, **conditions))

    def filter(self, *, pk__in: Collection[str]) -> JobRows:
        """Return those of them that have one of these ids."""
        asked = self.query.ids
        return self.where(ids=[id for id in pk__in if may_be_id(id) and (asked is None or id in asked)])

    def count(self) -> int:
        """Return how many there are, as far as a page tells."""
        query = replace(self.query, limit=MOST + 1)
        return sum(number for _store, number in self._answers(lambda store: store.count(query)))

    def found(self, start: int, stop: int) -> list[Found]:
        """Return those from one place to another."""
        # Of several stores the first could all be in one.
        ahead = start if len(self._stores) == 1 else 0
        query = replace(self.query, offset=ahead, limit=max(0, stop - ahead))
        answers = self._answers(lambda store: store.query(query))
        by_store = [[Found(store, job) for job in jobs] for store, jobs in answers]
        # Each keeps its own order, or pages would not fit together. Two stores may lead to the same tables.
        newest_first = self.query.order != "oldest"
        merged = heapq.merge(*by_store, key=lambda found: found.job.pushed_at, reverse=newest_first)
        return list({one.job.id: one for one in merged}.values())[start - ahead : stop - ahead]

    def __getitem__(self, page: slice) -> list[Job]:
        return [job_of(found.job) for found in self.found(page.start, page.stop)]

    def _clone(self) -> list[Job]:
        """Return all of them; the changelist asks for it where they fit on one page."""
        return self[0:MOST]

    def _answers(self, ask: Callable[[Store], T]) -> list[tuple[Store, T]]:
        answers = []
        for store in list(self._stores):
            try:
                answers.append((store, ask(store)))
            except Exception as error:
                self._stores.remove(store)
                self._on_error(error)
        return answers


def may_be_id(text: str) -> bool:
    """Return whether a store can be asked for this id."""
    return len(text) <= 36 and "\0" not in text


def job_of(job: JobRecord) -> Job:
    """Return a job as the object that Django's pages show; it is not to be saved."""
    return Job(**{name: getattr(job, name) for name in COLUMNS})
