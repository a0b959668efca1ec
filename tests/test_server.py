"""What only a database server can do to a store: tests that need one, and skip on SQLite."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import OperationalError, connection, connections, transaction
from django.db.backends.utils import CursorWrapper
from django.test.utils import CaptureQueriesContext

from jobify_django import QueueFull, queue, task
from jobify_django.exceptions import StoreError
from jobify_django.job import JobSpec, JobStatus, new_id
from jobify_django.stores.database import DatabaseStore
from tests.child import PATIENCE, until
from tests.claims import claim as take
from tests.claims import release
from tests.workshop import Configure, database, elsewhere

pytestmark = [
    database,
    pytest.mark.skipif(connection.vendor == "sqlite", reason="needs a database server: set DATABASE_URL"),
]
postgresql = pytest.mark.skipif(connection.vendor != "postgresql", reason="about PostgreSQL")


@task
def note(value: int = 0) -> None: ...


def the_store() -> DatabaseStore:
    store = queue().store
    assert isinstance(store, DatabaseStore)
    return store


class OpenPush:
    """A push on a thread of its own whose transaction stays open until told."""

    def __init__(self, jobs: int = 1, *, keep: bool = True) -> None:
        self._pushed, self._go = threading.Event(), threading.Event()
        self._jobs, self._keep = jobs, keep
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        assert self._pushed.wait(PATIENCE)

    def _run(self) -> None:
        try:
            with transaction.atomic():
                for _ in range(self._jobs):
                    note.push()
                self._pushed.set()
                self._go.wait(PATIENCE)
                if not self._keep:
                    transaction.set_rollback(True)
        finally:
            self._pushed.set()
            connections.close_all()

    def end(self) -> None:
        self._go.set()
        self._thread.join(PATIENCE)


@postgresql
def test_a_push_in_a_long_transaction_holds_up_no_other_push(jobify: Configure) -> None:
    open_push = OpenPush()
    elsewhere(note.push)
    assert queue().stats().waiting == 1
    open_push.end()
    assert queue().stats().waiting == 2


@postgresql
def test_what_an_open_transaction_has_pushed_takes_its_room(jobify: Configure) -> None:
    jobify(MAXSIZE=3, PUSH_TIMEOUT=0)
    open_push = OpenPush(jobs=2)
    elsewhere(note.push)
    with pytest.raises(QueueFull):
        elsewhere(note.push)
    open_push.end()
    assert queue().stats().waiting == 3


@postgresql
def test_what_a_rolled_back_transaction_had_pushed_gives_its_room_back(jobify: Configure) -> None:
    jobify(MAXSIZE=2, PUSH_TIMEOUT=0)
    open_push = OpenPush(jobs=2, keep=False)
    with pytest.raises(QueueFull):
        elsewhere(note.push)
    open_push.end()
    elsewhere(note.push)
    assert queue().stats().waiting == 1


@postgresql
def test_a_rolled_back_savepoint_gives_its_room_back(jobify: Configure) -> None:
    jobify(MAXSIZE=2, PUSH_TIMEOUT=0)
    with transaction.atomic():
        with transaction.atomic():
            note.push()
            note.push()
            transaction.set_rollback(True)
        elsewhere(note.push)
        note.push()
        with pytest.raises(QueueFull):
            note.push()
    assert queue().stats().waiting == 2


@postgresql
def test_a_thousand_pushes_in_one_transaction_take_a_handful_of_locks(jobify: Configure) -> None:
    with transaction.atomic():
        for _ in range(1000):
            note.push()
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()"
            )
            (locks,) = cursor.fetchone()
    assert 1 <= locks <= 12
    assert queue().stats().waiting == 1000


@postgresql
def test_a_queue_keeps_its_bound_without_being_counted_at_every_push(jobify: Configure) -> None:
    jobify(MAXSIZE=40, PUSH_TIMEOUT=0)
    store = the_store()
    with CaptureQueriesContext(connection) as queries:
        for _ in range(40):
            note.push()
    counts = [one for one in queries.captured_queries if "count(*)" in one["sql"]]
    assert 0 < len(counts) < 15
    with pytest.raises(QueueFull):
        note.push()
    # Jobs that come back take numbers, so the ceiling knows of them.
    (claim, *_) = take(store)
    release(store, [claim])
    with pytest.raises(QueueFull):
        note.push()
    assert queue().stats().waiting == 40


def test_a_claim_passes_over_what_another_transaction_holds(jobify: Configure) -> None:
    first, second = note.push(), note.push()
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM jobify_job WHERE id = %s FOR UPDATE", [first.id])
        claims = elsewhere(lambda: take(the_store(), 2))
    assert [claim.id for claim in claims] == [second.id]


def test_a_connection_that_was_ended_is_replaced_for_the_next_push(jobify: Configure) -> None:
    note.push()
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_backend_pid()" if connection.vendor == "postgresql" else "SELECT connection_id()"
        )
        (mine,) = cursor.fetchone()

    def end() -> None:
        with connection.cursor() as cursor:
            if connection.vendor == "postgresql":
                cursor.execute("SELECT pg_terminate_backend(%s)", [mine])
            else:
                cursor.execute(f"KILL {int(mine)}")

    elsewhere(end)
    note.push()
    assert queue().stats().waiting == 2


class Lossy:
    """A cursor whose COMMIT goes through while its reply is lost, as often as told; so does what commits by
    itself."""

    losses = 0

    def __init__(self, execute: Any) -> None:
        self._execute = execute

    def __call__(self, cursor: Any, statement: str, *values: Any) -> Any:
        answer = self._execute(cursor, statement, *values)
        # On PostgreSQL most are a transaction in one message.
        message = (
            statement.startswith(("BEGIN ISOLATION ", "SET LOCAL ", "SET TRANSACTION "))
            and "jobify_" in statement
        )
        if (statement == "COMMIT" or message) and Lossy.losses:
            Lossy.losses -= 1
            cursor.db.close()
            raise OperationalError("server closed the connection unexpectedly")
        return answer


@pytest.fixture
def lossy(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Lossy]]:
    execute = CursorWrapper.execute
    lossy = Lossy(execute)
    monkeypatch.setattr(CursorWrapper, "execute", lambda cursor, *given: lossy(cursor, *given))
    yield Lossy
    Lossy.losses = 0


def test_a_push_whose_reply_was_lost_adds_one_job(jobify: Configure, lossy: type[Lossy]) -> None:
    lossy.losses = 1
    job = note.push()
    assert queue().stats().waiting == 1
    assert job.record().status is JobStatus.WAITING


def test_a_push_whose_replies_are_lost_says_that_it_may_be_stored(
    jobify: Configure, lossy: type[Lossy]
) -> None:
    lossy.losses = 2
    with pytest.raises(StoreError, match="may be stored or not"):
        note.push()
    assert queue().stats().waiting == 1


def test_a_claim_whose_reply_was_lost_is_handed_back_uncharged(jobify: Configure, lossy: type[Lossy]) -> None:
    job = note.push()
    store = the_store()
    lossy.losses = 1
    with pytest.raises(StoreError):
        take(store)
    assert job.record().status is JobStatus.RUNNING
    assert list(store.reconcile("a-pool", ())) == [job.id]
    record = job.record()
    assert (record.status, record.crashes) == (JobStatus.WAITING, 0)


def test_leases_are_measured_on_the_servers_clock(jobify: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    store = DatabaseStore("fresh")
    store.stats([queue().settings])
    before = store.clock()
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now - 7200)
    assert store.clock() - before < PATIENCE
    store.add(queue().settings, [JobSpec(new_id(), note.name, "[[],{}]")])
    (claim,) = take(store)
    assert list(store.rescue()) == []
    assert abs(claim.started_at - before) < PATIENCE


@postgresql
def test_the_doctor_names_a_session_that_holds_a_snapshot(
    jobify: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobify_django.stores.database.postgresql.OLD_SNAPSHOT", 0)
    began, go = threading.Event(), threading.Event()
    pids: list[int] = []

    def hold() -> None:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            cursor.execute(
                "SELECT pg_backend_pid() FROM jobify_job RIGHT JOIN (SELECT 1) one ON TRUE LIMIT 1"
            )
            pids.append(cursor.fetchone()[0])
            began.set()
            go.wait(PATIENCE)
        connections.close_all()

    thread = threading.Thread(target=hold)
    thread.start()
    assert began.wait(PATIENCE)
    try:
        until(
            lambda: any(f"session {pids[0]} " in diagnosis.text for diagnosis in the_store().diagnose()),
            "the doctor's word",
        )
    finally:
        go.set()
        thread.join(PATIENCE)


# Many jobs at once


@pytest.mark.parametrize("way", ["rescue", "release", "retry"])
def test_jobs_that_come_back_together_share_a_statement(jobify: Configure, way: str) -> None:
    store = the_store()
    note.push_many([()] * 20)
    claims = take(store, 20, pool="a pool", lease=-1.0)
    ids = [claim.id for claim in claims]
    if way == "retry":
        store.cancel(ids)
        store.rescue()
    ways: dict[str, Any] = {
        "rescue": store.rescue,
        "release": lambda: release(store, claims, "a pool"),
        "retry": lambda: store.retry(ids),
    }
    with CaptureQueriesContext(connection) as done:
        assert len(ways[way]()) == 20
    back = [one["sql"] for one in done if "UPDATE jobify_job SET status" in one["sql"]]
    assert len(back) == 1
    assert store.stats([queue().settings])["default"].waiting == 20
