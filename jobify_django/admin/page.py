"""What every page of ours has: the site's context, breadcrumbs, and addresses on the site it stands on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import django
from django.apps import apps
from django.contrib.admin import ModelAdmin
from django.http import HttpRequest
from django.urls import reverse
from django.utils.text import capfirst
from django.utils.translation import gettext as _

from jobify_django.models import Job

REFRESH = 5
"""Seconds between two looks of a page that keeps itself up to date."""

REFRESH_HEADER = "X-Jobify-Refresh"
"""Set by jobify.js: only the parts that change are wanted, and no message may be used up."""

if TYPE_CHECKING:
    AnyModelAdmin = ModelAdmin[Any]
else:
    AnyModelAdmin = ModelAdmin


class ReadOnlyAdmin(AnyModelAdmin):
    """Never adds, edits or deletes what it shows."""

    list_page: str
    """The name of the page that the others stand below."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def page_context(self, request: HttpRequest, title: str = "") -> dict[str, Any]:
        """Return what a template that extends ``admin/base_site.html`` needs.

        Args:
            request: the request; templates resolve admin addresses on this site from then on.
            title: the page's title, and its last breadcrumb; ``list_page`` has that of its model.
        """
        request.current_app = self.admin_site.name
        app = apps.get_app_config("jobify_django")
        crumbs = [
            (_("Home"), self.address("index")),
            (str(app.verbose_name), self.address("app_list", app.label)),
        ]
        plural = capfirst(str(self.opts.verbose_name_plural))
        if title:
            crumbs.append((plural, self.address(self.list_page)))
        return {
            **self.admin_site.each_context(request),
            "title": title or plural,
            "crumbs": crumbs,
            "crumbs_in_a_list": django.VERSION >= (6, 1),
            "refresh": REFRESH,
            "refresh_header": REFRESH_HEADER,
        }

    def address(self, name: str, *args: str) -> str:
        """Return the path of an admin page on this site."""
        return reverse(f"admin:{name}", args=args, current_app=self.admin_site.name)

    def jobs_address(self, request: HttpRequest) -> str:
        """Return the path of the jobs' list, or nothing where this user or site has none."""
        if not self.admin_site.is_registered(Job) or not request.user.has_perm("jobify_django.view_job"):
            return ""
        return self.address("jobify_django_job_changelist")
