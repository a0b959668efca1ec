"""A task that a script or a shell declares: no other process has it, and the push says so."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.db import transaction

from jobify_django import Task, task
from jobify_django.registry import tasks
from tests.child import PATIENCE
from tests.workshop import Configure, at_work, both, database, memory

SAID = "event=main-task task=__main__.tidy queue=default: the module it is declared in"
SHELL_C = {"__name__": "django.core.management.commands.shell"}  # where "manage.py shell -c" runs its code


@pytest.fixture(params=[{"__name__": "__main__"}, {}, SHELL_C], ids=["script", "shell", "shell-c"])
def tidy(request: pytest.FixtureRequest) -> Iterator[Task[..., Any]]:
    space = {"task": task, **request.param}
    exec(compile("@task\ndef tidy(n=0): return n", "<stdin>", "exec"), space)
    yield space["tidy"]
    tasks.forget(space["tidy"].name)


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if "event=main-task" in r.getMessage()]


@database
def test_a_push_of_it_into_a_shared_store_is_warned_of_once(
    jobify: Configure, tidy: Task[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    tidy.push()
    tidy.push_many([(1,), (2,)])
    tidy.using(delay=5).push()

    (line,) = said(caplog)
    assert line.startswith(SAID.replace("__main__.tidy", tidy.name))
    assert "Move it into a module 'tasks' of an installed app." in line


@database
@pytest.mark.parametrize("way", ["apush", "push_many", "commit"])
def test_every_way_to_push_it_warns(
    jobify: Configure, tidy: Task[..., Any], caplog: pytest.LogCaptureFixture, way: str
) -> None:
    if way == "apush":
        async_to_sync(tidy.apush)()
    elif way == "push_many":
        tidy.push_many([(1,)])
    else:
        with transaction.atomic():
            tidy.push()

    assert len(said(caplog)) == 1


@memory
def test_a_store_of_this_process_alone_needs_no_warning(
    jobify: Configure, tidy: Task[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    tidy.push()

    assert said(caplog) == []


@both
def test_a_script_that_runs_its_own_jobs_needs_no_warning(
    jobify: Configure, tidy: Task[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    with at_work():
        job = tidy.push(3)
        job.wait(timeout=PATIENCE)
        assert job.result() == 3

    assert said(caplog) == []


@database
def test_a_script_that_serves_another_queue_is_warned(
    jobify: Configure, tidy: Task[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    jobify(QUEUES={"default": {}, "mail": {}})
    with at_work(queues=["mail"]):
        tidy.push()

    assert len(said(caplog)) == 1


@database
def test_a_task_of_a_module_is_not_warned_of(jobify: Configure, caplog: pytest.LogCaptureFixture) -> None:
    importable.push()

    assert said(caplog) == []


@task
def importable() -> None: ...


SCRIPT = """
import django
from django.conf import settings
from django.core.management import call_command

settings.configure(
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "jobs.sqlite3"}},
    INSTALLED_APPS=["jobify_django"], USE_TZ=True,
)
django.setup()
from jobify_django import task

@task
def tidy() -> None: ...

call_command("migrate", verbosity=0)
tidy.push()
"""


@pytest.mark.parametrize("how", [["tidying.py"], ["-m", "tidying"]])
def test_a_script_without_any_logging_shows_it(tmp_path: Path, how: list[str]) -> None:
    (tmp_path / "tidying.py").write_text(SCRIPT)
    root = Path(__file__).parent.parent

    script = subprocess.run(
        [sys.executable, *how],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert script.returncode == 0, script.stderr
    assert SAID in script.stderr
