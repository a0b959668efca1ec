"""The list of the database store's jobs, and a page for a job of any store."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.contrib.admin.utils import quote, unquote
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.utils.html import format_html
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from jobify_django import models
from jobify_django.admin import action, page
from jobify_django.admin.filter import QueueFilter, StatusFilter, TaskFilter
from jobify_django.admin.paginator import CappedPaginator
from jobify_django.admin.row import all_stores, problem, status_label
from jobify_django.conf import get_settings
from jobify_django.job import JobRecord, JobStatus
from jobify_django.payload import cut, shown
from jobify_django.stores import stores
from jobify_django.stores.base import Store
from jobify_django.stores.database.rows import moment, text
from jobify_django.templatetags.jobify import breakable, duration, stamp

if TYPE_CHECKING:
    JobModelAdmin = admin.ModelAdmin[models.Job]
else:
    JobModelAdmin = admin.ModelAdmin

MOST_AT_ONCE = 1_000
"""Jobs one action takes; more would hold a write transaction, and this request, for too long."""

MOST_EVENTS = 100
"""Entries of a job's history in its timeline; one that is handed back at every deploy has more and more."""

LONGEST_MESSAGE = 5_000
"""Characters of an error's message on a page."""

PARAMETERS = ("status", "queue", "task")
LARGE = ("arguments", "result", "error", "history")


@dataclass(frozen=True, slots=True)
class Event:
    """One line of a job's timeline."""

    at: float
    words: str
    detail: str = ""


