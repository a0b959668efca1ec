"""Migrations only add: CONTRIBUTING.md's rule, and pools that are at work while one of each kind runs."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection, connections, migrations, models, transaction
from django.db.migrations import Migration
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.operations.base import Operation
from django.db.models import Q
from django.db.models.functions import Now

import tests.later
from jobify_django import Job, JobStatus, QueueFull, queue, task
from jobify_django.migrations._operations import AddFieldInPlace, AddIndexOnline, SQLOn
from jobify_django.models import Job as Row
from jobify_django.models import Pool, Queue, QueueChange
from jobify_django.stores.value import JobQuery
from tests.child import PATIENCE, Child, until
from tests.migration_rule import APP, broken
from tests.schema import rows, schema
from tests.workshop import Configure, at_work, database, held

FIRST = "0001_initial"


def chain() -> list[tuple[Migration, Any]]:
    """Return the migrations after the first one, each with the state before it."""
    loader = MigrationLoader(None)
    ((_, last),) = loader.graph.leaf_nodes(APP)
    names = [name for app, name in loader.graph.forwards_plan((APP, last)) if app == APP]
    assert names[0] == FIRST
    assert len(names) == len([one for one in loader.disk_migrations if one[0] == APP]), (
        "one line, no branches"
    )
    return [
        (loader.graph.nodes[APP, name], loader.project_state((APP, before)))
        for before, name in pairwise(names)
    ]


def state() -> Any:
    """Return the state of all models after the first migration."""
    return MigrationLoader(None).project_state((APP, FIRST))


def migration(*operations: Operation, atomic: bool = True) -> Migration:
    """Return a migration that does this."""
    made = Migration("0002_test", APP)
    made.operations = list(operations)
    made.atomic = atomic
    return made


# The rule


def test_every_migration_after_the_first_only_adds() -> None:
    for one, before in chain():
        assert broken(one, before) == []


def test_those_that_the_tests_run_beside_pools_are_such(settings: Any) -> None:
    settings.MIGRATION_MODULES = {APP: "tests.later"}
    found = chain()
    assert len(found) > 5
    for one, before in found:
        assert broken(one, before) == []


TEXT = models.TextField(null=True)
INDEX = models.Index(fields=["task"], name="jobify_job_task")
NEW = migrations.CreateModel("Label", [("id", models.BigAutoField(primary_key=True)), ("text", TEXT)])


@pytest.mark.parametrize(
    "good",
    [
        migration(migrations.AddField("job", "tag", TEXT)),
        migration(AddFieldInPlace("job", "weight", models.IntegerField(default=1, db_default=1))),
        migration(AddFieldInPlace("job", "weight", models.IntegerField(null=True, db_default=1))),
        migration(migrations.AddField("job", "tag", TEXT), migrations.AddField("job", "other", TEXT)),
        migration(AddIndexOnline("job", INDEX), atomic=False),
        migration(
            NEW,
            migrations.AddField("label", "size", models.IntegerField()),
            migrations.AddIndex("label", models.Index(fields=["text"], name="jobify_label_text")),
            migrations.AddField("job", "tag", TEXT),
        ),
        migration(
            migrations.CreateModel(
                "Label",
                [("job", models.ForeignKey(f"{APP}.job", models.CASCADE, db_constraint=False))],
            )
        ),
        migration(
            migrations.AlterField(
                "job", "status", models.CharField("state", choices=[("new", "new")], max_length=10)
            )
        ),
        migration(migrations.AlterModelOptions("job", {"verbose_name": "a job"})),
        migration(SQLOn("postgresql", ["CREATE SEQUENCE IF NOT EXISTS jobify_label_number"], [])),
        migration(SQLOn("mysql", ["CREATE INDEX jobify_job_task ON jobify_job (queue, task)"], [])),
        migration(SQLOn("sqlite", ["CREATE INDEX jobify_job_task ON jobify_job (task) WHERE flags > 0"], [])),
    ],
)
def test_a_migration_that_only_adds_is_let_through(good: Migration) -> None:
    assert broken(good, state()) == []


class Unheard(Operation):
    """An operation that nobody has judged."""

    def state_forwards(self, app_label: str, state: Any) -> None: ...


class AddFieldSomehow(migrations.AddField):
    """A known one that does more."""


LATER = "Leave it where it is"


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (migrations.RemoveField("job", "extra"), LATER),
        (migrations.DeleteModel("QueueChange"), LATER),
        (migrations.RemoveIndex("job", "jobify_job_waiting"), LATER),
        (migrations.RenameField("job", "extra", "more"), "add a new one"),
        (migrations.RenameModel("Pool", "Process"), "add a new one"),
        (migrations.AlterModelTable("pool", "jobify_process"), "add a new one"),
        (
            migrations.RenameIndex("job", new_name="jobify_job_w", old_name="jobify_job_waiting"),
            "add a new one",
        ),
        (migrations.AlterField("job", "task", models.CharField(max_length=300)), "add a new one"),
        (migrations.AlterField("job", "result", models.TextField()), "add a new one"),
        (migrations.AlterField("job", "attempt", models.IntegerField(default=0)), "add a new one"),
        (migrations.AlterField("job", "task", models.CharField(max_length=255, db_column="t")), "add a new"),
        (migrations.AlterField("job", "flags", models.PositiveSmallIntegerField(db_default=1)), "add a new"),
        (migrations.AddField("job", "tag", models.TextField()), "have a db_default"),
        (migrations.AddField("job", "tag", models.TextField(default="")), "have a db_default"),
        (migrations.AddField("job", "tag", models.TextField(null=True, default="")), "Leave it out"),
        (migrations.AddField("job", "weight", models.IntegerField(db_default=1)), "Use AddFieldInPlace"),
        (
            migrations.AddField("job", "tag", models.CharField(max_length=9, null=True, unique=True)),
            "new table",
        ),
        (migrations.AddField("job", "tag", models.IntegerField(null=True, db_index=True)), "AddIndexOnline"),
        (
            migrations.AddField("job", "line", models.ForeignKey(f"{APP}.queue", models.CASCADE, null=True)),
            "db_constraint=False",
        ),
        (
            migrations.AddField("job", "tags", models.ManyToManyField(f"{APP}.queue")),
            "db_constraint=False",
        ),
        (
            migrations.AddField(
                "job",
                "twice",
                models.GeneratedField(
                    expression=models.F("flags") * 2, output_field=models.IntegerField(), db_persist=True
                ),
            ),
            "new table",
        ),
        (AddFieldInPlace("job", "weight", models.IntegerField(default=1)), "Give it a db_default"),
        (AddFieldInPlace("job", "at", models.DateTimeField(db_default=Now())), "Use a constant"),
        (migrations.AddIndex("job", INDEX), "Use AddIndexOnline"),
        (AddIndexOnline("job", INDEX), "atomic = False"),
        (
            migrations.AddConstraint("job", models.CheckConstraint(condition=Q(flags__lt=9), name="few")),
            "may break it",
        ),
        (migrations.AlterUniqueTogether("queuechange", {("queue", "version")}), "may break it"),
        (
            migrations.CreateModel("Label", [("job", models.ForeignKey(f"{APP}.job", models.CASCADE))]),
            "db_constraint=False",
        ),
        (migrations.RunPython(migrations.RunPython.noop), "in small parts"),
        (migrations.RunSQL("UPDATE jobify_job SET flags = 1"), "Use SQLOn"),
        (migrations.SeparateDatabaseAndState(), "operations themselves"),
        (SQLOn("mysql", ["CREATE UNIQUE INDEX one ON jobify_job (task)"], []), "not known to do no harm"),
        (SQLOn("postgresql", ["CREATE INDEX one ON jobify_job (task)"], []), "not known to do no harm"),
        (SQLOn("oracle", ["CREATE INDEX one ON jobify_job (task)"], []), "not known to do no harm"),
        (Unheard(), "Unheard is not known here. Find out what it locks"),
        (AddFieldSomehow("job", "tag", TEXT), "AddFieldSomehow is not known here"),
    ],
)
def test_a_migration_that_does_more_than_add_is_refused_and_told_what_to_do(
    bad: Operation, reason: str
) -> None:
    said = broken(migration(bad), state())
    assert reason in " ".join(said)
    assert all(one.startswith("0002_test: ") for one in said)


def test_two_tables_in_use_are_altered_one_after_the_other() -> None:
    tags = [migrations.AddField(table, "tag", TEXT) for table in ("job", "queue")]
    (said,) = broken(migration(*tags), state())
    assert "alters several tables (job, queue)" in said
    assert all(broken(migration(tag), state()) == [] for tag in tags)


def test_an_index_that_is_made_online_has_a_migration_of_its_own() -> None:
    tag = migrations.AddField("job", "tag", TEXT)
    (said,) = broken(migration(tag, AddIndexOnline("job", INDEX), atomic=False), state())
    assert "Give it a migration of its own" in said


def test_the_state_that_a_migration_is_judged_by_stays_as_it_was() -> None:
    before = state()
    broken(migration(migrations.AddField("job", "tag", TEXT)), before)
    assert "tag" not in before.models[APP, "job"].fields


# Beside pools at work


MAXSIZE, WORKERS = 3, 3


@task
def count() -> int:
    return 1


@task
async def acount() -> int:
    return 2


class Traffic:
    """Threads that push, wait and tune until the block ends. What fails ends them, and the test."""

    def __init__(self) -> None:
        self.ended: dict[str, JobStatus] = {}
        self.rounds: Counter[str] = Counter()
        self._failed: list[BaseException] = []
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._go_on, args=(act,), name=f"traffic-{act.__name__}")
            for act in (push, push_inside, operate)
        ]

    def __enter__(self) -> Traffic:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(PATIENCE)
            assert not thread.is_alive(), thread.name
        if self._failed:
            raise self._failed[0]

    def goes_on(self, more: int = 5) -> None:
        """Wait until each thread has gone so many more rounds."""
        goal = Counter({thread.name: self.rounds[thread.name] + more for thread in self._threads})
        until(lambda: self._failed or self.rounds >= goal, "so many rounds")

    def _go_on(self, act: Callable[[], Iterator[Job[int]]]) -> None:
        try:
            while not self._stop.is_set() and not self._failed:
                for job in act():
                    job.wait(timeout=PATIENCE)
                    self.ended[job.id] = job.record().status
                self.rounds[threading.current_thread().name] += 1
        except BaseException as error:
            self._failed.append(error)
        finally:
            connections.close_all()


def push() -> Iterator[Job[int]]:
    """Push in both ways, also more than there is room for."""
    yield count.push()
    yield acount.push()
    yield from count.push_many([()] * (MAXSIZE + 2))


def push_inside() -> Iterator[Job[int]]:
    """Push within a transaction, where no push waits for room."""
    with suppress(QueueFull):
        with transaction.atomic():
            job = count.push()
        yield job


def operate() -> Iterator[Job[int]]:
    """Do what operators do."""
    line = queue()
    version = line.tune(workers=WORKERS + 1).version
    line.tune(workers=WORKERS, expected=version)
    assert line.stats().pools
    job = count.using(delay=3600).push()
    assert job.cancel()
    yield job
    assert list(line.store.query(JobQuery(limit=5)))
    assert line.store.changes("default", 5)


MIGRATE = """
import django
from django.conf import settings
from django.core.management import call_command

