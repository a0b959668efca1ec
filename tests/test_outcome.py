"""The one rule of what becomes of a job, without any store."""

from __future__ import annotations

import pytest

from jobify_django.job import CANCELLED, DELAYED, FAILED, SUCCESSFUL, WAITING, Claim, JobError, JobStatus
from jobify_django.outcome import (
    CRASH_LIMIT,
    LEASE_RAN_OUT,
    RAN_OUT_IN_OUTAGE,
    Outcome,
    cancelled,
    crash_error,
    crashed,
    expired,
    failed,
    next_state,
    released,
    retried,
    succeeded,
)

NOW = 1_800_000_000.0
ERROR = JobError("builtins.ValueError", "no")
CLAIM = Claim("an-id", 3, "mail", "app.tasks.send", "[[],{}]", 0, NOW, NOW, NOW, 1)
FLAGGED = CLAIM._replace(flags=2)


@pytest.mark.parametrize(
    ("outcome", "happened", "status"),
    [
        (succeeded(CLAIM, "1"), "succeeded", SUCCESSFUL),
        (failed(CLAIM, ERROR), "failed", FAILED),
        (cancelled(CLAIM), "cancelled", CANCELLED),
        (released(CLAIM, "it stopped"), "released", WAITING),
        (released(CLAIM, "not yet", until=NOW + 1), "released", DELAYED),
        (crashed(CLAIM), "crashed", WAITING),
        (retried(CLAIM), "retried", WAITING),
    ],
)
def test_an_outcome_tells_the_cause_and_the_consequence(
    outcome: Outcome, happened: str, status: JobStatus
) -> None:
    assert outcome[:4] == ("an-id", 3, "mail", "app.tasks.send")
    assert (outcome.happened, outcome.status) == (happened, status)
    assert outcome.needs_no_row is status.ended
    assert outcome.charged is (happened == "crashed")


@pytest.mark.parametrize("made", [succeeded, failed, cancelled, crashed, retried])
def test_the_outcome_of_a_flagged_job_is_flagged_and_never_plain(made: object) -> None:
    outcome: Outcome = made(FLAGGED)  # type: ignore[operator]

    assert (outcome.flags, outcome.needs_no_row) == (2, False)


@pytest.mark.parametrize(
    ("outcome", "crashes", "asked", "becomes"),
    [
        (succeeded(CLAIM, "1"), 0, False, (SUCCESSFUL, None, 0)),
        # It ended before it heard of the cancel.
        (succeeded(CLAIM, "1"), 2, True, (SUCCESSFUL, None, 2)),
        (failed(CLAIM, ERROR), 1, True, (FAILED, ERROR, 1)),
        (cancelled(CLAIM), 1, True, (CANCELLED, None, 1)),
        (released(CLAIM, "it stopped"), 2, False, (WAITING, None, 2)),
        (released(CLAIM, "it stopped"), 2, True, (CANCELLED, None, 2)),
        (released(CLAIM, "not yet", until=NOW + 1), 0, False, (DELAYED, None, 0)),
        (released(CLAIM, "not yet", until=NOW + 1), 0, True, (CANCELLED, None, 0)),
        (released(CLAIM, "no more", until=NOW), 0, False, (WAITING, None, 0)),
        (crashed(CLAIM), 0, False, (WAITING, None, 1)),
        (crashed(CLAIM), 0, True, (CANCELLED, None, 1)),
        (crashed(CLAIM), CRASH_LIMIT - 1, False, (FAILED, crash_error(CRASH_LIMIT), CRASH_LIMIT)),
        (crashed(CLAIM), CRASH_LIMIT - 1, True, (FAILED, crash_error(CRASH_LIMIT), CRASH_LIMIT)),
        (crashed(CLAIM), CRASH_LIMIT, False, (FAILED, crash_error(CRASH_LIMIT + 1), CRASH_LIMIT + 1)),
        (retried(CLAIM), 2, True, (WAITING, None, 0)),
    ],
)
def test_what_becomes_of_a_job(
    outcome: Outcome, crashes: int, asked: bool, becomes: tuple[object, ...]
) -> None:
    assert next_state(outcome, crashes=crashes, cancel_requested=asked, now=NOW) == becomes


@pytest.mark.parametrize(
    ("lease_until", "outage", "charged"),
    [
        (NOW, None, True),
        (NOW, (NOW - 1, NOW + 1), False),
        (NOW, (NOW, NOW + 1), True),
        (NOW, (NOW - 1, NOW), False),
        (NOW, (NOW - 2, NOW - 1), True),
        (None, (NOW - 1, NOW + 1), True),
    ],
)
def test_a_lease_that_ran_out_while_the_store_was_away_is_no_crash(
    lease_until: float | None, outage: tuple[float, float] | None, charged: bool
) -> None:
    outcome = expired(CLAIM, lease_until, outage)

    assert (outcome.charged, outcome.reason) == (charged, LEASE_RAN_OUT if charged else RAN_OUT_IN_OUTAGE)
