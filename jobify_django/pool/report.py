"""One log line for each job that ended, always with the same keys; and the signal."""

from __future__ import annotations

import logging

from jobify_django.job import CANCELLED, FAILED, SUCCESSFUL, Outcome
from jobify_django.log import get_log
from jobify_django.pool.workers import Running
from jobify_django.signals import job_ended

logger = get_log("jobify.worker")

EVENTS = {SUCCESSFUL: "done", FAILED: "failed", CANCELLED: "cancelled"}


def heard() -> bool:
    """Whether anybody wants to hear of jobs that end well."""
    return bool(job_ended.receivers) or logger.isEnabledFor(logging.INFO)


def report(outcome: Outcome, running: Running, refusal: str = "") -> None:
    """Log how a job ended, and tell the receivers of ``job_ended``.

    Args:
        outcome: how it ended.
        running: the job.
        refusal: why that was not stored; empty if it was.
    """
    stored = not refusal
    failed = outcome.status is FAILED
    level = logging.INFO if stored and not failed else logging.ERROR if stored else logging.WARNING
    if logger.isEnabledFor(level):
        _log(level, outcome, running, refusal)
    if stored and job_ended.receivers:
        _tell(outcome)


def _tell(outcome: Outcome) -> None:
    try:
        answers = job_ended.send_robust(sender=outcome.task, outcome=outcome)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        # SystemExit of a receiver; or Django could not log what one raised: that needs the project's logging,
        # and a receiver with a name.
        logger.error(
            "event=receiver-failed error=%s: the receivers after it were not told",
            _described(error),
            exc_info=error,
        )
        return
    for receiver, answer in answers:
        if isinstance(answer, Exception):
            logger.error(
                "event=receiver-failed receiver=%s error=%s",
                _described(receiver),
                _described(answer),
                exc_info=answer,
            )


def _described(thing: object) -> str:
    """Return its ``repr``, or its type where that raises too."""
    try:
        return repr(thing)
    except Exception:
        return f"<{type(thing).__qualname__}>"


def _log(level: int, outcome: Outcome, running: Running, refusal: str) -> None:
    claim = running.claim
    event = "refused" if refusal else EVENTS[outcome.status]
    wait = max(0.0, claim.started_at - claim.eligible_at)
    fields = {
        "event": event,
        "id": claim.id,
        "task": claim.task,
        "queue": claim.queue,
        "attempt": claim.attempt,
        "wait": round(wait, 4),
        "run": round(running.seconds, 4),
    }
    line = " ".join(f"{key}={value}" for key, value in fields.items())
    if outcome.error is not None:
        # %r: a message must not be able to forge a line of its own.
        fields["error"] = f"{outcome.error.type}: {outcome.error.message}"
        line += f" error={fields['error']!r}"
    if refusal:
        fields["reason"] = refusal
        line += f" reason={refusal!r}"
    logger.log(level, "%s", line, extra={"jobify": fields})
