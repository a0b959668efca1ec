"""The system checks: each id fires for its cause, and is silent without it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core import checks
from django.core.checks import CheckMessage
from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from django.db.backends.dummy.base import DatabaseWrapper

from jobify_django import queue, task
from jobify_django.checks import check_database, check_settings, wal_is_safe
from jobify_django.registry import tasks
from tests.workshop import only_these_tasks

Messages = dict[str, CheckMessage]


def found() -> Messages:
    return {message.id or "": message for message in check_settings(None)}


def found_in_database(alias: str = "default") -> Messages:
    return {message.id or "": message for message in check_database(None, databases=[alias])}


@pytest.fixture(autouse=True)
def _own_tasks() -> Iterator[None]:
    """Without the tasks of other tests."""
    with only_these_tasks():
        yield


@pytest.fixture
def another_database(tmp_path: Path, django_db_blocker: Any) -> Iterator[Callable[..., str]]:
    """Databases beside the tests' own; none of them has a table."""
    made: list[str] = []

    def make(alias: str, **values: Any) -> str:
        connections.settings[alias] = {
            **connections.settings["default"],
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": str(tmp_path / f"{alias}.sqlite3"),
            "OPTIONS": {},
            **values,
        }
        made.append(alias)
        return alias

    with django_db_blocker.unblock():
        yield make
    for alias in made:
        connections[alias].close()
        del connections[alias]
        del connections.settings[alias]


def plain() -> None: ...


def test_right_settings_have_nothing_to_say(settings: Any) -> None:
    settings.JOBIFY = {"PRIORITIES": {"critical": 100}, "QUEUES": {"mail": {"WORKERS": 2}}}
    task(name="good", queue="mail", priority="critical")(plain)
    assert found() == {}
    del settings.JOBIFY
    tasks.forget("good")
    assert found() == {}


@pytest.mark.parametrize(
    ("id", "jobify", "said", "hint"),
    [
        ("E001", ["STORE"], "JOBIFY must be a dict, not ['STORE']", None),
        ("E002", {"WORKRES": 3}, "unknown key 'WORKRES' (did you mean 'WORKERS'?)", "Known keys: STORE"),
        ("E002", {"workers": 3}, "unknown key 'workers' (did you mean 'WORKERS'?)", "Known keys"),
        ("E002", {"QUEUES": {"mail": {"GRACE": 1}}}, "['mail'] has an unknown key 'GRACE'", "Known keys"),
        ("E003", {"WORKERS": 0}, "JOBIFY['WORKERS'] is 0", "a whole number from 1 to 1000"),
        ("E003", {"QUEUES": {"mail": {"ORDER": "filo"}}}, "['mail']['ORDER'] is 'filo'", "one of 'priority'"),
        ("E003", {"QUEUES": []}, "JOBIFY['QUEUES'] must be a dict", None),
        ("E004", {"QUEUES": {"Mail!": {}}}, "'Mail!' is no name for a queue", "1 to 64 characters"),
        ("E005", {"PRIORITIES": {"critical": 1000}}, "['critical'] is 1000", "from -100 to 100"),
        ("E006", {"DATABASE": "nowhere"}, "JOBIFY['DATABASE'] is 'nowhere'", "Known keys: default"),
        ("E008", {"STORE": "tests.nowhere.Store"}, "'tests.nowhere.Store' cannot be imported", None),
        ("E008", {"STORE": "pathlib.Path"}, "'pathlib.Path' is no subclass of", None),
    ],
)
def test_what_is_wrong_in_the_settings_is_an_error_with_a_hint(
    settings: Any, id: str, jobify: Any, said: str, hint: str | None
) -> None:
    settings.JOBIFY = jobify
    messages = found()
    assert list(messages) == [f"jobify.{id}"]
    message = messages[f"jobify.{id}"]
    assert said in message.msg
    assert (hint or "") in (message.hint or "")
    assert message.level == checks.ERROR


def test_everything_wrong_in_the_settings_is_said_at_once(settings: Any) -> None:
    settings.JOBIFY = {"WORKERS": 0, "MAXSIZE": 0, "colour": "red"}
    assert len(check_settings(None)) == 3


