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

from jobify_django import JobStatus, QueueFull, StoreBusy, StoreError, queue, task
from jobify_django.exceptions import StoreUnmigrated
from jobify_django.job import JobSpec, new_id
from jobify_django.models import Job as Row
from jobify_django.models import Queue as QueueRow
from jobify_django.outcome import succeeded
from jobify_django.runtime import MACHINE
from jobify_django.stores.base import Store
from jobify_django.stores.database import sqlite, sqlite_session, sqlite_transaction
from jobify_django.testing.conformance.ground import a_queue
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


def test_a_push_that_met_a_writer_leaves_no_transaction_open(
    jobify: Configure, other: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    note.push()
    monkeypatch.setattr("jobify_django.stores.database.connection.LONGEST_LOCK_WAIT", 0.0)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreBusy):
        note.push()
    assert not connection.connection.in_transaction
    other.execute("INSERT INTO auth_group (name) VALUES ('theirs')")
    other.execute("COMMIT")
    note.push()
    assert Group.objects.filter(name="theirs").exists()


def test_a_writer_between_a_pushs_read_and_its_first_write_is_no_error(
    jobify: Configure, other: sqlite3.Connection
) -> None:
    note.push()
    note.push()
    other.execute("UPDATE jobify_queue SET waiting = 7, sequence = 70")
    meddled: list[str] = []

    def meddle(statement: str) -> None:
        if not meddled and statement.lstrip().startswith("SELECT"):
            meddled.append(statement)
            other.execute("UPDATE jobify_queue SET waiting = waiting + 1, sequence = sequence + 1")

    connection.connection.set_trace_callback(meddle)
    job = note.push()
    connection.connection.set_trace_callback(None)
    assert meddled
    assert Row.objects.get(id=job.id).sequence == 72
    assert QueueRow.objects.get().waiting == 9


# What a connection knows of a queue's row, and need not read again


@pytest.fixture
def looks(jobify: Configure) -> Iterator[list[str]]:
    """The reads of a queue's row by this thread's connection, once a push has made it known."""
    jobify(MAXSIZE=4)
    note.push()
    note.push()
    seen: list[str] = []

    def see(statement: str) -> None:
        if "SELECT maxsize" in statement:
            seen.append(statement)

    connection.connection.set_trace_callback(see)
    yield seen
    connection.connection.set_trace_callback(None)


def test_a_row_that_nobody_changed_is_not_read_again(looks: list[str]) -> None:
    before = max(Row.objects.values_list("sequence", flat=True))
    job = note.push()
    assert looks == []
    assert Row.objects.get(id=job.id).sequence == before + 1
    assert QueueRow.objects.get().waiting == 3


def by_another_connection(other: sqlite3.Connection, sql: str) -> None:
    other.execute(sql)


def by_this_one(other: sqlite3.Connection, sql: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql)


def by_this_one_in_a_transaction(other: sqlite3.Connection, sql: str) -> None:
    with transaction.atomic():
        by_this_one(other, sql)


def by_this_one_beside_a_push(other: sqlite3.Connection, sql: str) -> None:
    with transaction.atomic():
        note.using(delay=600).push()
        by_this_one(other, sql)


@pytest.mark.parametrize(
    "change", [by_another_connection, by_this_one, by_this_one_in_a_transaction, by_this_one_beside_a_push]
)
def test_a_row_that_was_changed_is_read_again(
    looks: list[str],
    other: sqlite3.Connection,
    change: Callable[[sqlite3.Connection, str], None],
) -> None:
    change(other, "UPDATE jobify_queue SET waiting = 4, sequence = sequence + 10")
    with pytest.raises(QueueFull):
        note.using(timeout=0).push()
    change(other, "UPDATE jobify_queue SET maxsize = 9, \"order\" = 'lifo'")
    before = QueueRow.objects.get().sequence
    job = Row.objects.get(id=note.push().id)
    assert (job.sequence, job.order_key) == (before + 1, -(before + 1))


def test_what_was_rolled_back_is_known_to_nobody(looks: list[str]) -> None:
    with transaction.atomic():
        note.push()
        note.push()
        transaction.set_rollback(True)
    note.push()
    note.push()
    with pytest.raises(QueueFull):
        note.using(timeout=0).push()
    assert QueueRow.objects.get().waiting == 4


def test_what_the_pools_of_this_thread_start_makes_room(looks: list[str]) -> None:
    note.push()
    note.push()
    with pytest.raises(QueueFull):
        note.using(timeout=0).push()
    take(the_store(), 2)
    note.push()
    note.push()
    with pytest.raises(QueueFull):
        note.using(timeout=0).push()


def test_a_delayed_job_that_is_due_counts_in_a_row_that_is_known(
    looks: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    note.using(delay=5).push()
    note.using(delay=3).push()
    note.push()
    now = MACHINE.clock()
    monkeypatch.setattr(the_store(), "clock", lambda: now + 4)
    with pytest.raises(QueueFull):
        note.using(timeout=0).push()
    monkeypatch.setattr(the_store(), "clock", lambda: now)
    note.push()


def test_a_job_that_is_there_already_is_added_once(looks: list[str]) -> None:
    spec = JobSpec(new_id(), note.name, "[[],{}]")
    for _ in range(2):
        added = the_store().add(a_queue(), [spec])
        assert (added.taken, added.depth) == (1, 3)
    assert QueueRow.objects.get().waiting == 3


def test_a_row_is_known_for_a_second(looks: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    later = MACHINE.monotonic() + sqlite_session.KNOWN_FOR + 1
    monkeypatch.setattr(the_store(), "runtime", replace(MACHINE, monotonic=lambda: later))
    note.push()
    assert len(looks) == 1


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
