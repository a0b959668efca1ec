"""What happened to a job, in order, and how long it waited and ran."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from django.utils.translation import gettext as _

from jobify_django.admin.words import status_label
from jobify_django.job import DELAYED, RUNNING, WAITING, JobRecord
from jobify_django.models import Job
from jobify_django.payload import cut
from jobify_django.templatetags.jobify import duration

MOST_EVENTS = 100
"""Entries of a job's history in its timeline; one that is handed back at every deploy has more and more."""


@dataclass(frozen=True, slots=True)
class Event:
    """One line of a job's timeline."""

    at: float
    words: str
    detail: str = ""


def timeline(job: JobRecord) -> Sequence[Event]:
    """Return what happened to a job, in order: of its history the newest."""
    events = [Event(job.pushed_at, _("pushed"))]
    if job.eligible_at > job.pushed_at:
        ahead = job.status is DELAYED
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


def wait_words(job: JobRecord | Job) -> str:
    """Return how long a job waited, or has waited so far; or when it will be eligible."""
    now = time.time()
    if job.status == DELAYED and job.eligible_at > now:
        return _("due in %(duration)s") % {"duration": duration(job.eligible_at - now)}
    if job.status in (WAITING, DELAYED):
        return duration(now - job.eligible_at)
    until = job.started_at if job.started_at is not None else job.ended_at
    return duration(None if until is None else until - job.eligible_at)


def run_words(job: JobRecord | Job) -> str:
    """Return how long a job's latest attempt took, or has taken so far."""
    if job.started_at is None or job.status in (WAITING, DELAYED):
        return duration(None)
    end = time.time() if job.status == RUNNING else job.ended_at
    return duration(None if end is None else end - job.started_at)
