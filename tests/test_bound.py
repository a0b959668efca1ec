"""What the bound and the order hold against: open transactions, short delays, other schemas, loaded data."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from django.core.management import call_command
from django.core.management.sql import emit_post_migrate_signal
from django.db import connection, connections, transaction
from django.db.models import F

from jobify_django import JobStatus, QueueFull, queue, task
from jobify_django.models import Job, Queue
from jobify_django.outcome import released
from jobify_django.push.waits import PushWaits
from jobify_django.runtime import MACHINE
from jobify_django.stores.database import DatabaseStore
from jobify_django.stores.value import Added
from jobify_django.waiting.waitlist import Ticket
from jobify_django.waiting.waker import ThreadWaker
from tests.child import PATIENCE, until
from tests.claims import claim as take
from tests.claims import release
from tests.test_server import the_store
from tests.workshop import Configure, both, database, elsewhere

servers = pytest.mark.skipif(
    connection.vendor == "sqlite", reason="needs a database server: set DATABASE_URL"
)
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
    line = queue().store.process_local(PushWaits, "default")
    ticket = Ticket(ThreadWaker(MACHINE))
    assert line.join(ticket, queue().store.listen, 10)
    try:
        for late in (note.using(delay=1e-9), note.using(at=datetime.now(UTC) - timedelta(minutes=1))):
            line.note_full(Added(0, 1, 1))  # or the push would look for itself before it is refused
            with pytest.raises(QueueFull):
                late.push()
        assert note.using(delay=60).push().status is JobStatus.DELAYED
    finally:
        line.leave(ticket)


# What open transactions have announced


@postgresql
@database
@pytest.mark.parametrize("jobs", [1, 2])
def test_a_refused_push_that_was_caught_keeps_no_room(jobify: Configure, jobs: int) -> None:
    jobify(MAXSIZE=3, PUSH_TIMEOUT=0)
    store = the_store()
    note.push_many([()] * (4 - jobs))
    with transaction.atomic():
        for _ in range(3):
            with pytest.raises(QueueFull):
                note.push_many([()] * jobs)
        elsewhere(lambda: take(store, 3))
        elsewhere(lambda: note.push_many([()] * 3))
    assert waiting() == 3


@postgresql
@database
def test_a_delayed_job_finds_room_in_a_full_queue_inside_a_transaction(jobify: Configure) -> None:
    jobify(MAXSIZE=1, PUSH_TIMEOUT=0)
    note.push()
    with transaction.atomic():
        job = note.using(delay=60).push()
    assert job.record().status is JobStatus.DELAYED


def come_back(way: str, store: DatabaseStore) -> Callable[[], object]:
    """Return what lets twenty jobs wait again."""
    if way == "retry":
        ids = failed(20)
        return lambda: store.retry(ids)
    note.push_many([()] * 20)
    lease = 60.0 if way == "release" else -1.0
    held = take(store, 20, lease=lease)
    assert len(held) == 20
    return store.rescue if way == "rescue" else lambda: release(store, held)


@postgresql
@database
@pytest.mark.parametrize("way", ["retry", "release", "rescue"])
def test_what_comes_back_in_an_open_transaction_is_in_every_ceiling(jobify: Configure, way: str) -> None:
    jobify(MAXSIZE=60, PUSH_TIMEOUT=0)
    back = come_back(way, the_store())
    note.push_many([()] * 20)
    with transaction.atomic():
        back()
        elsewhere(note.push)  # counts
    assert waiting() == 41

    for _ in range(19):
        note.push()
    for _ in range(3):
        with pytest.raises(QueueFull):
            note.push()

    assert waiting() == 60


@postgresql
@database
def test_what_is_delayed_in_an_open_transaction_is_in_every_ceiling_once_it_is_due(
    jobify: Configure,
) -> None:
    jobify(MAXSIZE=60, PUSH_TIMEOUT=0)
    store = the_store()
    note.push_many([()] * 20)
    held = take(store, 20)
    note.push_many([()] * 20)
    soon = store.clock() + 0.5
    with transaction.atomic():
        assert store.settle([released(one, "not yet", until=soon) for one in held]) == []
        elsewhere(note.push)  # counts
    until(lambda: waiting() == 41, "the time of those that are delayed")

    for _ in range(19):
        note.push()
    for _ in range(3):
        with pytest.raises(QueueFull):
            note.push()

    assert waiting() == 60


# Tables of one name


@pytest.fixture
def schema(transactional_db: None) -> Iterator[Callable[[], AbstractContextManager[None]]]:
    """Another schema with tables of the same names: a block in which this thread's connection is in it."""
    tables = ("jobify_job", "jobify_queue", "jobify_queuechange", "jobify_pool")

    def run(*statements: str) -> None:
        with connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)

    @contextmanager
    def inside() -> Iterator[None]:
        run("SET search_path = staging")
        try:
            yield
        finally:
            run("SET search_path = public")

    run("DROP SCHEMA IF EXISTS staging CASCADE", "CREATE SCHEMA staging")
    run(*(f"CREATE TABLE staging.{name} (LIKE public.{name} INCLUDING ALL)" for name in tables))
    run("CREATE SEQUENCE staging.jobify_job_number")
    yield inside
    run("DROP SCHEMA staging CASCADE")


