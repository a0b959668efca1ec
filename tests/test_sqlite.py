"""The database store on SQLite: locks, transactions of the project's, and what is said when it fails."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.db import connection, connections, transaction

from jobify_django import JobStatus, StoreBusy, StoreError, queue, task
from jobify_django.exceptions import StoreUnmigrated
from jobify_django.models import Job as Row
from jobify_django.models import Queue as QueueRow
from jobify_django.outcome import succeeded
from jobify_django.runtime import MACHINE
from jobify_django.stores.base import Store
from jobify_django.stores.database import sqlite, sqlite_transaction
from tests.child import PATIENCE, until
from tests.claims import claim as take
from tests.workshop import Configure, at_work, database

pytestmark = [
    database,
    pytest.mark.skipif(connection.vendor != "sqlite", reason="about SQLite"),
]


@task
def note(value: int = 0) -> None: ...


def the_store() -> Store:
    return queue().store


@pytest.fixture
def other(jobify: Configure) -> Iterator[sqlite3.Connection]:
    """A connection of somebody else's to the same file."""
    made = sqlite3.connect(
        connection.settings_dict["NAME"], isolation_level=None, timeout=0, check_same_thread=False
    )
    yield made
    made.close()


class Work:
    """Something done in a thread, with a connection whose statements a test can see."""

    def __init__(self, work: Callable[[], object]) -> None:
        self.statements: list[str] = []
        self.value: object = None
        self.error: BaseException | None = None
        self._work = work
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            connection.ensure_connection()
            connection.connection.set_trace_callback(self.statements.append)
            self.value = self._work()
        except BaseException as error:
            self.error = error
        finally:
            connections.close_all()

    def came_to(self, words: str) -> None:
        """Wait until it has begun a statement with these words."""
        until(lambda: any(words in s for s in self.statements) or self.error, words)

    def result(self) -> object:
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()
        if self.error is not None:
            raise self.error
        return self.value


# A locked database


