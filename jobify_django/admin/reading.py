"""The stores that pages read, and what a page says of one that fails."""

from __future__ import annotations

from django.utils.translation import gettext as _

from jobify_django.exceptions import JobifyError
from jobify_django.log import get_log
from jobify_django.outage import Outage
from jobify_django.stores import left_behind, reachable
from jobify_django.stores.base import Store

logger = get_log("jobify.admin")

_unreadable = Outage()

UNREADABLE_FOR = 10.0
"""Seconds after the last failure until a page that could read everything says so: others may ask for more."""


def listed_stores(problems: list[str]) -> list[Store]:
    """Return the stores whose jobs are listed: those that look the same from every process."""
    return [store for store in all_stores(problems) if store.shared]


def all_stores(problems: list[str]) -> list[Store]:
    """Return every store that may hold jobs; one that cannot be made is told in ``problems``."""
    found, failed = reachable()
    problems += map(problem, failed.values())
    return [*found, *left_behind(found)]


def problem(error: Exception) -> str:
    """Return what a page may say about an error; the log has all of it, once."""
    if (word := _unreadable.fail(error)) is not None:
        logger.warning(
            "event=store-unreadable times=%d: an admin page could not read a store",
            word.times,
            exc_info=error if word.new else None,
        )
    if isinstance(error, JobifyError):
        return str(error)
    return _("The store failed (%(type)s); the log has more.") % {"type": type(error).__name__}


def readable() -> None:
    """Note that a page could read all it wanted."""
    if times := _unreadable.over(UNREADABLE_FOR):
        logger.info("event=store-readable times=%d: an admin page could read every store again", times)