def test_a_database_of_an_unknown_kind_is_an_error(
    settings: Any, another_database: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.DATABASE_ROUTERS = ["jobify_django.router.JobifyRouter"]
    settings.JOBIFY = {"DATABASE": another_database("jobs")}
    assert found() == {}
    monkeypatch.setattr(connections["jobs"], "vendor", "oracle")
    message = found()["jobify.E007"]
    assert "'jobs' is a oracle database" in message.msg
    assert "JOBIFY['DATABASE'], or use STORE 'memory'" in (message.hint or "")


def test_settings_without_a_database_are_told_as_perhaps_the_wrong_settings(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.JOBIFY = {}
    monkeypatch.setattr(connections["default"], "vendor", DatabaseWrapper.vendor)
    message = found()["jobify.E007"]
    assert message.msg == "The settings have no database 'default' for JOBIFY['DATABASE']."
    assert "DJANGO_SETTINGS_MODULE names another module here than in manage.py" in (message.hint or "")
    with pytest.raises(ImproperlyConfigured, match=r"have no database 'default'.* manage\.py"):
        queue().stats()


def test_an_unknown_queue_of_a_task_is_an_error_that_names_the_task_and_its_line(settings: Any) -> None:
    settings.JOBIFY = {"QUEUES": {"mail": {}}}
    task(name="lost", queue="mial")(plain)
    messages = found()
    assert list(messages) == ["jobify.E009"]
    assert f"Task lost ({plain.__code__.co_filename}:" in messages["jobify.E009"].msg
    assert "no queue 'mial' (did you mean 'mail'?)" in messages["jobify.E009"].msg


def test_an_unknown_band_of_a_task_is_an_error_that_names_it(settings: Any) -> None:
    settings.JOBIFY = {"PRIORITIES": {"critical": 100}}
    task(name="lost", priority="critcal")(plain)
    messages = found()
    assert list(messages) == ["jobify.E010"]
    assert "no priority band 'critcal' (did you mean 'critical'?)" in messages["jobify.E010"].msg


ROUTER = "jobify_django.router.JobifyRouter"


@pytest.mark.parametrize(
    ("routers", "warns"),
    [([], True), ([ROUTER], False), (["tests.test_checks.OwnRouter"], False), ([f"{__name__}.Other"], True)],
)
def test_a_database_of_its_own_needs_a_router(
    settings: Any, another_database: Callable[..., str], routers: list[str], warns: bool
) -> None:
    settings.JOBIFY = {"DATABASE": another_database("jobs")}
    settings.DATABASE_ROUTERS = routers
    messages = found()
    assert list(messages) == (["jobify.W001"] if warns else [])
    if warns:
        assert ROUTER in (messages["jobify.W001"].hint or "")


class OwnRouter:
    """A project's own router, which does what ours does."""

    def db_for_read(self, model: Any, **hints: Any) -> str | None:
        return "jobs" if model._meta.app_label == "jobify_django" else None

    db_for_write = db_for_read

    def allow_migrate(self, db: str, app_label: str, **hints: Any) -> bool | None:
        return db == "jobs" if app_label == "jobify_django" else None


class Other:
    """A router that has nothing to do with jobs."""


def test_jobs_in_memory_are_a_remark_for_each_such_queue(settings: Any) -> None:
    settings.JOBIFY = {"QUEUES": {"quick": {"STORE": "memory"}}}
    messages = check_settings(None)
    assert [message.id for message in messages] == ["jobify.I001"]
    assert "queue 'quick'" in messages[0].msg
    assert messages[0].level == checks.INFO


# check --database


def test_a_database_in_memory_is_a_warning(settings: Any, another_database: Callable[..., str]) -> None:
    settings.JOBIFY = {"DATABASE": another_database("jobs", NAME=":memory:")}
    assert list(found_in_database("jobs")) == ["jobify.W002"]


def test_a_database_without_wal_is_a_warning_with_the_recipe(
    settings: Any, another_database: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sqlite3.dbapi2.sqlite_version_info", (3, 51, 3))
    settings.JOBIFY = {"DATABASE": another_database("jobs")}
    messages = found_in_database("jobs")
    assert list(messages) == ["jobify.W003"]
    assert "journal_mode=delete" in messages["jobify.W003"].msg
    assert "PRAGMA journal_mode=WAL" in (messages["jobify.W003"].hint or "")
    wal = another_database("wal", OPTIONS={"init_command": "PRAGMA journal_mode=WAL"})
    settings.JOBIFY = {"DATABASE": wal}
    assert found_in_database("wal") == {}


@pytest.mark.parametrize(
    ("version", "safe"),
    [
        ((3, 40, 1), False),
        ((3, 44, 5), False),
        ((3, 44, 6), True),
        ((3, 45, 9), False),
        ((3, 50, 6), False),
        ((3, 50, 7), True),
        ((3, 51, 2), False),
        ((3, 51, 3), True),
        ((3, 52, 0), True),
        ((4, 0, 0), True),
    ],
)
def test_an_sqlite_with_the_wal_reset_bug_is_no_reason_to_leave_wal(
    settings: Any,
    another_database: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
    version: tuple[int, ...],
    safe: bool,
) -> None:
    assert wal_is_safe(version) is safe
    monkeypatch.setattr("sqlite3.dbapi2.sqlite_version_info", version)
    settings.JOBIFY = {
        "DATABASE": another_database("jobs", OPTIONS={"init_command": "PRAGMA journal_mode=WAL"})
    }
    messages = found_in_database("jobs")
    assert list(messages) == ([] if safe else ["jobify.I002"])
    if not safe:
        assert messages["jobify.I002"].level == checks.INFO
        assert "Keep WAL, and back the file up" in (messages["jobify.I002"].hint or "")
        assert "3.51.3, 3.50.7 and 3.44.6" in (messages["jobify.I002"].hint or "")


def test_whatever_the_sqlite_the_advice_to_use_wal_is_one_that_stays(
    settings: Any, another_database: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sqlite3.dbapi2.sqlite_version_info", (3, 40, 1))  # Debian 12's
    settings.JOBIFY = {"DATABASE": another_database("jobs")}
    assert list(found_in_database("jobs")) == ["jobify.W003"]
    # Followed, it leads to nothing that "check --fail-level WARNING" would refuse for ever.
    options = {"init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;"}
    settings.JOBIFY = {"DATABASE": another_database("wal", OPTIONS=options)}
    assert not [one for one in found_in_database("wal").values() if one.is_serious(checks.WARNING)]


def test_a_database_without_jobs_is_left_alone(settings: Any, another_database: Callable[..., str]) -> None:
    other = another_database("other", NAME=":memory:")
    settings.JOBIFY = {}
    assert found_in_database(other) == {}  # jobs are on "default"
    settings.JOBIFY = {"STORE": "memory", "DATABASE": other}
    assert found_in_database(other) == {}
    settings.JOBIFY = {"WORKERS": 0, "DATABASE": other}
    assert found_in_database(other) == {}


def test_the_checks_are_registered() -> None:
    registered = checks.registry.registry.get_checks()
    assert check_settings in registered
    assert check_database in registered
