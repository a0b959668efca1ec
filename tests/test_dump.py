"""A project's data goes out with ``dumpdata`` and in with ``loaddata``, here and on another database."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.auth.models import Permission, User
from django.contrib.contenttypes.models import ContentType
from django.contrib.sessions.backends.db import SessionStore
from django.core.management import call_command
from django.db import connection, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.test import Client
from django.urls import reverse

from jobify_django import JobStatus, QueueFull, queue, task
from jobify_django.job import JobRecord
from jobify_django.models import Job, Pool, Queue, QueueChange
from jobify_django.stores.value import JobQuery
from tests.child import PATIENCE
from tests.claims import claim as take
from tests.schema import schema
from tests.settings import SQLITE_OPTIONS
from tests.test_router import ensure_connection
from tests.workshop import at_work, clear, pushed

pytestmark = pytest.mark.django_db(transaction=True)

NATURAL = ("--natural-foreign", "--natural-primary")
OURS = (Job, Queue, QueueChange, Pool)
LEASE = 60.0


@task
def note(value: int = 0) -> int:
    return value


def fail() -> None:
    raise ValueError("as the test wants")


@pytest.fixture(autouse=True)
def jobs_on(settings: Any) -> Iterator[Callable[[str], None]]:
    """Choose the database that jobs wait on."""

    def choose(alias: str) -> None:
        settings.JOBIFY = {"DATABASE": alias, "MAXSIZE": 5, "PUSH_TIMEOUT": 0}

    choose("default")
    yield choose
    clear()


@pytest.fixture
def other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Another database, on SQLite, with the tables of the whole project."""
    with a_database("other", tmp_path / "other.sqlite3", monkeypatch):
        call_command("migrate", database="other", verbosity=0)
        yield "other"


