"""The job list's filters. Their choices stand in the settings and the registry: no query looks for them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from django.contrib.admin import ModelAdmin, SimpleListFilter
from django.contrib.admin.options import IncorrectLookupParameters
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from jobify_django.conf import get_settings
from jobify_django.models import Job
from jobify_django.task import tasks

if TYPE_CHECKING:
    JobModelAdmin = ModelAdmin[Job]
else:
    JobModelAdmin = ModelAdmin


class FixedFilter(SimpleListFilter):
    """Filters one column, named as the parameter, by a value out of a fixed list."""

    @abstractmethod
    def values(self) -> Sequence[tuple[str, Any]]:
        """Return the values and their labels."""

    def lookups(self, request: HttpRequest, model_admin: JobModelAdmin) -> Sequence[tuple[str, Any]]:
        return self.values()

    def queryset(self, request: HttpRequest, queryset: QuerySet[Job]) -> QuerySet[Job]:
        value = self.value()
        if value is None:
            return queryset
        if value not in dict(self.values()):
            raise IncorrectLookupParameters
        return queryset.filter(**{self.parameter_name or "": value})


class StatusFilter(FixedFilter):
    title = _("status")
    parameter_name = "status"

    def values(self) -> Sequence[tuple[str, Any]]:
        return Job.Status.choices


class QueueFilter(FixedFilter):
    title = _("queue")
    parameter_name = "queue"

    def values(self) -> Sequence[tuple[str, Any]]:
        return [(name, name) for name in get_settings().queues]


class TaskFilter(FixedFilter):
    title = _("task")
    parameter_name = "task"

    def values(self) -> Sequence[tuple[str, Any]]:
        return [(name, name) for name in sorted(task.name for task in tasks)]
