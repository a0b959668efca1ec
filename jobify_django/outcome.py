"""Outcomes: how an attempt ended, as values that keep cause and consequence apart, and the one rule of what
becomes of the job.

Whenever a running job ends or waits again, and when an ended one is retried by hand, one of the functions
below makes an ``Outcome`` of it. Pools hand theirs to ``Store.settle`` and ``Store.claim``; ``rescue``,
``reconcile`` and ``retry`` of a store make their own. ``next_state`` says what becomes of the job in each
case; a store need not call it for an outcome that ends its job. (A job that has not started is cancelled
without an outcome: there was no attempt.)
"""

from __future__ import annotations

from typing import Literal, NamedTuple, Protocol

from jobify_django.job import CANCELLED, DELAYED, ENDED, FAILED, SUCCESSFUL, WAITING, JobError, JobStatus

Happened = Literal["succeeded", "failed", "cancelled", "released", "crashed", "retried"]

CRASH_LIMIT = 3
"""A job that was running this often when its pool died is failed instead of being run again."""

# Why an attempt ended that did not end its job, in words for the job's history.
LEASE_RAN_OUT = "its worker's lease ran out"
RAN_OUT_IN_OUTAGE = "its worker's lease ran out while the store was away"
LOST_REPLY = "the reply to its claim was lost"
RETRIED = "retried by hand"


class Attempt(Protocol):
    """What an outcome needs of an attempt. A ``Claim`` has it, and a ``JobRecord`` of its latest attempt."""

    @property
    def id(self) -> str:
        """The job's id."""

    @property
    def attempt(self) -> int:
        """The attempt's number."""

    @property
    def queue(self) -> str:
        """The job's queue."""

    @property
    def task(self) -> str:
        """The task's name."""

    @property
    def flags(self) -> int:
        """Bits that tell ``settle`` to read the job before it stores its end; 0, as every push has it so far,
        for none."""


class Outcome(NamedTuple):
    """How an attempt ended. It is stored only if this attempt still holds the job.

    Attributes:
        id, attempt, queue, task: which attempt it was.
        happened: the cause.
        status: the consequence: an ended status ends the job, ``WAITING`` lets it wait again at its old
            place, and ``DELAYED`` lets it wait until ``until``.
        result: what the function returned, as JSON text.
        error: how it failed.
        reason: why an attempt ended that did not end the job, in words for its history.
        until: when the job is eligible again (a worker may start it), in seconds since the epoch on the
            store's clock.
        pool: the pool that must hold the job; empty if the attempt's number is enough.
        flags: those of the claim. With any of them the store locks and reads the row first.
    """

    id: str
    attempt: int
    queue: str
    task: str
    happened: Happened
    status: JobStatus
    result: str | None = None
    error: JobError | None = None
    reason: str = ""
    until: float | None = None
    pool: str = ""
    flags: int = 0

    @property
    def charged(self) -> bool:
        """Whether it is charged to the job: it counts as one of its crashes (``CRASH_LIMIT``)."""
        return self.happened == "crashed"

    @property
    def needs_no_row(self) -> bool:
        """Whether it can be stored without reading the job: it ends the job, and the job has no flags."""
        status = self.status  # compared by identity: an enum's hash takes four times as long
        return not self.flags and (status is SUCCESSFUL or status is FAILED or status is CANCELLED)


def succeeded(attempt: Attempt, result: str | None = None) -> Outcome:
    """Return the outcome of a function that returned; ``result`` is the value as JSON text."""
    return _of(attempt, "succeeded", SUCCESSFUL, result)


def failed(attempt: Attempt, error: JobError | None = None) -> Outcome:
    """Return the outcome of a function that raised."""
    return _of(attempt, "failed", FAILED, error=error)


def cancelled(attempt: Attempt) -> Outcome:
    """Return the outcome of a function that was cancelled while it ran, as somebody had asked."""
    return _of(attempt, "cancelled", CANCELLED)


def released(attempt: Attempt, reason: str, *, pool: str = "", until: float | None = None) -> Outcome:
    """Return the outcome of an attempt that ended through no fault of the job: it counts as no crash, and the
    job waits again.

    Args:
        attempt: the attempt.
        reason: why it ended, in words for the job's history.
        pool: the pool that must hold the job; empty if the attempt's number is enough.
        until: when the job is eligible again, in seconds since the epoch; ``None`` is at once.
    """
    status = WAITING if until is None else DELAYED
    return _of(attempt, "released", status, reason=reason, until=until, pool=pool)


def crashed(attempt: Attempt, reason: str = LEASE_RAN_OUT) -> Outcome:
    """Return the outcome of an attempt whose pool died, or froze past its lease."""
    return _of(attempt, "crashed", WAITING, reason=reason)


def expired(attempt: Attempt, lease_until: float | None, outage: tuple[float, float] | None) -> Outcome:
    """Return the outcome of an attempt whose lease ran out: a crash, or a release if the store could not
    be reached then.

    Args:
        attempt: the attempt.
        lease_until: when its lease ran out, on the store's clock.
        outage: when the store could not be reached (from, until), on its clock. A pool that was alive could
            not renew a lease then.
    """
    if outage is not None and lease_until is not None and outage[0] < lease_until <= outage[1]:
        return released(attempt, RAN_OUT_IN_OUTAGE)
    return crashed(attempt)


def retried(attempt: Attempt, reason: str = RETRIED) -> Outcome:
    """Return the outcome by which a failed or cancelled job waits again, with its crashes set to 0."""
    return _of(attempt, "retried", WAITING, reason=reason)


def _of(
    a: Attempt,
    happened: Happened,
    status: JobStatus,
    result: str | None = None,
    error: JobError | None = None,
    reason: str = "",
    until: float | None = None,
    pool: str = "",
) -> Outcome:
    # Made for every job: the class's own constructor takes a third longer (0.51 against 0.37 microseconds).
    return tuple.__new__(
        Outcome,
        (a.id, a.attempt, a.queue, a.task, happened, status, result, error, reason, until, pool, a.flags),
    )


class NextState(NamedTuple):
    """What becomes of a job: its status, its error, and how many crashes it has."""

    status: JobStatus
    error: JobError | None
    crashes: int


def next_state(outcome: Outcome, *, crashes: int, cancel_requested: bool, now: float) -> NextState:
    """Return what becomes of a job by an outcome of its latest attempt. Every store goes by this rule.

    Args:
        outcome: how the attempt ended.
        crashes: the job's crashes so far.
        cancel_requested: whether somebody has asked to cancel the job. Then it is cancelled instead of
            waiting again.
        now: the time on the store's clock.
    """
    if outcome.status in ENDED:
        return NextState(outcome.status, outcome.error, crashes)
    if outcome.happened == "retried":
        return NextState(WAITING, None, 0)
    crashes += outcome.charged
    if outcome.charged and crashes >= CRASH_LIMIT:
        return NextState(FAILED, crash_error(crashes), crashes)
    if cancel_requested:
        return NextState(CANCELLED, None, crashes)
    later = outcome.until is not None and outcome.until > now
    return NextState(DELAYED if later else WAITING, None, crashes)


def crash_error(times: int) -> JobError:
    """Return the error of a job that is failed because its pool died, for the last of so many times."""
    return JobError(
        "jobify_django.Crashed",
        f"crashed its worker {times} times: the process that ran it died, or froze past its lease. "
        "Retry it by hand once the cause is mended.",
    )
