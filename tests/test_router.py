"""The router: the app's tables on the database of its own, and everything else where it was."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.core.management import call_command
from django.db import connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from jobify_django import JobStatus, queue, task
from jobify_django.models import Job, Pool, Queue, QueueChange
from jobify_django.router import JobifyRouter
from tests.child import PATIENCE
from tests.settings import SQLITE_OPTIONS
from tests.workshop import at_work, clear, pushed

router = JobifyRouter()


@task
def note(value: int) -> None: ...


@pytest.mark.parametrize("model", [Job, Queue, QueueChange, Pool])
def test_the_apps_models_are_read_and_written_where_jobs_wait(settings: Any, model: Any) -> None:
    for database in ("default", "jobs"):
        settings.JOBIFY = {"DATABASE": database}
        assert router.db_for_read(model) == router.db_for_write(model) == database


def test_other_models_are_left_to_other_routers(settings: Any) -> None:
    settings.JOBIFY = {"DATABASE": "jobs"}
    assert router.db_for_read(Group) is router.db_for_write(Group) is None
    assert router.allow_migrate("jobs", "auth") is router.allow_migrate("default", "auth") is None


def test_the_apps_tables_are_made_there_and_nowhere_else(settings: Any) -> None:
    settings.JOBIFY = {"DATABASE": "jobs"}
    assert router.allow_migrate("jobs", "jobify_django", model_name="job") is True
    assert router.allow_migrate("default", "jobify_django", model_name="job") is False


def ensure_connection(self: BaseDatabaseWrapper) -> None:
    if self.connection is None:
        with self.wrap_database_errors:
            self.connect()


@pytest.fixture
def jobs_database(
    settings: Any, tmp_path: Path, transactional_db: None, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """A database of jobs' own, migrated through the router."""
    # Django's test cases forbid databases they were not told of, and this one is younger than they are.
    # Undone here, before the test may do without a database again: or nothing would be forbidden any more.
    with monkeypatch.context() as patch:
        patch.setattr(BaseDatabaseWrapper, "ensure_connection", ensure_connection)
        connections.settings["jobs"] = {
            **connections.settings["default"],
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": str(tmp_path / "jobs.sqlite3"),
            "OPTIONS": SQLITE_OPTIONS,
        }
        settings.JOBIFY = {"DATABASE": "jobs", "MAXSIZE": 2, "PUSH_TIMEOUT": None}
        settings.DATABASE_ROUTERS = ["jobify_django.router.JobifyRouter"]
        call_command("migrate", database="jobs", verbosity=0)
        yield
        clear()
        connections["jobs"].close()
        del connections["jobs"]
        del connections.settings["jobs"]


def test_jobs_on_a_database_of_their_own_run(jobs_database: None) -> None:
    with at_work():
        job = pushed(lambda: 7)
        job.wait(timeout=PATIENCE)
        assert job.result() == 7
    assert Job.objects.get().id == job.id
    assert Job.objects.using("default").count() == 0
    tables = connections["jobs"].introspection.table_names()
    assert {"jobify_job", "jobify_queue", "jobify_queuechange", "jobify_pool"} <= set(tables)


class ReadsElsewhere:
    """A router of a project whose reads go to a replica, which may be behind."""

    def db_for_read(self, model: Any, **hints: Any) -> str:
        return "replica"

    def db_for_write(self, model: Any, **hints: Any) -> str:
        return "jobs"


def test_a_jobs_way_never_asks_a_replica(
    jobs_database: None, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    connect = BaseDatabaseWrapper.connect

    def told(self: BaseDatabaseWrapper) -> None:
        asked.append(self.alias)
        connect(self)

    monkeypatch.setattr(BaseDatabaseWrapper, "connect", told)
    monkeypatch.setitem(connections.settings, "replica", {**connections.settings["jobs"], "NAME": "/nowhere"})
    settings.DATABASE_ROUTERS = [ReadsElsewhere()]
    with at_work():
        job = pushed(lambda: 7)
        job.wait(timeout=PATIENCE)
        assert job.result() == 7
        queue().tune(workers=3)
        assert queue().stats().workers == 3
        assert pushed(lambda: 8, delay=3600).cancel()
    assert "jobs" in asked
    assert "replica" not in asked


def test_a_push_in_a_transaction_on_the_other_database_is_sent_at_its_commit(jobs_database: None) -> None:
    with transaction.atomic():
        Group.objects.create(name="ordered")
        job = note.push(1)
        assert Job.objects.count() == 0
    assert Job.objects.get().id == job.id
    with transaction.atomic():
        note.push(2)
        transaction.set_rollback(True)
    assert Job.objects.count() == 1


def test_a_push_in_a_transaction_on_the_other_database_can_be_sent_now(jobs_database: None) -> None:
    with transaction.atomic():
        note.using(on_commit=False).push(1)
        assert Job.objects.count() == 1
        transaction.set_rollback(True)
    assert Job.objects.count() == 1


def test_a_push_in_a_transaction_on_the_jobs_database_is_part_of_it(jobs_database: None) -> None:
    with transaction.atomic(using="jobs"):
        job = note.push(1)
        transaction.set_rollback(True, using="jobs")
    assert queue().store.get([job.id]) == {}
    with transaction.atomic(), transaction.atomic(using="jobs"):
        job = note.push(2)
        assert job.record().status is JobStatus.WAITING
