"""Transactions that meet on a server, claims on a strange table, and a version that meets the next one."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.db import Error as DjangoError
from django.db import connection, connections, transaction

from jobify_django import JobStatus, QueueFull, StoreBusy, queue, task
from jobify_django.job import JobSpec, new_id
from jobify_django.models import Job as Row
from jobify_django.outcome import released, succeeded
from jobify_django.stores.database import DatabaseStore, listener, watermark
from jobify_django.stores.value import Renewed
from tests.child import PATIENCE, until
from tests.claims import claim as take
from tests.test_server import postgresql, the_store
from tests.workshop import Configure, a_gate, at_work, database, elsewhere, pushed

pytestmark = database
on_server = pytest.mark.skipif(
    connection.vendor == "sqlite", reason="needs a database server: set DATABASE_URL"
)


@task
def note(value: int = 0) -> None: ...


def ask(statement: str, *values: Any) -> Any:
    with connection.cursor() as cursor:
        cursor.execute(statement, values)
        return cursor.fetchone()


def lock(id: str) -> None:
    ask("SELECT id FROM jobify_job WHERE id = %s FOR UPDATE", id)


def is_locked(id: str) -> bool:
    def look() -> bool:
        try:
            with transaction.atomic():
                ask("SELECT id FROM jobify_job WHERE id = %s FOR UPDATE NOWAIT", id)
        except DjangoError:
            return True
        return False

    return bool(elsewhere(look))


def be_the_one_that_goes_on() -> None:
    """Let the other transaction of a deadlock be the one that ends."""
    if connection.vendor == "postgresql":
        ask("SELECT set_config('deadlock_timeout', '1h', true)")  # who notices gives way
    else:
        Group.objects.bulk_create([Group(name=str(number)) for number in range(200)])  # the lighter gives way


class Collisions(list[Any]):
    """What the server said of statements that met another transaction: a deadlock, or too long a wait."""

    MET = {"postgresql": ("40P01", "55P03"), "mysql": (1213, 1205)}

    def watch(self, work: Callable[[], Any]) -> Any:
        """Do some work on this thread's connection, and return its value."""
        with connection.execute_wrapper(self._note):
            return work()

    def _note(self, execute: Callable[..., Any], *given: Any) -> Any:
        try:
            return execute(*given)
        except DjangoError as error:
            said = getattr(error.__cause__, "sqlstate", None) or error.args[0]
            if said in self.MET[connection.vendor]:
                self.append(said)
            raise


@pytest.fixture
def collisions() -> Collisions:
    return Collisions()


