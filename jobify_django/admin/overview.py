"""The overview of all queues, and a page a queue that tunes it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any, NamedTuple

from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.http import (
    Http404,
    HttpRequest,
    HttpResponse,
    HttpResponseBase,
    HttpResponseNotAllowed,
    HttpResponseRedirect,
)
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.utils.cache import patch_vary_headers
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from jobify_django import models
from jobify_django.admin.form import TuningForm
from jobify_django.admin.page import REFRESH_HEADER, ReadOnlyAdmin
from jobify_django.admin.reading import newest_changes, newest_failures, problem, readable
from jobify_django.admin.row import QueueRow, former_row, pool_rows, queue_row, queue_rows
from jobify_django.admin.words import change_words
from jobify_django.conf import get_settings
from jobify_django.exceptions import InvalidTuning, StaleVersion, StoreError
from jobify_django.queue import Queue, queue
from jobify_django.stores import stores
from jobify_django.stores.value import QueueState


class Change(NamedTuple):
    """What a button of a queue's page does.

    Attributes:
        act: does it.
        wanted: whether that would change anything.
        done: says that it was done.
        nothing: says that there was nothing to do.
    """

    act: Callable[..., QueueState]
    wanted: Callable[[QueueState], bool]
    done: Promise
    nothing: Promise


CHANGES = {
    "reset": Change(
        Queue.reset,
        wanted=lambda state: (state.workers, state.maxsize, state.order) != (None, None, None),
        done=gettext_lazy("Queue %(name)s is as the settings say again."),
        nothing=gettext_lazy("Queue %(name)s already was as the settings say."),
    ),
    "pause": Change(
        Queue.pause,
        wanted=lambda state: not state.paused,
        done=gettext_lazy("Queue %(name)s is paused: running jobs finish, pushes are still taken."),
        nothing=gettext_lazy("Queue %(name)s already was paused."),
    ),
    "resume": Change(
        Queue.resume,
        wanted=lambda state: state.paused,
        done=gettext_lazy("Queue %(name)s is resumed."),
        nothing=gettext_lazy("Queue %(name)s was not paused."),
    ),
}


@admin.register(models.Overview)
class OverviewAdmin(ReadOnlyAdmin):
    """Shows every queue in every store, and tunes, pauses and resumes it."""

    list_page = "jobify_django_overview_changelist"
    overview_template = "admin/jobify_django/overview.html"
    queue_template = "admin/jobify_django/queue.html"

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Whether the user may see queues. As everywhere in the admin, who may change may also see."""
        return request.user.has_perm("jobify_django.view_queue") or self.has_tune_permission(request)

    def has_tune_permission(self, request: HttpRequest) -> bool:
        """Whether the user may tune, pause and resume queues."""
        return request.user.has_perm("jobify_django.tune_queue")

    def get_urls(self) -> list[URLPattern]:
        def address(route: str, view: Callable[..., HttpResponseBase], name: str) -> URLPattern:
            return path(route, self.admin_site.admin_view(view), name=f"jobify_django_{name}")

        # The name "queue_change" makes the admin's log entries about a queue link to its page.
        return [
            address("", self.changelist_view, "overview_changelist"),
            address("queue/<str:name>/", self.queue_view, "queue_change"),
            *(
                address(f"queue/<str:name>/{verb}/", partial(self._change, change), f"queue_{verb}")
                for verb, change in CHANGES.items()
            ),
        ]

    # The overview

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Show all queues, the pools alive, and the newest failures."""
        if request.method not in ("GET", "HEAD"):
            return HttpResponseNotAllowed(["GET", "HEAD"])
        if not self.has_view_permission(request):
            raise PermissionDenied
        rows = queue_rows()
        sees_jobs = request.user.has_perm("jobify_django.view_job")
        failures, problems = newest_failures() if sees_jobs else ([], [])
        if not problems and not any(row.problem for row in rows):
            readable()
        context = {
            **self.page_context(request),
            "rows": rows,
            "pools": pool_rows(rows),
            "sees_jobs": sees_jobs,
            "sees_payload": request.user.has_perm("jobify_django.view_job_payload"),
            "jobs_address": self.jobs_address(request),
            "failures": failures,
            "problems": [words for words in problems if words not in {row.problem for row in rows}],
            "seen_at": time.time(),
            **(extra_context or {}),
        }
        return self._answer(request, self.overview_template, context)

    # The page of one queue

    def queue_view(self, request: HttpRequest, name: str) -> HttpResponse:
        """Show a queue; a POST tunes it."""
        if request.method not in ("GET", "HEAD", "POST"):
            return HttpResponseNotAllowed(["GET", "HEAD", "POST"])
        tunes = request.method == "POST"
        if not (self.has_tune_permission(request) if tunes else self.has_view_permission(request)):
            raise PermissionDenied
        if tunes:
            return self._tune(request, self._find(name))
        former = None if _known(name) else former_row(unquote(name)) or former_row(name)
        return self._show(request, queue_row(self._find(name).name) if former is None else former)

    # Inside

    def _show(self, request: HttpRequest, row: QueueRow, form: TuningForm | None = None) -> HttpResponse:
        may_tune = self.has_tune_permission(request) and not row.unconfigured
        if may_tune and form is None and row.stats is not None:
            form = TuningForm(row.settings, row.stats.state)
        changes, problems = [], []
        kept = row.stats is not None and stores.of(row.settings).keeps_changes
        if kept:
            try:
                changes = newest_changes(stores.of(row.settings), row.name)
            except Exception as error:
                problems.append(problem(error))
        listed = row.stats is not None and row.shared
        context = {
            **self.page_context(request, _("Queue %(name)s") % {"name": row.name}),
            "row": row,
            "rows": [row],
            "pools": pool_rows([row]),
            "form": form,
            "may_tune": may_tune,
            "changes": changes,
            "keeps_changes": kept,
            "problems": problems,
            "jobs_address": self.jobs_address(request) if listed else "",
            "seen_at": time.time(),
        }
        return self._answer(request, self.queue_template, context)

    def _tune(self, request: HttpRequest, found: Queue) -> HttpResponse:
        try:
            form = TuningForm(found.settings, _state(found), request.POST)
            self._tune_by(form, request, found)
        except StoreError as error:
            messages.error(request, str(error))
            return self._back(found)
        return self._back(found) if form.is_valid() else self._show(request, queue_row(found.name), form)

    def _tune_by(self, form: TuningForm, request: HttpRequest, found: Queue) -> None:
        """Apply a form; what is wrong with it becomes an error of it."""
        if not form.is_valid():
            return
        if not form.changes:
            messages.info(request, _("Nothing was changed."))
            return
        actor, version = request.user.get_username(), form.state.version
        try:
            after = found.tune(**form.changes, actor=actor, source="admin", expected=version)
        except StaleVersion as stale:  # changed since the form was compared
            form.refuse(stale.version)
        except InvalidTuning as error:
            form.add_error(None, str(error))
        else:
            self._log(request, form.state, after)
            messages.success(request, _("Queue %(name)s is tuned.") % {"name": found.name})

    def _change(self, change: Change, request: HttpRequest, name: str) -> HttpResponse:
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        if not self.has_tune_permission(request):
            raise PermissionDenied
        found = self._find(name)
        try:
            before = _state(found)
            if change.wanted(before):
                actor = request.user.get_username()
                after = change.act(found, actor=actor, source="admin", expected=before.version)
                self._log(request, before, after)
                messages.success(request, change.done % {"name": found.name})
            else:
                messages.info(request, change.nothing % {"name": found.name})
        except (StaleVersion, StoreError) as error:
            messages.error(request, str(error))
        return self._back(found)

    def _log(self, request: HttpRequest, before: QueueState, after: QueueState) -> None:
        words = change_words(asdict(before), asdict(after))
        self.log_change(request, models.Queue(name=after.queue), words)

    def _find(self, name: str) -> Queue:
        if (known := _known(name)) is None:
            raise Http404(_("There is no such queue."))
        return queue(known)

    def _back(self, found: Queue) -> HttpResponse:
        return HttpResponseRedirect(self.address("jobify_django_queue_change", found.name))

    def _answer(self, request: HttpRequest, template: str, context: dict[str, Any]) -> HttpResponse:
        if request.headers.get(REFRESH_HEADER):
            template = template.replace(".html", "_body.html")
        response = TemplateResponse(request, template, context)
        patch_vary_headers(response, [REFRESH_HEADER])
        return response


def _known(name: str) -> str | None:
    """Return the queue of the settings that a page's address names."""
    # The links of the admin's log entries are quoted: "user_5Fflow".
    return next((given for given in (name, unquote(name)) if given in get_settings().queues), None)


def _state(found: Queue) -> QueueState:
    return found.store.sync("", [found.name]).states[found.name]
