"""What the bound and the order hold against: open transactions, short delays, other schemas, loaded data."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta


import pytest
from django.db import connection, connections, transaction

from jobify_django import JobStatus, QueueFull, get_job, queue, task
from jobify_django.bell import ThreadBell
from jobify_django.line import Line
from tests.child import PATIENCE
from tests.test_server import elsewhere, the_store
from tests.workshop import Configure, both, database

servers = pytest.mark.skipif(connection.vendor == "sqlite", reason="needs a database server: set DATABASE_URL")
postgresql = pytest.mark.skipif(connection.vendor != "postgresql", reason="about PostgreSQL")


@task
def note(value: int = 0) -> None: ...


def waiting() -> int:
    return queue().stats().waiting


def failed(jobs: int) -> list[str]:
    """Return the ids of so many jobs that were cancelled, and so can be retried."""
    ids = [job.id for job in note.push_many([()] * jobs)]
    the_store().cancel(ids)
    return ids


# What several transactions choose at once


@servers
@database
def test_what_an_open_transaction_retries_is_not_pruned(jobify: Configure) -> None:
    store = the_store()
    ids = failed(20)

    with transaction.atomic():
        assert len(store.retry(ids)) == 20
        assert elsewhere(lambda: store.prune(older_than=-60, failed_older_than=-60)) == 0

    assert waiting() == 20


@servers
@database
def test_what_is_retried_while_a_prune_has_chosen_it_is_pruned_once_or_waits(jobify: Configure) -> None:
    store = the_store()
    ids = failed(200)
    pruned: list[int] = []
    retried: list[str] = []

    def prune() -> None:
        pruned.append(store.prune(older_than=-60, failed_older_than=-60, limit=100))
        connections.close_all()

    thread = threading.Thread(target=prune)
    thread.start()
    retried += store.retry(ids)
    thread.join(PATIENCE)

    assert waiting() == len(retried)
    assert set(store.get(retried)) == set(retried)
    assert len(pruned) == 1


# What is delayed, and what waits


@both
def test_a_handle_says_what_the_store_does_of_short_delays_and_past_moments(jobify: Configure) -> None:
    past = datetime.now(UTC) - timedelta(minutes=1)
    pushed = [
        note.using(delay=1e-9).push(),
        note.using(delay=1e-7).push(),
        note.using(at=past).push(),
        note.using(delay=60).push(),
        note.using(at=past + timedelta(minutes=10)).push(),
    ]

    said = [job.status for job in pushed]

    assert said == [job.record().status for job in pushed]
    assert said == [*[JobStatus.WAITING] * 3, *[JobStatus.DELAYED] * 2]


@database
def test_a_handle_goes_by_the_clock_of_its_store(jobify: Configure) -> None:
    store = the_store()
    ahead = store.clock() + 3600
    store.clock = lambda: ahead

    soon = note.using(at=datetime.fromtimestamp(ahead - 60, UTC)).push()

    assert soon.status is soon.record().status is JobStatus.WAITING
    assert soon.pushed_at == datetime.fromtimestamp(ahead, UTC)


@both
def test_a_delay_too_short_for_the_clock_finds_no_room_in_a_full_queue(jobify: Configure) -> None:
    jobify(MAXSIZE=3, PUSH_TIMEOUT=0)
    note.push_many([()] * 3)

    for late in (note.using(delay=1e-9), note.using(at=datetime.now(UTC) - timedelta(minutes=1))):
        with pytest.raises(QueueFull):
            late.push()

    assert waiting() == 3


@both
def test_a_moment_that_has_passed_overtakes_nobody_in_line(jobify: Configure) -> None:
    jobify(MAXSIZE=1, PUSH_TIMEOUT=0)
    line = Line.of(queue().store, "default")
    ticket = line.join(ThreadBell(), 0, 10)
    assert ticket is not None
    try:
        for late in (note.using(delay=1e-9), note.using(at=datetime.now(UTC) - timedelta(minutes=1))):
            with pytest.raises(QueueFull):
                late.push()
        assert note.using(delay=60).push().status is JobStatus.DELAYED
    finally:
        line.leave(ticket)
