"""What every page of ours has: the site's context, breadcrumbs, and addresses on the site it stands on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import django
from django.apps import apps
from django.contrib.admin import AdminSite, ModelAdmin
from django.db.models import Model
from django.http import HttpRequest
from django.urls import reverse
from django.utils.translation import gettext as _

from jobify_django.models import Job, Overview

REFRESH = 5
"""Seconds between two looks of a page that keeps itself up to date."""

REFRESH_HEADER = "X-Jobify-Refresh"
"""Set by jobify.js: only the parts that change are wanted, and no message may be used up."""

Crumb = tuple[str, str]

if TYPE_CHECKING:
    AnyModelAdmin = ModelAdmin[Any]
else:
    AnyModelAdmin = ModelAdmin


class LookingAdmin(AnyModelAdmin):
    """Never adds, edits or deletes what it shows."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


def context(
    site: AdminSite, request: HttpRequest, title: str, crumbs: Sequence[Crumb] = ()
) -> dict[str, Any]:
    """Return what a template that extends ``admin/base_site.html`` needs.

    Args:
        site: the admin site the page stands on.
        request: the request; templates resolve admin addresses on ``site`` from then on.
        title: the page's title, and its last breadcrumb.
        crumbs: label and address of the pages between the app's index and this one.
    """
    request.current_app = site.name
    app = apps.get_app_config("jobify_django")
    home = [
        (_("Home"), address(site, "index")),
        (str(app.verbose_name), address(site, "app_list", app.label)),
    ]
    return {
        **site.each_context(request),
        "title": title,
        "crumbs": [*home, *crumbs],
        "crumbs_in_a_list": django.VERSION >= (6, 1),
        "refresh": REFRESH,
        "refresh_header": REFRESH_HEADER,
    }


def overview_crumb(site: AdminSite) -> Crumb:
    """Return the breadcrumb of the overview."""
    return plural(Overview), address(site, "jobify_django_overview_changelist")


def plural(model: type[Model]) -> str:
    """Return a model's name as a title."""
    words = str(model._meta.verbose_name_plural)
    return words[:1].upper() + words[1:]


def address(site: AdminSite, name: str, *args: str) -> str:
    """Return the path of an admin page on this site."""
    return reverse(f"admin:{name}", args=args, current_app=site.name)


def jobs_address(site: AdminSite, request: HttpRequest) -> str:
    """Return the path of the jobs' list, or nothing where this user or site has none."""
    if not site.is_registered(Job) or not request.user.has_perm("jobify_django.view_job"):
        return ""
    return address(site, "jobify_django_job_changelist")
