"""Statuses, live values and their changes in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from jobify_django.models import Job
from jobify_django.ordering import Order

ORDER_LABELS: dict[Order, Promise] = {
    "priority": gettext_lazy("by priority"),
    "fifo": gettext_lazy("first in, first out"),
    "lifo": gettext_lazy("last in, first out"),
}
LABELS: dict[str, Promise] = {
    "workers": gettext_lazy("workers"),
    "maxsize": gettext_lazy("maxsize"),
    "order": gettext_lazy("order"),
    "paused": gettext_lazy("paused"),
}


def change_words(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """Return the values that differ, as ``workers: 10 → 4``."""
    words = [
        f"{LABELS[key]}: {value_label(key, before.get(key))} → {value_label(key, after.get(key))}"
        for key in LABELS
        if before.get(key) != after.get(key)
    ]
    return "; ".join(words) or _("no value changed")


def value_label(key: str, value: object) -> str:
    """Return a live value in words; ``None`` is the settings' value."""
    if key == "paused":
        return _("yes") if value else _("no")
    if value is None:
        return _("as in the settings")
    return str(ORDER_LABELS.get(value, value)) if key == "order" else str(value)  # type: ignore[call-overload]


def status_label(status: str) -> str:
    """Return a job's status in words; one of a newer release is named as it is stored."""
    labels = dict(Job.Status.choices)
    return str(labels.get(status) or _("unknown status “%(status)s”") % {"status": status})
