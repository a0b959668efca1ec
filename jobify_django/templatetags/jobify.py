"""Times and names in words, for the admin's pages."""

from __future__ import annotations

import math
from datetime import UTC, datetime

from django import template
from django.utils import timezone
from django.utils.formats import date_format, number_format, time_format
from django.utils.html import conditional_escape, format_html
from django.utils.safestring import SafeString, mark_safe
from django.utils.translation import gettext as _

from jobify_django.payload import cut

register = template.Library()

NONE = "–"
LONGEST_NAME = 255


@register.filter("jobify_duration")
def duration(seconds: float | None) -> str:
    """Return seconds as ``80 ms``, ``1.4 s``, ``2 min 10 s``, ``1 h 5 min`` or ``3 d 4 h``."""
    if not isinstance(seconds, (int, float)) or not math.isfinite(seconds):
        return NONE
    seconds = max(0.0, seconds)
    if seconds < 0.9995:
        return _("%(milliseconds)d ms") % {"milliseconds": round(1000 * seconds)}
    if seconds < 9.95:
        # Rounded here: number_format cuts off.
        return _("%(seconds)s s") % {"seconds": number_format(round(seconds, 1), 1)}
    whole = round(seconds)
    if whole < 60:
        return _("%(seconds)s s") % {"seconds": whole}
    if whole < 3600:
        return _("%(minutes)d min %(seconds)d s") % {"minutes": whole // 60, "seconds": whole % 60}
    if whole < 86_400:
        return _("%(hours)d h %(minutes)d min") % {"hours": whole // 3600, "minutes": whole % 3600 // 60}
    return _("%(days)d d %(hours)d h") % {"days": whole // 86_400, "hours": whole % 86_400 // 3600}


@register.filter("jobify_moment")
def moment(seconds: float | None) -> datetime | None:
    """Return seconds since the epoch as a local date and time; ``None`` for what is no time."""
    try:
        return None if seconds is None else timezone.localtime(datetime.fromtimestamp(seconds, UTC))
    except (OverflowError, ValueError, OSError, TypeError):
        return None


@register.filter("jobify_time")
def stamp(seconds: float | None) -> str:
    """Return seconds since the epoch as a ``<time>`` element, to the second."""
    at = moment(seconds)
    if at is None:
        return NONE
    day, clock = date_format(at, "DATE_FORMAT"), time_format(at, "H:i:s")
    return format_html('<time datetime="{}">{} {}</time>', at.isoformat(timespec="milliseconds"), day, clock)


@register.filter("jobify_name")
def breakable(dotted: str) -> SafeString:
    """Return a dotted name that may break after its dots, and not in the middle of a word."""
    return mark_safe(conditional_escape(short(dotted, LONGEST_NAME)).replace(".", ".<wbr>"))


@register.filter("jobify_text")
def short(text: str, limit: int) -> str:
    """Return a text from a row so that any page can show it: at most so many characters of it."""
    shown = cut(text, limit)
    return f"{shown.text}…" if shown.left_out else shown.text