@admin.register(models.Job)
class JobAdmin(JobModelAdmin):
    """Looks at jobs, retries and cancels them. It never adds, edits or deletes one."""

    list_display = ("pushed", "state", "name", "queue", "wait", "duration", "priority", "attempt", "id")
    list_display_links = ("pushed",)
    list_filter = (StatusFilter, QueueFilter, TaskFilter)
    list_select_related = False
    list_per_page = list_max_show_all = 100
    sortable_by = ("pushed",)
    ordering = ("-id",)  # ids grow with time, and no other order has an index over all states
    search_fields = ("=id",)
    search_help_text = gettext_lazy("A job's whole id.")
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    paginator = CappedPaginator
    actions = ("retry_jobs", "cancel_jobs")
    job_template = "admin/jobify_django/job.html"

    class Media:
        css = {"all": ("jobify_django/jobify.css",)}

    # Permissions: none of the default ones exist but "view"

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: models.Job | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: models.Job | None = None) -> bool:
        return False

    def has_retry_permission(self, request: HttpRequest) -> bool:
        """Whether the user may retry jobs, which is to run code again."""
        return request.user.has_perm("jobify_django.retry_job")

    def has_cancel_permission(self, request: HttpRequest) -> bool:
        """Whether the user may cancel jobs."""
        return request.user.has_perm("jobify_django.cancel_job")

    # The list

    def get_queryset(self, request: HttpRequest) -> QuerySet[models.Job]:
        return models.Job.objects.using(get_settings().database).defer(*LARGE).order_by(*self.ordering)

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """List the jobs."""
        store = _database_store()
        # All rows of the page are read in here, and those of an action.
        with contextlib.nullcontext() if store is None else store.legible():
            return super().changelist_view(request, extra_context)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[models.Job], search_term: str
    ) -> tuple[QuerySet[models.Job], bool]:
        term = search_term.strip()
        if not term:
            return queryset, False
        return (queryset.filter(pk=term) if len(term) <= 36 else queryset.none()), False

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest | None = None) -> bool:
        # By default every column could be asked about: "?arguments__contains=…" would read what is hidden.
        return lookup in PARAMETERS

    @admin.display(description=gettext_lazy("status"))
    def state(self, job: models.Job) -> str:
        return format_html(
            '<span class="jobify-state jobify-{}">{}</span>', job.status, status_label(text(job.status))
        )

    @admin.display(description=gettext_lazy("task"))
    def name(self, job: models.Job) -> str:
        return breakable(job.task)

    @admin.display(description=gettext_lazy("pushed"), ordering="id")
    def pushed(self, job: models.Job) -> str:
        return stamp(job.pushed_at)

    @admin.display(description=gettext_lazy("wait"))
    def wait(self, job: models.Job) -> str:
        eligible_at, started_at, ended_at = map(_seconds, (job.eligible_at, job.started_at, job.ended_at))
        return _wait_words(job.status, eligible_at, started_at, ended_at)

    @admin.display(description=gettext_lazy("duration"))
    def duration(self, job: models.Job) -> str:
        return _run_words(job.status, _seconds(job.started_at), _seconds(job.ended_at))

    # Actions

    @admin.action(description=gettext_lazy("Retry the selected jobs"), permissions=["retry"])
    def retry_jobs(self, request: HttpRequest, queryset: QuerySet[models.Job]) -> None:
        """Make failed and cancelled jobs wait again."""
        self._act_on_many(request, queryset, action.retry, action.retried_words)

    @admin.action(description=gettext_lazy("Cancel the selected jobs"), permissions=["cancel"])
    def cancel_jobs(self, request: HttpRequest, queryset: QuerySet[models.Job]) -> None:
        """Cancel jobs that have not started, and ask running ones to stop."""
        self._act_on_many(request, queryset, action.cancel, action.cancelled_words)

    def _act_on_many(
        self,
        request: HttpRequest,
        queryset: QuerySet[models.Job],
        act: action.Act,
        words: Callable[[action.Tally], str],
    ) -> None:
        jobs = list(queryset.values_list("id", "queue")[: MOST_AT_ONCE + 1])
        tally = act(jobs[:MOST_AT_ONCE], action.store_of_the_table)
        text = words(tally)
        if len(jobs) > MOST_AT_ONCE:
            more = ngettext(
                "One action takes %(most)d job; run it again for the others.",
                "One action takes %(most)d jobs; run it again for the others.",
                MOST_AT_ONCE,
            )
            text += " " + more % {"most": MOST_AT_ONCE}
        self._tell(request, tally, text)
        # One entry a queue, not one a job.
        for name in tally.done | tally.asked:
            self.log_change(request, models.Queue(name=name), text)  # type: ignore[arg-type]

    def _tell(self, request: HttpRequest, tally: action.Tally, text: str) -> None:
        self.message_user(request, text, messages.WARNING if tally.vain else messages.SUCCESS)
        for words in tally.problems:
            self.message_user(request, words, messages.ERROR)

    # The page of one job

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view
        return [
            path("<path:object_id>/retry/", view(self.retry_view), name="jobify_django_job_retry"),
            path("<path:object_id>/cancel/", view(self.cancel_view), name="jobify_django_job_cancel"),
            *super().get_urls(),
        ]

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """Show a job; nothing of it can be edited."""
        if request.method not in ("GET", "HEAD"):
            return HttpResponseNotAllowed(["GET", "HEAD"])
        if not self.has_view_permission(request):
            raise PermissionDenied
        _store, job = self._find(unquote(object_id))
        list_address = page.address(self.admin_site, "jobify_django_job_changelist")
        crumbs = [(page.plural(models.Job), list_address)]
        again = job.status in (JobStatus.FAILED, JobStatus.CANCELLED)
        context = {
            **page.context(self.admin_site, request, _("Job %(id)s") % {"id": job.id}, crumbs),
            "job": job,
            "state": status_label(job.status),
            "wait": _wait_words(job.status, job.eligible_at, job.started_at, job.ended_at),
            "duration": _run_words(job.status, job.started_at, job.ended_at),
            "events": timeline(job),
            "earlier": max(0, len(job.history) - MOST_EVENTS),
            "may_retry": again and self.has_retry_permission(request),
            "may_cancel": job.status.known
            and not job.status.ended
            and not job.cancel_requested
            and self.has_cancel_permission(request),
            "queue_address": self._queue_address(request, job.queue),
            **self._payload(request, job),
            **(extra_context or {}),
        }
        return TemplateResponse(request, self.job_template, context)

    def retry_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Retry one job."""
        return self._act_on_one(
            request, object_id, self.has_retry_permission, action.retry, action.retried_words
        )

    def cancel_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Cancel one job."""
        return self._act_on_one(
            request, object_id, self.has_cancel_permission, action.cancel, action.cancelled_words
        )

    def _act_on_one(
        self,
        request: HttpRequest,
        object_id: str,
        allowed: Callable[[HttpRequest], bool],
        act: action.Act,
        words: Callable[[action.Tally], str],
    ) -> HttpResponse:
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        if not self.has_view_permission(request) or not allowed(request):
            raise PermissionDenied
        store, job = self._find(unquote(object_id))
        tally = act([(job.id, job.queue)], lambda queue: store)
        text = words(tally)
        self._tell(request, tally, text)
        if tally.changed:
            self.log_change(request, models.Job(id=job.id, task=job.task), text)
        return HttpResponseRedirect(page.address(self.admin_site, "jobify_django_job_change", quote(job.id)))

    def _find(self, id: str) -> tuple[Store, JobRecord]:
        """Return a job of any store, and its store; raises ``Http404``."""
        problems: list[str] = []
        places = all_stores(problems)
        if len(id) <= 36 and "\0" not in id:
            for store in places:
                try:
                    if (found := store.get((id,)).get(id)) is not None:
                        return store, found
                except Exception as error:
                    problems.append(problem(error))
        raise Http404(" ".join([_("No store holds this job: it ended and was pruned."), *problems]))

    def _payload(self, request: HttpRequest, job: JobRecord) -> dict[str, Any]:
        error = {"error_type": cut(job.error.type).text if job.error else ""}
        if not request.user.has_perm("jobify_django.view_job_payload"):
            return {"sees_payload": False, **error}
        return {
            "sees_payload": True,
            "arguments": shown(job.arguments, arrange=_as_pushed),
            "result": None if job.result is None else shown(job.result),
            "message": cut(job.error.message if job.error else "", LONGEST_MESSAGE),
            "traceback": cut(job.error.traceback if job.error else ""),
            **error,
        }

    def _queue_address(self, request: HttpRequest, queue: str) -> str:
        sees = request.user.has_perm("jobify_django.view_queue") or request.user.has_perm(
            "jobify_django.tune_queue"
        )
        known = queue in get_settings().queues and self.admin_site.is_registered(models.Overview)
        return page.address(self.admin_site, "jobify_django_queue_change", queue) if sees and known else ""


