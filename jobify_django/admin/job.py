"""The list of jobs, and a page for each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.utils import quote, unquote
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.utils.html import format_html
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from jobify_django import models
from jobify_django.admin import action
from jobify_django.admin.filter import QueueFilter, StatusFilter, TaskFilter
from jobify_django.admin.job_list import CappedPaginator, Found, JobList, JobRows, job_of, may_be_id
from jobify_django.admin.page import ReadOnlyAdmin
from jobify_django.admin.reading import all_stores, answers, listed_stores, problem
from jobify_django.admin.timeline import MOST_EVENTS, run_words, timeline, wait_words
from jobify_django.admin.words import status_label
from jobify_django.conf import get_settings
from jobify_django.job import JobRecord, JobStatus
from jobify_django.payload import cut, shown
from jobify_django.stores.value import JobQuery
from jobify_django.templatetags.jobify import breakable, stamp

MOST_AT_ONCE = 1_000
"""Jobs one action takes; more would hold a write transaction, and this request, for too long."""

LONGEST_MESSAGE = 5_000
"""Characters of an error's message on a page."""

PARAMETERS = ("status", "queue", "task")


@admin.register(models.Job)
class JobAdmin(ReadOnlyAdmin):
    """Looks at jobs, retries and cancels them."""

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
    list_page = "jobify_django_job_changelist"
    job_template = "admin/jobify_django/job.html"

    class Media:
        css = {"all": ("jobify_django/jobify.css",)}

    def has_retry_permission(self, request: HttpRequest) -> bool:
        """Whether the user may retry jobs, which is to run code again."""
        return request.user.has_perm("jobify_django.retry_job")

    def has_cancel_permission(self, request: HttpRequest) -> bool:
        """Whether the user may cancel jobs."""
        return request.user.has_perm("jobify_django.cancel_job")

    # The list

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[JobList]:
        return JobList

    def get_queryset(self, request: HttpRequest) -> JobRows:  # type: ignore[override]
        def show_error(words: str) -> None:
            self.message_user(request, words, messages.ERROR)

        problems: list[str] = []
        stores = listed_stores(problems)
        for words in problems:
            show_error(words)
        return JobRows(stores, lambda error: show_error(problem(error)), JobQuery(payload=False))

    def get_object(
        self, request: HttpRequest, object_id: str, from_field: str | None = None
    ) -> models.Job | None:
        """Return a job of any store, as far as the page of its log entries asks for it."""
        try:
            return job_of(self._find(object_id).job)
        except Http404:
            return None

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest | None = None) -> bool:
        # By default every column could be asked about: "?arguments__contains=…" would read what is hidden.
        return lookup in PARAMETERS

    @admin.display(description=gettext_lazy("status"))
    def state(self, job: models.Job) -> str:
        return format_html(
            '<span class="jobify-state jobify-{}">{}</span>', job.status, status_label(job.status)
        )

    @admin.display(description=gettext_lazy("task"))
    def name(self, job: models.Job) -> str:
        return breakable(job.task)

    @admin.display(description=gettext_lazy("pushed"), ordering="id")
    def pushed(self, job: models.Job) -> str:
        return stamp(job.pushed_at)

    @admin.display(description=gettext_lazy("wait"))
    def wait(self, job: models.Job) -> str:
        return wait_words(job)

    @admin.display(description=gettext_lazy("duration"))
    def duration(self, job: models.Job) -> str:
        return run_words(job)

    # Actions

    @admin.action(description=gettext_lazy("Retry the selected jobs"), permissions=["retry"])
    def retry_jobs(self, request: HttpRequest, queryset: JobRows) -> None:
        """Make failed and cancelled jobs wait again."""
        self._act_on_many(request, queryset, action.retry)

    @admin.action(description=gettext_lazy("Cancel the selected jobs"), permissions=["cancel"])
    def cancel_jobs(self, request: HttpRequest, queryset: JobRows) -> None:
        """Cancel jobs that have not started, and ask running ones to stop."""
        self._act_on_many(request, queryset, action.cancel)

    def _act_on_many(self, request: HttpRequest, queryset: JobRows, act: action.Act) -> None:
        jobs = queryset.found(0, MOST_AT_ONCE + 1)
        tally = act(jobs[:MOST_AT_ONCE])
        text = tally.text
        if len(jobs) > MOST_AT_ONCE:
            more = ngettext(
                "One action takes %(most)d job; run it again for the others.",
                "One action takes %(most)d jobs; run it again for the others.",
                MOST_AT_ONCE,
            )
            text += " " + more % {"most": MOST_AT_ONCE}
        self._show_messages(request, tally, text)
        # One entry a queue, not one a job.
        for name in tally.done | tally.asked:
            self.log_change(request, models.Queue(name=name), text)

    def _show_messages(self, request: HttpRequest, tally: action.Tally, text: str) -> None:
        self.message_user(request, text, messages.WARNING if tally.without_effect else messages.SUCCESS)
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
        job = self._find(unquote(object_id)).job
        again = job.status in (JobStatus.FAILED, JobStatus.CANCELLED)
        context = {
            **self.page_context(request, _("Job %(id)s") % {"id": job.id}),
            "job": job,
            "state": status_label(job.status),
            "wait": wait_words(job),
            "duration": run_words(job),
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
        return self._act_on_one(request, object_id, self.has_retry_permission, action.retry)

    def cancel_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Cancel one job."""
        return self._act_on_one(request, object_id, self.has_cancel_permission, action.cancel)

    def _act_on_one(
        self, request: HttpRequest, object_id: str, allowed: Callable[[HttpRequest], bool], act: action.Act
    ) -> HttpResponse:
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        if not self.has_view_permission(request) or not allowed(request):
            raise PermissionDenied
        found = self._find(unquote(object_id))
        job, tally = found.job, act([found])
        self._show_messages(request, tally, tally.text)
        if tally.changed:
            self.log_change(request, job_of(job), tally.text)
        return HttpResponseRedirect(self.address("jobify_django_job_change", quote(job.id)))

    def _find(self, id: str) -> Found:
        """Return a job of any store, and its store; raises ``Http404``."""
        problems: list[str] = []
        stores = all_stores(problems)
        if may_be_id(id):
            for store, jobs in answers(stores, lambda store: store.get((id,)), problems):
                if id in jobs:
                    return Found(store, jobs[id])
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
        return self.address("jobify_django_queue_change", queue) if sees and known else ""


def _as_pushed(call: Any) -> Any:
    """Return a job's arguments as ``manage.py jobs push`` takes them."""
    args, kwargs = call
    if type(args) is not list or type(kwargs) is not dict:
        raise ValueError("no call")
    return {"args": args, "kwargs": kwargs} if kwargs else args
