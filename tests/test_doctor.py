"""``manage.py jobs doctor``: what it sees, what it makes of what breaks, and its exit code."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core import checks
from django.core.management import CommandError, call_command
from django.db import connections

from jobify_django import queue, task
from jobify_django.conf import get_settings
from jobify_django.job import JobSpec, new_id
from jobify_django.stores.base import Store
from jobify_django.stores.memory import MemoryStore
from jobify_django.stores.value import PoolQueue, PoolRecord
from tests.child import Child
from tests.claims import claim
from tests.workshop import Configure, both, database, only_these_tasks

AN_HOUR = 3600.0


@task
def note() -> None: ...


@task
async def anote() -> None: ...


@pytest.fixture(autouse=True)
def only_the_tasks_of_this_module() -> Iterator[None]:
    with only_these_tasks(note, anote):
        yield


def report(*arguments: str, fails: bool = False) -> list[str]:
    """Return the lines of a report."""
    out = StringIO()
    if fails:
        with pytest.raises(CommandError):
            call_command("jobs", "doctor", *arguments, stdout=out)
    else:
        call_command("jobs", "doctor", *arguments, stdout=out)
    return out.getvalue().splitlines()


def lines(part: str, *arguments: str, fails: bool = False) -> list[str]:
    return [line for line in report(*arguments, fails=fails) if part in line]


def the_store() -> Store:
    return queue().store


def beat(*, busy: int = 0, id: str = "a-pool", kind: str = "runjobs") -> None:
    """Report a pool alive."""
    queues = {"default": PoolQueue(10, busy, 0)}
    the_store().heartbeat(PoolRecord(id, "web-1", 4121, kind, time.time(), queues))


def start(kind: Any, *, ago: float, lease: float = 60.0, pool: str = "a-pool") -> str:
    """Start a job so many seconds ago, whose lease was renewed just now, for so many seconds more."""
    store, clock = the_store(), the_store().clock
    store.clock = lambda: clock() - ago
    kind.push()
    (mine,) = claim(store, pool=pool, lease=1.0)
    store.clock = clock
    assert not store.renew(pool, {mine.id: mine.attempt}, lease).lost
    return mine.id


# Levels, and the exit code


@both
def test_what_is_not_known_is_no_pass(jobify: Configure) -> None:
    assert lines("is not known") == [
        "NOTE  ASGI_APPLICATION is not set: whether lifespan() wraps asgi.py is not known"
    ]


@both
def test_jobs_that_wait_without_a_worker_fail_a_monitor_that_asks_for_it(jobify: Configure) -> None:
    note.push()
    assert report()  # exits with 0
    with pytest.raises(
        CommandError, match=r"0 of \d+ looks found something broken\. \d found something to mend"
    ):
        call_command("jobs", "doctor", "--fail-on", "warn", stdout=StringIO())
    beat()
    assert lines("no worker is alive") == []


@both
def test_a_program_reads_one_json_document(jobify: Configure, settings: Any) -> None:
    settings.ASGI_APPLICATION = "nowhere.application"
    queue().pause()
    found = json.loads("\n".join(report("--format", "json", fails=True)))
    assert all(one.keys() == {"level", "id", "text", "fix"} and one["id"] for one in found)
    by_id = {one["id"]: one for one in found}
    assert by_id["settings"]["level"] == "PASS"
    assert by_id["queue-paused"] == {
        "level": "WARN",
        "id": "queue-paused",
        "text": "queue default is paused, 0 jobs wait",
        "fix": "manage.py jobs resume default",
    }
    assert by_id["asgi"]["level"] == "FAIL"


@database
def test_nothing_is_said_twice(jobify: Configure) -> None:
    said = report()
    assert len(said) == len(set(said))


# What it sees


@both
@pytest.mark.parametrize(
    ("kind", "way_out"), [(note, "a 'def' cannot be stopped"), (anote, "jobs cancel")], ids=["def", "async"]
)
def test_a_job_that_runs_for_hours_is_named_with_its_process(
    jobify: Configure, kind: Any, way_out: str
) -> None:
    id = start(kind, ago=3 * AN_HOUR)
    beat(busy=1)
    (said,) = lines("runs since")
    assert said.startswith(
        f"WARN  job {id} of task {kind.name} runs since 3h in runjobs process 4121 on web-1 "
    )
    assert "kill -USR1 4121 on web-1" in said
    assert way_out in said
    assert lines("runs since", "--long", "4h") == []


@both
def test_nobody_is_told_to_send_a_web_server_a_signal_that_would_end_it(jobify: Configure) -> None:
    start(note, ago=3 * AN_HOUR)
    beat(busy=1, kind="lifespan")
    (said,) = lines("runs since")
    assert "in lifespan process 4121 on web-1" in said
    assert "USR1" not in said


@both
def test_many_jobs_that_run_for_hours_are_one_line_a_task(jobify: Configure) -> None:
    first = start(note, ago=4 * AN_HOUR)
    start(note, ago=2 * AN_HOUR)
    start(note, ago=3 * AN_HOUR)
    beat(busy=3)
    (said,) = lines("run for longer")
    assert f"3 jobs of task {note.name} run for longer than 1h, the first of them, {first}, since 4h" in said


@both
def test_jobs_of_a_process_that_is_gone_are_missed_when_nobody_takes_them(jobify: Configure) -> None:
    id = start(note, ago=AN_HOUR, lease=-5.0)
    (said,) = lines("processes that are gone")
    assert said.startswith(f"WARN  1 jobs, {id} among them")
    assert "-> start workers" in said
    beat(id="another-pool")
    assert lines("processes that are gone") == []  # it has a lease's time for that
    start(note, ago=AN_HOUR, lease=-50.0)
    (said,) = lines("processes that are gone")
    assert "event=upkeep-failed" in said


@both
def test_jobs_of_a_pool_that_does_not_report_itself_are_told(jobify: Configure) -> None:
    id = start(note, ago=10.0)
    (said,) = lines("do not report themselves")
    assert id in said
    beat()
    assert lines("do not report themselves") == []


@both
def test_a_paused_queue_says_for_how_long_its_jobs_wait(jobify: Configure) -> None:
    long_ago(note.push)
    queue().pause()
    (said,) = lines("is paused")
    assert said.startswith("WARN  queue default is paused, 1 jobs wait, the first of them since 2h -> ")
    assert said.endswith("manage.py jobs resume default")


def long_ago(act: Callable[[], object]) -> None:
    store, clock = the_store(), the_store().clock
    store.clock = lambda: clock() - 2 * AN_HOUR
    act()
    store.clock = clock


@both
def test_a_full_queue_is_told(jobify: Configure) -> None:
    jobify(MAXSIZE=2)
    note.push_many([()] * 2)
    (said,) = lines("is full")
    assert "2 jobs wait and maxsize is 2" in said


@both
def test_jobs_that_wait_long_beside_idle_workers_are_told(jobify: Configure) -> None:
    jobify(MAX_RUNNING=1)
    long_ago(note.push)
    beat(busy=1)
    (said,) = lines("although workers are idle")
    assert said.startswith("WARN")
    assert "event=held" in said
    long_ago(note.push)
    assert claim(the_store())
    beat(busy=1)
    (said,) = lines("although workers are idle")
    assert said.startswith("NOTE")
    assert "MAX_RUNNING is 1, and so many run" in said
    beat(busy=10)
    assert lines("although workers are idle") == []


@both
def test_jobs_of_tasks_that_are_not_known_are_counted(jobify: Configure) -> None:
    specs = [JobSpec(new_id(), "shop.renamed", "[[],{}]") for _ in range(3)]
    the_store().add(get_settings().queue("default"), specs)
    (said,) = lines("not known here")
    assert said.startswith("WARN  3 jobs of a task that is not known here wait: 'shop.renamed'")


# What breaks


BROKEN_MODULES = {
    "raises": ("raise ValueError('no\\nsuch thing')", "ValueError: no such thing"),
    "ends": ("raise SystemExit(3)", "SystemExit: 3"),
    "is wrong": ("def", "SyntaxError"),
    "lacks": ("", "ImportError"),
}


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], str]]:
    """Make a module of this text, and return the path of an application in it."""
    monkeypatch.syspath_prepend(tmp_path)

    def make(text: str) -> str:
        (tmp_path / "broken_asgi.py").write_text(text)
        return "broken_asgi.application"

    yield make
    sys.modules.pop("broken_asgi", None)


@both
@pytest.mark.parametrize("kind", BROKEN_MODULES)
def test_an_application_that_cannot_be_imported_is_a_fail(
    jobify: Configure, settings: Any, module: Callable[[str], str], kind: str
) -> None:
    text, error = BROKEN_MODULES[kind]
    settings.ASGI_APPLICATION = module(text)
    (said,) = lines("ASGI_APPLICATION", fails=True)
    assert said.startswith(f"FAIL  ASGI_APPLICATION 'broken_asgi.application' cannot be imported: {error}")


@both
def test_what_an_imported_module_prints_spoils_no_document(
    jobify: Configure, settings: Any, module: Callable[[str], str], capsys: pytest.CaptureFixture[str]
) -> None:
    settings.ASGI_APPLICATION = module("print('hello')\napplication = None")
    call_command("jobs", "doctor", "--format", "json")
    assert json.loads(capsys.readouterr().out)


class Broken(MemoryStore):
    """A store of somebody else's that has bugs."""

    shared = True

    def stats(self, queues: Any) -> Any:
        raise KeyError("stats")

    def query(self, query: Any) -> Any:
        raise RuntimeError("find")

    def diagnose(self) -> Any:
        raise SystemExit(1)