def timeline(job: JobRecord) -> Sequence[Event]:
    """Return what happened to a job, in order: of its history the newest."""
    events = [Event(job.pushed_at, _("pushed"))]
    if job.eligible_at > job.pushed_at:
        ahead = job.status is JobStatus.DELAYED
        events.append(Event(job.eligible_at, _("eligible from here on") if ahead else _("eligible")))
    for entry in job.history[-MOST_EVENTS:]:
        words = _("attempt %(attempt)d: %(reason)s") if entry.attempt else _("%(reason)s")
        detail = _("counted as a crash") if entry.charged else ""
        words %= {"attempt": entry.attempt, "reason": cut(entry.reason).text}
        events.append(Event(entry.at, words, detail))
    if job.started_at is not None and job.attempt:
        detail = _("by pool %(pool)s") % {"pool": job.pool} if job.pool else ""
        events.append(
            Event(job.started_at, _("attempt %(attempt)d started") % {"attempt": job.attempt}, detail)
        )
    if job.ended_at is not None:
        events.append(Event(job.ended_at, status_label(job.status)))
    return sorted(events, key=lambda event: event.at)


def _seconds(value: object) -> float | None:
    """Return a time of a row; ``None`` for what is none."""
    return moment(value, None)


def _wait_words(
    status: str, eligible_at: float | None, started_at: float | None, ended_at: float | None
) -> str:
    now = time.time()
    if eligible_at is None:
        return duration(None)
    if status == JobStatus.DELAYED and eligible_at > now:
        return _("due in %(duration)s") % {"duration": duration(eligible_at - now)}
    if status in (JobStatus.WAITING, JobStatus.DELAYED):
        return duration(now - eligible_at)
    until = started_at if started_at is not None else ended_at
    return duration(None if until is None else until - eligible_at)


def _run_words(status: str, started_at: float | None, ended_at: float | None) -> str:
    if started_at is None or status in (JobStatus.WAITING, JobStatus.DELAYED):
        return duration(None)
    if status == JobStatus.RUNNING:
        return duration(time.time() - started_at)
    return duration(None if ended_at is None else ended_at - started_at)


def _as_pushed(call: Any) -> Any:
    """Return a job's arguments as ``manage.py jobs push`` takes them."""
    args, kwargs = call
    if type(args) is not list or type(kwargs) is not dict:
        raise ValueError("no call")
    return {"args": args, "kwargs": kwargs} if kwargs else args


def _database_store() -> Any:
    try:
        return stores["database"]
    except Exception:
        return None
