"""Why an attempt's end was not stored: what the log says of it is true."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from typing import Any

import pytest

from jobify_django import Job, JobStatus, StoreError, queue, task
from jobify_django.job import Claim, JobError
from jobify_django.models import Job as Row
from jobify_django.outcome import CRASH_LIMIT, Outcome, failed
from jobify_django.pool.refusal import refusals
from jobify_django.signals import job_ended
from jobify_django.stores.base import Store
from jobify_django.stores.value import JobQuery
from jobify_django.testing.conformance.ground import outcome as outcome_of
from tests import claims
from tests.child import PATIENCE, until
from tests.claims import POOL
from tests.workshop import Configure, at_work, both, database, faulty, held, pushed, trouble


@task
def note() -> None: ...


def the_store() -> Store:
    return queue().store


def claim(pool: str = POOL) -> Claim:
    (claimed,) = claims.claim(the_store(), pool=pool, lease=30.0)
    return claimed


def let_leases_run_out() -> None:
    store, clock = the_store(), the_store().clock
    store.clock = lambda: clock() + 60
    store.rescue()


def is_deleted(claimed: Claim) -> None:
    was_cancelled(claimed)
    assert the_store().prune(older_than=-1.0, failed_older_than=-1.0) == 1


def was_cancelled(claimed: Claim) -> None:
    the_store().cancel([claimed.id])
    let_leases_run_out()


def crashed_too_often(claimed: Claim) -> None:
    for _ in range(CRASH_LIMIT):
        let_leases_run_out()
        if the_store().get([claimed.id])[claimed.id].status is JobStatus.WAITING:
            claim()


def is_run_by_another(claimed: Claim) -> None:
    let_leases_run_out()
    claim("another-pool")


def was_run_by_another(claimed: Claim) -> None:
    let_leases_run_out()
    the_store().settle([outcome_of(claim("another-pool"))])


def was_taken_back(claimed: Claim) -> None:
    let_leases_run_out()


REASONS: dict[Callable[[Claim], None], str] = {
    is_deleted: "the job is not in the store any more: it was deleted",
    was_cancelled: "the job has ended meanwhile: cancelled",
    is_run_by_another: "another attempt holds the job now",
    was_run_by_another: "another attempt has run the job: successful",
    was_taken_back: "the job was taken back and waits again: its worker's lease ran out",
}


@both
@pytest.mark.parametrize("happens", REASONS, ids=lambda happens: happens.__name__)
def test_a_refusal_says_what_became_of_the_job(jobify: Configure, happens: Callable[[Claim], None]) -> None:
    note.push()
    claimed = claim()
    happens(claimed)
    refused = list(the_store().settle([outcome_of(claimed)]))
    assert refusals(the_store(), refused) == {(claimed.id, 1): REASONS[happens]}


@both
def test_the_last_attempt_of_a_job_that_was_failed_for_its_crashes_says_so(jobify: Configure) -> None:
    note.push()
    crashed_too_often(claim())
    last = failed(the_store().query(JobQuery())[0], JobError("builtins.ValueError", "no"))
    (reason,) = refusals(the_store(), [last]).values()
    assert reason.startswith("the job has ended meanwhile: failed, crashed its worker 3 times")


@both
@pytest.mark.parametrize(
    ("status", "rest"),
    [
        (JobStatus.SUCCESSFUL, {"result": "1"}),
        (JobStatus.FAILED, {"error": JobError("builtins.ValueError", "no")}),
    ],
)
def test_an_end_that_is_stored_already_is_no_refusal(
    jobify: Configure, status: JobStatus, rest: dict[str, Any]
) -> None:
    note.push()
    end = outcome_of(claim(), status, **rest)
    the_store().settle([end])
    assert list(the_store().settle([end])) == [end]
    assert refusals(the_store(), [end]) == {(end.id, 1): ""}


@both
def test_of_many_that_are_refused_the_store_is_asked_once(
    jobify: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    note.push_many([()] * 3)
    outcomes = [outcome_of(claim()) for _ in range(3)]
    asked: list[Collection[str]] = []
    get = the_store().get

    def count(ids: Collection[str]) -> Any:
        asked.append(ids)
        return get(ids)

    monkeypatch.setattr(the_store(), "get", count)
    assert refusals(the_store(), []) == {}
    assert asked == []
    assert len(refusals(the_store(), outcomes)) == 3
    assert len(asked) == 1


@both
def test_a_store_that_cannot_say_why_raises_nothing(
    jobify: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    note.push()
    end = outcome_of(claim())

    def fail(ids: Collection[str]) -> Any:
        raise StoreError("the database is away.")

    monkeypatch.setattr(the_store(), "get", fail)
    assert refusals(the_store(), [end]) == {
        (end.id, 1): "the job is not held by this attempt any more; why could not be read: "
        "the database is away."
    }


@database
def test_the_end_of_a_job_whose_row_was_deleted_says_that_it_was(
    jobify: Configure, caplog: pytest.LogCaptureFixture
) -> None:
    with at_work() as shop:
        job, gate = held()
        gate.reached()
        Row.objects.filter(id=job.id).delete()
        gate.open()
        until(lambda: "event=refused" in caplog.text, "the refusal")
        assert shop.pool.completer.empty

    (said,) = [line for line in caplog.messages if "event=refused" in line]
    assert "it was deleted" in said
    assert "another attempt" not in said


@faulty
def test_an_end_whose_reply_was_lost_is_told_as_what_it_is(
    jobify: Configure, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    told: list[Outcome] = []

    def receive(outcome: Outcome, **rest: Any) -> None:
        told.append(outcome)

    job_ended.connect(receive)
    try:
        jobify(WORKERS=1)
        with at_work():
            first, gate = held()
            gate.reached()
            second = pushed(lambda: None)  # claimed in the commit that stores the first one's end
            trouble.lose_reply("claim")
            gate.open()
            ended = [job_of(first), job_of(second)]
            until(lambda: len(told) == 2, "both told")
    finally:
        job_ended.disconnect(receive)

    assert ended == [JobStatus.SUCCESSFUL] * 2
    assert trouble.met["claim"] == 1
    assert "event=refused" not in caplog.text
    assert caplog.text.count("event=done") == 2


def job_of(job: Job[Any]) -> JobStatus:
    job.wait(timeout=PATIENCE)
    return job.status