def test_a_store_that_raises_anything_costs_its_own_lines_only(settings: Any) -> None:
    settings.JOBIFY = {
        "STORE": "memory",
        "QUEUES": {"first": {"STORE": f"{__name__}.Broken"}, "second": {}},
    }
    said = report(fails=True)
    assert "FAIL  queue first: KeyError: 'stats'" in said
    assert f"FAIL  store {__name__}.Broken: SystemExit: 1" in said
    assert f"FAIL  store {__name__}.Broken: RuntimeError: find" in said
    assert any(line.startswith("WARN  queue second: no worker is alive") for line in said)
    assert said[-1].startswith("NOTE  ASGI_APPLICATION")


def test_a_store_that_cannot_be_made_is_told_of_its_queues_only(settings: Any) -> None:
    settings.JOBIFY = {"STORE": "memory", "QUEUES": {"first": {"STORE": "no.such.Store"}, "second": {}}}
    said = report(fails=True)
    assert len([line for line in said if "no.such.Store" in line]) == 2  # the check's, and the queue's
    assert any(line.startswith("WARN  queue second: no worker is alive") for line in said)


@both
def test_a_check_that_raises_does_not_end_the_report(
    jobify: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(**options: Any) -> Any:
        raise AssertionError("a bug of a check")

    monkeypatch.setattr(checks, "run_checks", fail)
    said = report(fails=True)
    assert "FAIL  settings.JOBIFY: AssertionError: a bug of a check" in said
    assert said[-1].startswith("NOTE  ASGI_APPLICATION")


def test_wrong_settings_end_the_looks_that_need_them_only(settings: Any) -> None:
    settings.JOBIFY = {"WORKRES": 3}
    said = report(fails=True)
    assert [line[:4] for line in said] == ["FAIL", "NOTE"]


@database
def test_a_database_that_is_away_is_a_few_lines(jobify: Configure, settings: Any, tmp_path: Path) -> None:
    address = {
        "sqlite": f"sqlite:///{tmp_path / 'nowhere' / 'db.sqlite3'}",
        "postgresql": "postgres://postgres@127.0.0.1:1/nowhere",
        "mysql": "mysql://root@127.0.0.1:1/nowhere",
    }[connections["default"].vendor]
    environment = {"DATABASE_URL": address, "DJANGO_SETTINGS_MODULE": "tests.settings"}
    with Child(["-m", "django", "jobs", "doctor"], {**_paths(), **environment}) as child:
        assert child.end() == 1
        said = child.lines
    assert "Traceback" not in child.output
    assert len(said) < 10
    assert any(line.startswith("FAIL  the app's tables: OperationalError: ") for line in said)
    assert any(line.startswith("FAIL  queue default: database 'default' failed") for line in said)
    assert any(line.startswith("NOTE  ASGI_APPLICATION") for line in said)
    assert said[-1].startswith("CommandError: 2 of ")


def _paths() -> dict[str, str]:
    return {"PYTHONPATH": ":".join(path for path in sys.path if path), "PATH": ""}
