"""One log line for each job that ended, always with the same keys; and the signal."""

from __future__ import annotations

import logging

from jobify_django.job import CANCELLED, FAILED, SUCCESSFUL
from jobify_django.log import get_log, quoted
from jobify_django.outcome import Outcome
from jobify_django.pool.slots import RunningJob
from jobify_django.signals import job_ended
from jobify_django.stores.value import Rescued

logger = get_log("jobify.worker")

EVENTS = {SUCCESSFUL: "done", FAILED: "failed", CANCELLED: "cancelled"}

JOB = "id=%s task=%s queue=%s attempt=%d wait=%r run=%r"
LINES = {
    ("done", False): f"event=done {JOB}",
    ("failed", True): f"event=failed {JOB} error=%r",
    ("cancelled", False): f"event=cancelled {JOB}",
    ("refused", False): f"event=refused {JOB} reason=%r",
    ("refused", True): f"event=refused {JOB} error=%r reason=%r",
}
"""The template of each event, with and without an error: a handler may group lines by it."""


def reports_successes() -> bool:
    """Whether jobs that end well are logged, or signalled to any receiver."""
    return bool(job_ended.receivers) or logger.isEnabledFor(logging.INFO)


def report(outcome: Outcome, running: RunningJob, refusal: str = "") -> None:
    """Log how a job ended, and tell the receivers of ``job_ended``; then the exception is let go.

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
        _send_signal(outcome, running.exception)
    running.exception = None


def _send_signal(outcome: Outcome, exception: BaseException | None) -> None:
    try:
        answers = job_ended.send_robust(sender=outcome.task, outcome=outcome, exception=exception)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        # SystemExit of a receiver; or Django could not log what one raised: that needs the project's logging,
        # and a receiver with a name.
        logger.error(
            "event=receiver-failed error=%s: the receivers after it were not told",
            quoted(error),
            exc_info=error,
        )
        return
    for receiver, answer in answers:
        if isinstance(answer, Exception):
            logger.error(
                "event=receiver-failed receiver=%s error=%s",
                quoted(receiver),
                quoted(answer),
                exc_info=answer,
            )


def _log(level: int, outcome: Outcome, running: RunningJob, refusal: str) -> None:
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
    values = [*map(quoted, (claim.id, claim.task, claim.queue)), claim.attempt, fields["wait"], fields["run"]]
    if outcome.error is not None:
        fields["error"] = f"{outcome.error.type}: {outcome.error.message}"
        values.append(fields["error"])
    if refusal:
        fields["reason"] = refusal
        values.append(refusal)
    logger.log(
        level,
        LINES[event, outcome.error is not None],
        *values,
        exc_info=running.exception,
        extra={"jobify": fields},
    )


def report_rescued(rescued: Rescued) -> None:
    """Log that a job was taken from a pool that no longer renews its lease."""
    logger.warning(
        "event=rescued id=%s task=%s attempt=%d from=%s now=%s",
        quoted(rescued.id),
        quoted(rescued.task),
        rescued.attempt,
        quoted(rescued.pool),
        rescued.status,
    )