Schema = Callable[[], AbstractContextManager[None]]


@postgresql
@database
def test_tables_in_two_schemas_have_bounds_of_their_own(jobify: Configure, schema: Schema) -> None:
    jobify(MAXSIZE=3, PUSH_TIMEOUT=0)

    def push_there() -> None:
        with schema():
            note.push_many([()] * 3)

    with transaction.atomic():
        note.push_many([()] * 3)
        elsewhere(push_there)
    assert waiting() == 3
    with schema():
        assert waiting() == 3


@postgresql
@database
def test_who_shares_a_table_shares_its_bound_whatever_the_search_path(
    jobify: Configure, schema: Schema
) -> None:
    jobify(MAXSIZE=3, PUSH_TIMEOUT=0)

    def push_by_another_way() -> None:
        with connection.cursor() as cursor:
            cursor.execute("SET search_path = nowhere, public")
        note.push()

    with transaction.atomic():
        note.push_many([()] * 3)
        with pytest.raises(QueueFull):
            elsewhere(push_by_another_way)


@postgresql
@database
def test_a_ceiling_of_one_schema_says_nothing_of_another(jobify: Configure, schema: Schema) -> None:
    jobify(MAXSIZE=20, PUSH_TIMEOUT=0)
    with schema():
        note.push_many([()] * 19)
    note.push_many([()] * 6)
    note.push()
    with schema():
        note.push()
        for _ in range(3):
            with pytest.raises(QueueFull):
                note.push()
        assert waiting() == 20


@postgresql
@database
def test_what_a_transaction_announced_in_one_schema_speaks_for_no_other(
    jobify: Configure, schema: Schema
) -> None:
    jobify(MAXSIZE=6, PUSH_TIMEOUT=0)

    def push_there(jobs: int) -> None:
        with schema():
            note.push_many([()] * jobs)

    with transaction.atomic():
        note.push_many([()] * 2)
        note.push()  # announces two
        with schema():
            note.push()
        with pytest.raises(QueueFull):
            elsewhere(lambda: push_there(6))  # as many as fit
    with schema():
        assert waiting() == 6


@postgresql
@database
def test_claims_of_a_capped_queue_in_two_schemas_do_not_wait_for_each_other(
    jobify: Configure, schema: Schema
) -> None:
    store = the_store()

    def claim() -> int:
        return len(take(store, max_running=1))

    def claim_there() -> int:
        with schema():
            note.push()
            return claim()

    note.push()
    with transaction.atomic():
        assert claim() == 1
        assert elsewhere(claim_there) == 1


# What was loaded


@database
@pytest.mark.parametrize("models", [("job", "queue"), ("job",)], ids=["with queues", "without queues"])
def test_what_is_pushed_after_a_load_stands_behind_what_was_loaded(
    jobify: Configure, tmp_path: Path, models: Sequence[str]
) -> None:
    dump = tmp_path / "dump.json"
    note.push_many([()] * 5)
    call_command("dumpdata", *(f"jobify_django.{model}" for model in models), output=str(dump), verbosity=0)
    Job.objects.update(sequence=F("sequence") + 900)
    call_command("dumpdata", "jobify_django.job", output=str(tmp_path / "later.json"), verbosity=0)
    Job.objects.all().delete()
    Queue.objects.all().delete()

    call_command("loaddata", str(dump), verbosity=0)
    call_command("loaddata", str(tmp_path / "later.json"), verbosity=0)
    last = note.push()

    assert last.position() == 5
    assert waiting() == 6


@database
def test_loaded_jobs_count_for_the_bound(jobify: Configure, tmp_path: Path) -> None:
    jobify(MAXSIZE=5, PUSH_TIMEOUT=0)
    note.push_many([()] * 5)
    dump = str(tmp_path / "dump.json")
    call_command("dumpdata", "jobify_django.job", output=dump, verbosity=0)
    Job.objects.all().delete()
    Queue.objects.all().delete()

    call_command("loaddata", dump, verbosity=0)

    with pytest.raises(QueueFull):
        note.push()


@postgresql
@database
def test_a_database_made_without_migrations_gets_its_sequence(jobify: Configure) -> None:
    with connection.cursor() as cursor:
        cursor.execute("DROP SEQUENCE jobify_job_number")

    emit_post_migrate_signal(verbosity=0, interactive=False, db="default")

    assert note.push().record().status is JobStatus.WAITING
