"""What is done to many jobs is done in parts, each a transaction of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.db import transaction

from jobify_django.exceptions import StoreError
from jobify_django.job import JobSpec, JobStatus, new_id
from jobify_django.stores.database import DatabaseStore
from jobify_django.stores.database import parts as module
from jobify_django.stores.value import JobQuery
from jobify_django.testing.conformance.ground import a_queue

pytestmark = pytest.mark.django_db(transaction=True)

QUEUE = a_queue(maxsize=10_000)
JOBS = 25
PART = 10


class Counted:
    """A connection that counts the statements that change jobs."""

    def __init__(self, db: Any, changes: list[str]) -> None:
        self.db = db
        self.changes = changes

    def execute(self, statement: str, values: Any = (), /) -> Any:
        """Run a statement."""
        if "UPDATE jobify_job" in statement:
            self.changes.append(statement)
        return self.db.execute(statement, values)


class Counting(DatabaseStore):
    """A store that counts its transactions, and lets one of them fail."""

    def __init__(self) -> None:
        super().__init__()
        self.transactions = 0
        self.changes: list[str] = []
        self.fails_at = 0

    def _write(self, work: Callable[[Any], Any], **options: Any) -> Any:
        self.transactions += 1
        if self.transactions == self.fails_at:
            raise StoreError("database 'default' failed: it took too long.")
        return super()._write(lambda db: work(Counted(db, self.changes)), **options)

    def begin(self) -> None:
        """Count from here on."""
        self.transactions = 0
        self.changes.clear()


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Counting:
    monkeypatch.setattr(module, "PART", PART)
    return Counting()


@pytest.fixture
def ids(store: Counting) -> list[str]:
    specs = [JobSpec(new_id(), "app.tasks.a", "[[],{}]", 0) for _ in range(JOBS)]
    assert store.add(QUEUE, specs).taken == JOBS
    store.begin()
    return [spec.id for spec in specs]


def statuses(store: Counting) -> set[JobStatus]:
    return {record.status for record in store.query(JobQuery(limit=1_000))}


def test_many_jobs_are_cancelled_and_retried_in_parts(store: Counting, ids: list[str]) -> None:
    assert len(store.cancel(ids)) == JOBS
    assert store.transactions == 3
    assert statuses(store) == {JobStatus.CANCELLED}
    store.begin()

    assert sorted(store.retry(ids)) == sorted(ids)
    assert store.transactions == 3
    assert statuses(store) == {JobStatus.WAITING}
    assert store.stats([QUEUE])["default"].waiting == JOBS
    assert store.repair() is False


def test_a_part_takes_as_many_statements_as_one_job(store: Counting, ids: list[str]) -> None:
    store.cancel(ids[:PART])
    assert len(store.changes) == 1
    store.begin()

    store.retry(ids[:PART])
    assert len(store.changes) == 2


def test_inside_the_callers_transaction_it_is_all_or_nothing(store: Counting, ids: list[str]) -> None:
    with transaction.atomic():
        store.cancel(ids)
        assert store.transactions == 1
        transaction.set_rollback(True)

    assert statuses(store) == {JobStatus.WAITING}


@pytest.mark.parametrize("verb", ["cancel", "retry"])
def test_a_part_that_fails_tells_what_was_done_and_how_to_go_on(
    store: Counting, ids: list[str], verb: str
) -> None:
    if verb == "retry":
        store.cancel(ids)
    store.begin()
    store.fails_at = 2

    with pytest.raises(StoreError, match=r"of 25 jobs the first 10 .* took too long\. Do it again"):
        getattr(store, verb)(ids)

    assert statuses(store) == {JobStatus.WAITING, JobStatus.CANCELLED}
    getattr(store, verb)(ids)
    assert statuses(store) == {JobStatus.WAITING if verb == "retry" else JobStatus.CANCELLED}