class Beside:
    """Work on a thread and a connection of its own, in the background."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self._answers: list[Any] = []
        self._thread = threading.Thread(target=self._run, args=(work,))
        self._thread.start()

    def _run(self, work: Callable[[], Any]) -> None:
        try:
            self._answers.append(elsewhere(work))
        except BaseException as error:
            self._answers.append(error)

    def result(self) -> Any:
        self._thread.join(PATIENCE)
        (answer,) = self._answers
        if isinstance(answer, BaseException):
            raise answer
        return answer


# Others in the way


@on_server
def test_a_deadlock_is_tried_again(jobify: Configure, collisions: Collisions) -> None:
    first, second = sorted(note.push().id for _ in range(2))
    with transaction.atomic():
        if connection.vendor == "postgresql":
            ask("SELECT set_config('deadlock_timeout', '1h', true)")  # the other one notices, and gives way
        else:
            Group.objects.bulk_create(
                [Group(name=str(number)) for number in range(200)]
            )  # the heavier goes on
        lock(second)
        cancelling = Beside(lambda: collisions.watch(lambda: the_store().cancel([first, second])))
        until(lambda: is_locked(first), "the cancelling")
        lock(first)
    assert set(cancelling.result()) == {first, second}
    assert len(collisions) >= 1
    assert {row.status for row in Row.objects.all()} == {"cancelled"}


@on_server
@pytest.mark.parametrize("verb", ["renew", "settle", "settle one way and the other"])
def test_a_pool_locks_its_jobs_in_the_order_of_their_ids(jobify: Configure, verb: str) -> None:
    """So its renewing and its settling, on two connections, never wait for each other in a circle."""
    ids = sorted((new_id() for _ in range(2)), reverse=True)  # the table has them the other way round
    the_store().add(queue().settings, [JobSpec(id, note.name, "[[],{}]") for id in ids])
    claims = take(the_store(), 2, pool="pool", lease=30.0)
    held = {claim.id: claim.attempt for claim in claims}

    def change() -> Any:
        if verb == "renew":
            return the_store().renew("pool", held, 30.0)
        ends = [released(one, "it stops") if one.id == max(ids) else succeeded(one) for one in claims]
        return the_store().settle(ends if "other" in verb else [succeeded(one) for one in claims])

    with transaction.atomic():
        lock(min(ids))
        changing = Beside(change)
        until(_waits_for_a_lock, "the change's wait")
        assert not is_locked(max(ids))
    assert changing.result() == (Renewed([], []) if verb == "renew" else [])


def _waits_for_a_lock() -> bool:
    if connection.vendor == "postgresql":
        return bool(ask("SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'transactionid'")[0])
    return "LOCK WAIT" in ask("SHOW ENGINE INNODB STATUS")[2]


@postgresql
def test_a_suspect_is_found_although_the_claim_before_it_was_slow(
    jobify: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watermark, "SLOW", -1.0)
    suspect = note.push()
    take(the_store(), pool="dead-pool", lease=-1.0)
    the_store().rescue()
    (claim,) = take(the_store(), 4, pool="pool", lease=30.0)
    assert claim.id == suspect.id


@on_server
def test_a_suspect_that_another_pool_is_about_to_start_holds_up_nobody(jobify: Configure) -> None:
    suspect = note.push()
    take(the_store(), pool="dead-pool", lease=-1.0)
    the_store().rescue()
    fresh = note.push()
    with transaction.atomic():
        lock(suspect.id)
        claimed = elsewhere(lambda: take(the_store(), 4, pool="pool", lease=30.0))
        assert [claim.id for claim in claimed] == [fresh.id]
    (claim,) = take(the_store(), 4, pool="pool", lease=30.0)
    assert claim.id == suspect.id


@on_server
def test_a_lock_that_was_waited_for_too_long_is_tried_again(
    jobify: Configure, collisions: Collisions
) -> None:
    job = note.push()

    def cancel() -> Any:
        with connection.cursor() as cursor:
            impatient = {
                "postgresql": "SET lock_timeout = '50ms'",
                "mysql": "SET innodb_lock_wait_timeout = 1",
            }
            cursor.execute(impatient[connection.vendor])
        return collisions.watch(lambda: the_store().cancel([job.id]))

    with transaction.atomic():
        lock(job.id)
        cancelling = Beside(cancel)
        until(lambda: collisions, "the first try's end")
    assert set(cancelling.result()) == {job.id}


@on_server
def test_a_deadlock_in_the_callers_transaction_is_the_callers_to_try_again(jobify: Configure) -> None:
    first, second = sorted(note.push().id for _ in range(2))

    def cancel() -> Any:
        with transaction.atomic():
            return the_store().cancel([first, second])

    with transaction.atomic():
        be_the_one_that_goes_on()
        lock(second)
        cancelling = Beside(cancel)
        until(lambda: is_locked(first), "the cancelling")
        lock(first)
    with pytest.raises(StoreBusy, match="stood in the way"):
        cancelling.result()
    assert {row.status for row in Row.objects.all()} == {"waiting"}


LEVELS = ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"]


@pytest.fixture
def level(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, jobify: Configure
) -> Iterator[str]:
    """The isolation level of a project, on all new connections of the process."""
    level: str = request.param
    options = connections.settings["default"]["OPTIONS"]
    if connection.vendor == "postgresql":
        spelt = level.lower().replace(" ", "\\ ")
        monkeypatch.setitem(options, "options", f"-c default_transaction_isolation={spelt}")
    else:
        monkeypatch.setitem(options, "isolation_level", level.lower())
    connection.close()
    yield level
    connection.close()


@on_server
@pytest.mark.parametrize("level", LEVELS, indirect=True)
def test_a_crowd_is_served_whatever_the_projects_isolation_level(jobify: Configure, level: str) -> None:
    jobify(MAXSIZE=5, PUSH_TIMEOUT=PATIENCE, WORKERS=4)
    if connection.vendor == "postgresql":
        assert ask("SHOW default_transaction_isolation")[0] == level.lower()
    else:
        assert ask("SELECT @@tx_isolation")[0] == level.replace(" ", "-")
    depths: list[int] = []

    def push() -> None:
        for value in range(25):
            note.push(value)
            depths.append(Row.objects.filter(status="waiting").count())

    with at_work():
        crowd = [Beside(push) for _ in range(4)]
        for one in crowd:
            one.result()
        until(lambda: Row.objects.filter(status="successful").count() == 100, "the end of all jobs")
    assert max(depths) <= 5
    assert set(Row.objects.values_list("attempt", "history")) == {(1, None)}


@postgresql
def test_what_an_old_snapshot_counted_lets_no_later_push_exceed_the_bound(jobify: Configure) -> None:
    jobify(MAXSIZE=20, PUSH_TIMEOUT=0)
    for _ in range(5):
        note.push()
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        assert Row.objects.count() == 5

        def more() -> None:
            for _ in range(10):
                note.push()

        elsewhere(more)
        note.push()
    pushes = 16
    with contextlib.suppress(QueueFull):
        while pushes < 40:
            note.push()
            pushes += 1
    assert pushes == Row.objects.count() == 20


# A claim takes what it was asked for


@pytest.mark.parametrize("fresh", [True, False], ids=["fresh statistics", "no statistics"])
def test_a_claim_from_a_table_that_was_filled_at_once_takes_what_it_wants_in_order(
    jobify: Configure, fresh: bool
) -> None:
    jobify(MAXSIZE=10_000)
    store = the_store()
    specs = [JobSpec(new_id(), note.name, "[[],{}]", priority=number % 7) for number in range(3_000)]
    store.add(queue().settings, specs)
    if fresh and connection.vendor != "sqlite":
        with connection.cursor() as cursor:
            table = "TABLE " if connection.vendor == "mysql" else ""
            cursor.execute(f"ANALYZE {table}jobify_job")
    line = sorted(specs, key=lambda spec: -spec.priority)
    for want in (1, 10, 100):
        claims = take(store, want)
        assert [claim.id for claim in claims] == [spec.id for spec in line[:want]]
        line = line[want:]
    assert Row.objects.filter(status="running").count() == 111


# Two versions over one database


def test_a_version_works_with_the_tables_of_the_next_one(jobify: Configure) -> None:
    tables = [("jobify_job", "VARCHAR(9)"), ("jobify_queue", "INTEGER"), ("jobify_pool", "INTEGER")]
    with connection.cursor() as cursor:
        for table, kind in tables:
            cursor.execute(f"ALTER TABLE {table} ADD COLUMN from_the_future {kind} NULL")
    try:
        with at_work():
            good, bad = note.push(1), pushed(lambda: 1 / 0)
            good.wait(timeout=PATIENCE)
            bad.wait(timeout=PATIENCE)
            later = note.using(delay=3600).push(2)
            assert later.cancel()
            queue().tune(workers=3)
            queue().reset()
            assert queue().stats().pools
            assert the_store().retry([bad.id])
            bad.wait(timeout=PATIENCE)
        assert good.status is JobStatus.SUCCESSFUL
        (claim,) = (note.push(3), take(the_store(), pool="dead-pool", lease=-1.0))[1]
        assert [one.id for one in the_store().rescue()] == [claim.id]
        assert the_store().prune(older_than=-1.0, failed_older_than=-1.0) == 3
    finally:
        with connection.cursor() as cursor:
            for table, _ in tables:
                cursor.execute(f"ALTER TABLE {table} DROP COLUMN from_the_future")


# A listener that hears nothing


@postgresql
def test_a_listener_that_hears_nothing_says_so_and_looks_by_itself(
    jobify: Configure, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name, value in {
        "ECHO_TIMEOUT": 0.1,
        "TEST_EVERY": 0.05,
        "WAIT": 0.02,
        "POLL_WITHOUT_LISTEN": 0.02,
    }.items():
        monkeypatch.setattr(listener, name, value)
    ears = DatabaseStore().change_detector()
    assert ears is not None
    with monkeypatch.context() as pooler, caplog.at_level("INFO", "jobify.store"):
        # A pooler in transaction mode takes the word, and gives it to nobody.
        pooler.setattr(listener, "NOTIFY", listener.NOTIFY.replace(listener.CHANNEL, "another"))
        until(lambda: ears() and "event=deaf" in caplog.text, "the listener's word")
        assert {kind for kind, _ in ears()} == {"work", "room", "ended"}
    with caplog.at_level("INFO", "jobify.store"):
        until(lambda: ears() is not None and "event=hearing" in caplog.text, "the listener's recovery")
    assert caplog.text.count("event=deaf") == 1
    ears.close()  # type: ignore[attr-defined]


@postgresql
def test_with_a_deaf_listener_jobs_start_all_the_same(
    jobify: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "NOTIFY", listener.NOTIFY.replace(listener.CHANNEL, "another"))
    jobify(MAXSIZE=2, PUSH_TIMEOUT=PATIENCE, WORKERS=1)
    store = DatabaseStore("elsewhere")
    with at_work() as shop:
        until(lambda: shop.pool.turns > 1, "an idle pool")
        spec = JobSpec(new_id(), note.name, "[[],{}]")
        store.add(queue().settings, [spec])
        until(lambda: store.get([spec.id])[spec.id].status.ended, "the end of a job that nobody spoke of")


# How many connections


@on_server
def test_a_process_has_the_documented_number_of_connections(jobify: Configure) -> None:
    """One for claims, one for upkeep, two to hear of others, and one for each job that uses the ORM."""
    jobify(WORKERS=3)
    count = {
        "postgresql": "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
        "AND backend_type = 'client backend'",
        "mysql": "SELECT count(*) FROM information_schema.processlist WHERE db = database()",
    }[connection.vendor]
    (before,) = ask(count)
    gates = []

    with at_work(workers=3) as shop:
        until(lambda: queue().stats().pools, "the pool's first heartbeat")

        def busy(gate: Any) -> None:
            Group.objects.count()
            gate.pass_through()

        for _ in range(3):
            gate = a_gate()
            gates.append(gate)
            pushed(lambda gate=gate: busy(gate))
        for gate in gates:
            gate.reached()
        shop.turn(3)
        (during,) = ask(count)
        for gate in gates:
            gate.open()
    assert during - before <= (4 if connection.vendor == "postgresql" else 2) + 3
    assert during - before >= 2 + 3
    until(lambda: ask(count)[0] <= before, "the end of all connections")