@contextmanager
def a_database(alias: str, file: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    # As in tests/test_router.py: Django's test cases forbid a database that is younger than they are.
    with monkeypatch.context() as patch:
        patch.setattr(BaseDatabaseWrapper, "ensure_connection", ensure_connection)
        connections.settings[alias] = {
            **connections.settings["default"],
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": str(file),
            "OPTIONS": SQLITE_OPTIONS,
        }
        try:
            yield
        finally:
            clear()
            connections[alias].close()
            del connections[alias]
            del connections.settings[alias]


def a_project_at_work(alias: str = "default") -> None:
    """Make users, a session, an entry of the admin's log, and a queue with jobs in every state."""
    user = User.objects.db_manager(alias).create_user("ada", password="x")
    user.user_permissions.add(Permission.objects.using(alias).get(codename="tune_queue"))
    session = SessionStore()
    session["basket"] = ["ord-1"]
    if alias == "default":
        session.save()
    kind = ContentType.objects.db_manager(alias).get(app_label="jobify_django", model="queue")
    LogEntry.objects.using(alias).create(
        user=user, content_type=kind, object_id="default", action_flag=CHANGE
    )
    with at_work():
        pushed(lambda: "done").wait(timeout=PATIENCE)
        pushed(fail).wait(timeout=PATIENCE)
    running = note.using(priority=9).push(1)
    assert take(queue().store, lease=LEASE)
    running.refresh()
    assert running.status is JobStatus.RUNNING
    note.using(priority=-5).push(2)
    note.push(3)
    note.using(delay=3600).push(4)
    assert note.push(5).cancel()
    queue().tune(workers=3, maxsize=4, actor="ada")
    Pool.objects.using(alias).create(
        id="a-pool", host="a", pid=1, kind="runjobs", started_at=1.0, seen_at=2.0, queues="{}"
    )


def dumped(directory: Path, *labels: str, database: str = "default") -> str:
    """Dump, as a user does, and return the file's path: it is whole."""
    file = directory / f"dump-{database}.json"
    call_command("dumpdata", *labels, database=database, output=str(file), verbosity=0)
    json.loads(file.read_text())
    return str(file)


def ours(alias: str = "default") -> dict[str, list[dict[str, Any]]]:
    """Return every row of this app's tables."""
    rows: dict[str, list[dict[str, Any]]] = {
        model.__name__: [dict(row) for row in model._default_manager.using(alias).order_by("pk").values()]
        for model in OURS
    }
    for row in rows["Queue"]:
        del row["sequence"], row["waiting"]  # books that each database keeps in its own way
    return rows


def the_rest(alias: str = "default") -> list[object]:
    user = User.objects.using(alias).get()
    entry = LogEntry.objects.using(alias).get()
    kind = ContentType.objects.db_manager(alias).get_for_id(entry.content_type_id or 0)
    granted = user.user_permissions.values_list("codename", flat=True)
    return [user.username, list(granted), entry.user_id == user.pk, kind.model, entry.object_id]


def goes_on(alias: str = "default") -> None:
    """Push behind what was loaded, up to the bound, and let the jobs that wait run."""
    before = waiting_jobs()
    assert [job.arguments for job in before] == ["[[3],{}]", "[[2],{}]"]
    last = note.using(priority=-5).push(6)
    assert last.position() == 2
    others = Job.objects.using(alias).exclude(id=last.id)
    assert last.record().sequence > max(others.values_list("sequence", flat=True))
    note.using(priority=-5).push(7)
    with pytest.raises(QueueFull):
        note.push(8)
    queue().tune(workers=1)
    with at_work():
        last.wait(timeout=PATIENCE)
    for job in before:
        assert queue().store.get([job.id])[job.id].status is JobStatus.SUCCESSFUL


def waiting_jobs() -> list[JobRecord]:
    return list(queue().store.query(JobQuery(status=JobStatus.WAITING, limit=10)))


# In one database


@pytest.mark.parametrize("options", [(), ("--all",), NATURAL], ids=" ".join)
def test_a_whole_project_is_dumped_and_loaded_again(tmp_path: Path, options: tuple[str, ...]) -> None:
    a_project_at_work()
    before, rest = ours(), the_rest()
    assert {row["status"] for row in before["Job"]} == set(JobStatus)
    dump = dumped(tmp_path, *options)
    if options == NATURAL:
        call_command("flush", interactive=False, verbosity=0)
    else:
        for model in (*OURS, LogEntry, User):
            model.objects.all().delete()

    call_command("loaddata", dump, verbosity=0)

    assert (ours(), the_rest()) == (before, rest)
    goes_on()


def test_this_app_alone_is_dumped_and_loaded_again(tmp_path: Path) -> None:
    a_project_at_work()
    before = ours()
    dump = dumped(tmp_path, "jobify_django")
    for model in OURS:
        model.objects.all().delete()

    call_command("loaddata", dump, verbosity=0)

    assert ours() == before
    goes_on()


def test_what_a_test_case_with_a_serialized_rollback_keeps_is_loaded_again() -> None:
    a_project_at_work()
    before, rest = ours(), the_rest()
    kept = connection.creation.serialize_db_to_string()
    call_command("flush", interactive=False, inhibit_post_migrate=True, verbosity=0)
    assert not User.objects.exists()

    connection.creation.deserialize_db_from_string(kept)

    assert (ours(), the_rest()) == (before, rest)
    goes_on()


def test_a_queue_works_after_its_database_was_flushed() -> None:
    a_project_at_work()
    call_command("flush", interactive=False, verbosity=0)

    with at_work():
        job = note.push(7)
        job.wait(timeout=PATIENCE)

    assert job.result() == 7


# Across databases


def test_a_project_moves_to_another_database(
    tmp_path: Path, other: str, jobs_on: Callable[[str], None]
) -> None:
    a_project_at_work()
    before, rest = ours(), the_rest()

    call_command("loaddata", dumped(tmp_path, *NATURAL), database=other, verbosity=0)

    assert (ours(other), the_rest(other)) == (before, rest)
    jobs_on(other)
    goes_on(other)


def test_a_project_moves_here_from_another_database(
    tmp_path: Path, other: str, jobs_on: Callable[[str], None]
) -> None:
    jobs_on(other)
    a_project_at_work(other)
    before, rest = ours(other), the_rest(other)
    dump = dumped(tmp_path, *NATURAL, database=other)
    jobs_on("default")

    call_command("loaddata", dump, verbosity=0)

    assert (ours(), the_rest()) == (before, rest)
    goes_on()


def test_jobs_on_a_database_of_their_own_are_dumped_and_loaded_there(
    tmp_path: Path,
    settings: Any,
    jobs_on: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings.DATABASE_ROUTERS = ["jobify_django.router.JobifyRouter"]
    with a_database("jobs", tmp_path / "jobs.sqlite3", monkeypatch):
        jobs_on("jobs")
        call_command("migrate", database="jobs", verbosity=0)
        a_user_and_jobs()
        before = ours("jobs")
        dumps = [dumped(tmp_path, *NATURAL, database=alias) for alias in ("default", "jobs")]
        assert "jobify_django.job" not in Path(dumps[0]).read_text()
        for model in OURS:
            model.objects.using("jobs").all().delete()
        User.objects.all().delete()

        for dump in dumps:
            for alias in ("default", "jobs"):
                call_command("loaddata", dump, database=alias, verbosity=0)

        assert ours("jobs") == before
        assert User.objects.get().username == "ada"
        assert note.push(3).position() == 2


def a_user_and_jobs() -> None:
    User.objects.create_user("ada")
    note.push_many([(1,), (2,)])
    queue().tune(workers=3)


# What walks all models


def test_every_model_can_be_read() -> None:
    for model in apps.get_models():
        assert model._default_manager.count() == len(model._default_manager.all())


@pytest.mark.parametrize("command", ["sqlflush", "inspectdb"])
def test_a_command_that_walks_the_tables_works(command: str) -> None:
    out = io.StringIO()

    call_command(command, stdout=out)

    assert "jobify_job" in out.getvalue()
    assert "unable" not in out.getvalue().lower()


def test_the_admins_documentation_shows_every_model_of_ours(admin_client: Client, settings: Any) -> None:
    pytest.importorskip("docutils")
    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "django.contrib.admindocs"]
    settings.ROOT_URLCONF = "tests.documented"

    page = admin_client.get(reverse("django-admindocs-models-index")).text

    for model in apps.get_app_config("jobify_django").get_models():
        address = reverse("django-admindocs-models-detail", args=("jobify_django", model._meta.model_name))
        assert address in page
        assert admin_client.get(address).status_code == 200


# Migrations


def test_migrations_go_back_and_forth_and_keep_the_overviews_place(
    admin_client: Client, settings: Any
) -> None:
    settings.MIGRATION_MODULES = {"jobify_django": "tests.later"}
    kind = ContentType.objects.get(app_label="jobify_django", model="overview")
    permissions = set(Permission.objects.values_list("content_type__model", "codename"))
    a_job = note.push(1)

    call_command("migrate", verbosity=0)
    assert "tag" in schema().columns["jobify_job"]
    call_command("migrate", "jobify_django", "0001", verbosity=0)
    call_command("migrate", run_syncdb=True, verbosity=0)
    call_command("migrate", "jobify_django", "0001", verbosity=0)
    call_command("remove_stale_contenttypes", interactive=False, include_stale_apps=True, verbosity=0)

    ContentType.objects.clear_cache()
    assert ContentType.objects.get(app_label="jobify_django", model="overview") == kind
    assert set(Permission.objects.values_list("content_type__model", "codename")) == permissions
    assert not [one for one in permissions if one[0] == "overview"]
    assert a_job.position() == 0
    assert reverse("admin:jobify_django_overview_changelist") in admin_client.get(reverse("admin:index")).text


def test_the_tables_are_taken_away_and_made_again(other: str) -> None:
    call_command("migrate", "jobify_django", "zero", database=other, verbosity=0)
    assert not [name for name in connections[other].introspection.table_names() if "jobify" in name]

    call_command("migrate", database=other, verbosity=0)

    assert {model.objects.using(other).count() for model in OURS} == {0}