settings.MIGRATION_MODULES = {"jobify_django": "tests.later"}
django.setup()
call_command("migrate", "jobify_django", skip_checks=True)
"""


@pytest.fixture
def later(settings: Any, child_environment: dict[str, str]) -> Iterator[Callable[[], str]]:
    """Let another process run the migrations of a later release. They are undone when the test ends."""
    before = schema()

    def migrate() -> str:
        with Child(["-c", MIGRATE], child_environment) as child:
            assert child.end() == 0, child.output
            return child.output

    yield migrate
    settings.MIGRATION_MODULES = {APP: "tests.later"}
    call_command("migrate", APP, FIRST, verbosity=0)
    assert schema() == before


@database
def test_pools_and_pushes_go_on_while_migrations_of_a_later_release_run(
    jobify: Configure, later: Callable[[], str], caplog: pytest.LogCaptureFixture
) -> None:
    jobify(MAXSIZE=MAXSIZE, PUSH_TIMEOUT=PATIENCE, WORKERS=WORKERS)
    with caplog.at_level(logging.WARNING), at_work():
        waiting = count.using(delay=3600).push()
        job, gate = held()
        gate.reached()
        with Traffic() as traffic:
            traffic.goes_on()
            done = set(traffic.ended)

            said = later()

            assert said.count("... OK") == len(list(Path(tests.later.__file__).parent.glob("0*.py")))
            assert set(traffic.ended) - done, "nothing ran meanwhile"
            traffic.goes_on()
        gate.open()
        job.wait(timeout=PATIENCE)
    assert [record.getMessage() for record in caplog.records if record.name.startswith("jobify")] == []

    assert {"tag", "weight"} < set(schema().columns["jobify_job"])
    counted = Counter(traffic.ended.values())
    assert set(counted) == {JobStatus.SUCCESSFUL, JobStatus.CANCELLED}
    assert waiting.record().status is JobStatus.DELAYED
    assert Row.objects.count() == len(traffic.ended) + 2
    for one in Row.objects.exclude(id=waiting.id):
        assert one.error is one.history is None
        assert (one.attempt, one.crashes) == (int(one.status != "cancelled"), 0)


@database
def test_models_of_the_release_before_write_rows_without_the_new_columns(
    jobify: Configure, later: Callable[[], str]
) -> None:
    later()
    Row.objects.create(
        id="old",
        queue="default",
        task="a.task",
        arguments="[[],{}]",
        status="successful",
        sequence=1,
        order_key=0,
        pushed_at=0.0,
        eligible_at=0.0,
        ended_at=1.0,
    )
    Queue.objects.create(name="old")
    Pool.objects.create(id="old", host="a", pid=1, kind="runjobs", started_at=0.0, seen_at=0.0, queues="{}")
    QueueChange.objects.create(
        queue="old", version=1, actor="", source="code", changed_at=0.0, before="{}", after="{}"
    )
    assert rows(connection, "SELECT tag, weight FROM jobify_job") == [(None, 1)]
    assert rows(connection, "SELECT quota, owner FROM jobify_queue WHERE name = 'old'") == [(0, None)]
    assert rows(connection, "SELECT region FROM jobify_pool") == [(None,)]
    assert rows(connection, "SELECT reason FROM jobify_queuechange") == [(None,)]


ALTERING = {
    "postgresql": "SELECT count(*) FROM pg_locks WHERE relation = 'jobify_job'::regclass AND NOT granted",
    "mysql": "SELECT count(*) FROM information_schema.processlist WHERE state LIKE '%metadata lock'",
}
"""How many sessions wait to alter a table."""


@database
def test_a_push_in_a_transaction_goes_before_a_migration_that_has_come_to_wait(jobify: Configure) -> None:
    if connection.vendor == "sqlite":
        pytest.skip("there nobody begins to write while another one does")
    jobify()
    count.push()  # so that the queue has its row

    def alter(change: str) -> None:
        with connection.cursor() as cursor:
            cursor.execute(f"ALTER TABLE jobify_job {change}")

    def migrate() -> None:
        try:
            alter("ADD COLUMN tag integer")
        finally:
            connections.close_all()

    altering = threading.Thread(target=migrate)

    def come_between(execute: Any, sql: str, *rest: Any) -> Any:
        if "INTO jobify_job" in sql and not altering.ident:
            altering.start()
            until(lambda: rows(connection, ALTERING[connection.vendor]) == [(1,)], "the migration's wait")
        return execute(sql, *rest)

    try:
        with transaction.atomic():
            count.push()
            with connection.execute_wrapper(come_between):
                job = count.push()
        altering.join(PATIENCE)
        assert "tag" in schema().columns["jobify_job"]
    finally:
        altering.join(PATIENCE)
        alter("DROP COLUMN tag")
    assert job.record().status is JobStatus.WAITING