def test_a_push_waits_for_others_with_short_and_uneven_sleeps(
    jobify: Configure, other: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    note.push()  # the queue's row is there
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 30:
            other.execute("COMMIT")

    monkeypatch.setattr(the_store(), "runtime", replace(MACHINE, sleep=sleep))
    other.execute("BEGIN IMMEDIATE")
    note.push()
    assert len(slept) == 30
    assert all(0 < seconds <= sqlite_transaction.LONGEST_SLEEP for seconds in slept)
    assert len(set(slept)) > 20
    assert max(slept[20:]) > 3 * max(slept[:3])


def test_a_database_that_stays_locked_is_named_with_the_likely_cause(
    jobify: Configure, other: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    note.push()
    monkeypatch.setattr("jobify_django.stores.database.connection.LONGEST_LOCK_WAIT", 0.0)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreBusy, match=r"'default' stayed locked for 0 s: .* Look for a long transaction"):
        note.push()
    other.execute("ROLLBACK")
    note.push()
    assert queue().stats().waiting == 2


def test_the_projects_own_timeout_is_left_as_it_was(jobify: Configure) -> None:
    with connection.cursor() as cursor:
        (before,) = cursor.execute("PRAGMA busy_timeout").fetchone()
        note.push()
        (after,) = cursor.execute("PRAGMA busy_timeout").fetchone()
    assert before == after == 20_000


# The project's transactions are deferred, as Django's are by default


def test_a_push_that_opens_a_transaction_waits_for_another_writer(
    jobify: Configure, other: sqlite3.Connection
) -> None:
    note.push()

    def push() -> str:
        with transaction.atomic():
            return note.push().id

    other.execute("BEGIN IMMEDIATE")
    other.execute("INSERT INTO auth_group (name) VALUES ('theirs')")
    work = Work(push)
    work.came_to("jobify_queue")
    other.execute("COMMIT")
    assert Row.objects.filter(id=work.result()).exists()


def test_a_transaction_that_read_before_another_wrote_is_told_how_to_prevent_that(
    jobify: Configure, other: sqlite3.Connection
) -> None:
    note.push()
    with transaction.atomic():
        Group.objects.count()
        other.execute("INSERT INTO auth_group (name) VALUES ('theirs')")
        with pytest.raises(
            StoreBusy, match=r"began with a read .*OPTIONS\['transaction_mode'\] = 'IMMEDIATE'"
        ):
            note.push()
        transaction.set_rollback(True)
    note.push()
    assert queue().stats().waiting == 2


def test_an_immediate_transaction_that_read_before_may_push(
    jobify: Configure, other: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = connections.settings["default"]["OPTIONS"]
    monkeypatch.setitem(options, "transaction_mode", "IMMEDIATE")
    other.execute("BEGIN IMMEDIATE")
    other.execute("INSERT INTO auth_group (name) VALUES ('theirs')")

    def push() -> int:
        with transaction.atomic():
            count = Group.objects.count()
            note.push()
            return count

    work = Work(push)
    work.came_to("BEGIN IMMEDIATE")
    other.execute("COMMIT")
    assert work.result() == 1
    assert queue().stats().waiting == 1


def test_jobs_and_the_projects_own_rows_are_committed_together(jobify: Configure) -> None:
    for undone in (False, True):
        with transaction.atomic():
            Group.objects.create(name=f"ordered, {undone}")
            note.push()
            transaction.set_rollback(undone)
        assert (Group.objects.count(), queue().stats().waiting) == (1, 1)


# What it says when it fails


@pytest.fixture
def another(tmp_path: Path, django_db_blocker: Any, settings: Any) -> Iterator[Path]:
    """A database file of jobs' own, which does not exist yet."""
    path = tmp_path / "jobs.sqlite3"
    connections.settings["jobs"] = {**connections.settings["default"], "NAME": str(path), "OPTIONS": {}}
    yield path
    connections["jobs"].close()
    del connections["jobs"]
    del connections.settings["jobs"]


def failing(settings: Any) -> StoreError:
    """Use the other database where no test case forbids it, and return the error."""
    settings.JOBIFY = {"DATABASE": "jobs"}
    raw = connections["jobs"]
    raw.connect()
    with pytest.raises(StoreError) as got:
        note.push()
    return got.value


def test_a_database_without_tables_says_what_to_run(jobify: Configure, another: Path, settings: Any) -> None:
    error = failing(settings)
    assert isinstance(error, StoreUnmigrated)
    assert "run 'manage.py migrate --database jobs'" in str(error)


def test_a_read_only_database_says_so_and_whose(jobify: Configure, another: Path, settings: Any) -> None:
    sqlite3.connect(another).close()
    connections.settings["jobs"]["NAME"] = f"file:{another}?mode=ro"
    connections.settings["jobs"]["OPTIONS"] = {"uri": True}
    error = failing(settings)
    assert "database 'jobs' failed" in str(error) or isinstance(error, StoreUnmigrated)
    assert error.__cause__ is not None


# Numbers and names that must not come back


def test_a_deleted_job_gives_neither_its_number_nor_its_attempt_to_another(jobify: Configure) -> None:
    note.push_many([(1,), (2,), (3,)])
    (claim,) = take(the_store())
    before = max(Row.objects.values_list("sequence", flat=True))
    Row.objects.all().delete()
    assert the_store().repair() is True
    job = note.push(4)
    assert Row.objects.get().sequence > before
    (second,) = take(the_store())
    stale = succeeded(claim)
    assert list(the_store().settle([stale])) == [stale]
    job.refresh()
    assert job.status is JobStatus.RUNNING
    assert second.id == job.id


def test_a_count_that_a_hand_put_wrong_is_mended(jobify: Configure) -> None:
    jobify(MAXSIZE=3)
    note.push_many([(1,), (2,), (3,)])
    Row.objects.all().delete()
    with pytest.raises(Exception, match="is full"):
        note.push()
    assert the_store().repair() is True
    assert the_store().repair() is False
    note.push()
    assert QueueRow.objects.get().waiting == 1


def test_a_large_write_ahead_log_is_named(jobify: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    note.push()
    assert the_store().diagnose() == ()
    monkeypatch.setattr(sqlite, "LARGE_LOG", 1)
    (diagnosis,) = the_store().diagnose()
    assert "-wal takes" in diagnosis.text
    assert "wal_checkpoint" in diagnosis.fix


# A crowd


def test_after_a_crowd_the_file_is_whole_and_the_count_right(jobify: Configure) -> None:
    jobify(MAXSIZE=20, PUSH_TIMEOUT=PATIENCE, WORKERS=4)
    deepest: list[int] = []

    def push() -> None:
        for value in range(40):
            note.push(value)
            deepest.append(Row.objects.filter(status="waiting").count())

    with at_work():
        crowd = [Work(push) for _ in range(4)]
        for work in crowd:
            work.result()
        until(lambda: not Row.objects.exclude(status="successful").exists(), "the end of all jobs")

    assert Row.objects.count() == 160
    assert max(deepest) <= 20
    assert QueueRow.objects.get().waiting == 0
    assert the_store().repair() is False
    with connection.cursor() as cursor:
        assert cursor.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
