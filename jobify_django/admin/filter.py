"""The job list's filters. Their choices stand in the settings and the registry; only queues that the settings
do not hold any more are looked for, by the index of jobs that have not ended.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

from django.contrib.admin import ModelAdmin, SimpleListFilter
from django.contrib.admin.options import IncorrectLookupParameters
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from jobify_django.admin.job_list import JobRows
from jobify_django.admin.reading import listed_stores
from jobify_django.conf import QUEUE_NAME, get_settings
from jobify_django.job import JobStatus
from jobify_django.models import Job
from jobify_django.registry import tasks

Choices = Sequence[tuple[str, Any]]


class FixedFilter(SimpleListFilter):
    """Filters by one condition of a query, named as the parameter, with a value out of a fixed list."""

    def queryset(self, request: HttpRequest, queryset: JobRows) -> JobRows:  # type: ignore[override]
        chosen = self.value()
        if chosen is None:
            return queryset
        for value, _label in self.lookup_choices:
            if value == chosen:
                return queryset.where(**{self.parameter_name or "": value})
        raise IncorrectLookupParameters


class StatusFilter(FixedFilter):
    title = _("status")
    parameter_name = "status"

    def lookups(self, request: HttpRequest, model_admin: ModelAdmin[Any]) -> Choices:
        return [(JobStatus(value), label) for value, label in Job.Status.choices]


class QueueFilter(FixedFilter):
    title = _("queue")
    parameter_name = "queue"

    def lookups(self, request: HttpRequest, model_admin: ModelAdmin[Any]) -> Choices:
        held: set[str] = set()
        for store in listed_stores([]):
            with contextlib.suppress(Exception):  # the list itself tells what is wrong
                held.update(store.queues())
        # Ended jobs of a queue that is gone are found by its name, as the links of its page do.
        asked = [name] if (name := self.value()) and QUEUE_NAME.fullmatch(name) else []
        names = dict.fromkeys([*get_settings().queues, *sorted(held), *asked])
        return [(name, name) for name in names]


class TaskFilter(FixedFilter):
    title = _("task")
    parameter_name = "task"

    def lookups(self, request: HttpRequest, model_admin: ModelAdmin[Any]) -> Choices:
        return [(name, name) for name in sorted(task.name for task in tasks)]
