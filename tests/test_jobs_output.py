"""What ``manage.py jobs`` writes: for scripts one document, for people what fits their terminal."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command

from jobify_django import Job, JobStatus, StoreError, get_job, queue, task
from jobify_django.job import JobSpec, new_id
from jobify_django.management.commands.jobs import Command
from jobify_django.management.subcommands.table import table, words
from jobify_django.signals import job_ended
from jobify_django.stores.base import Store
from jobify_django.testing import FakeClock
from tests.child import PATIENCE
from tests.claims import claim, release
from tests.workshop import aheld, at_work, clear, held

HOSTILE = "no \x1b[31morder\nCommandError: forged"


@task
def ships(order: str) -> None:
    raise ValueError(order)


@pytest.fixture(params=["memory", "database"])
def store(request: Any, settings: Any, transactional_db: None) -> Iterator[Store]:
    settings.JOBIFY = {"STORE": request.param, "WORKERS": 4}
    yield queue().store
    clear()


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


def jobs(*arguments: str, out: StringIO | None = None) -> str:
    out = out or StringIO()
    call_command("jobs", *arguments, stdout=out)
    return out.getvalue().rstrip()


def ran(job: Job[Any]) -> Job[Any]:
    with at_work():
        job.wait(timeout=PATIENCE)
    return job


# For scripts


def test_a_failed_job_is_shown_as_one_document(store: Store) -> None:
    job = ran(ships.push(HOSTILE))

    shown = json.loads(jobs("show", job.id))

    assert shown["error"]["type"] == "builtins.ValueError"
    assert shown["error"]["message"] == HOSTILE
    assert shown["error"]["traceback"].startswith("Traceback (most recent call last):")
    assert shown["run"] >= 0
    assert shown["age"] >= shown["run"]


def test_ages_and_run_times_are_numbers_beside_the_times(store: Store) -> None:
    clock = store.clock = FakeClock(1_790_000_000.0)
    ships.push("ord-1")
    claims = claim(store, lease=3600.0)
    clock.now += 90

    (listed,) = json.loads(jobs("list", "--format", "json"))

    assert (listed["age"], listed["run"]) == (90.0, 90.0)
    assert listed["pushed_at"] == "2026-09-21T14:13:20.000+00:00"
    assert jobs("list").splitlines()[1].split()[6:8] == ["1m", "1m"]
    release(store, claims)
    (listed,) = json.loads(jobs("list", "--format", "json"))
    assert listed["run"] is None


def test_what_a_hand_has_made_unreadable_is_shown_as_it_is(store: Store) -> None:
    id = new_id()
    store.add(queue().settings, [JobSpec(id, "not.known", "no JSON \x1b[31m", at=1e15)])

    (listed,) = json.loads(jobs("list", "--format", "json"))
    assert (listed["args"], listed["kwargs"]) == (None, None)
    assert listed["eligible_at"].startswith("9999-12-31")
    assert listed["unreadable"] == {"arguments": "no JSON \x1b[31m"}
    assert "\x1b" not in jobs("show", id, "--format", "text") + jobs("list")


def test_a_store_that_is_away_is_no_number_in_a_document(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def away(*arguments: object) -> None:
        raise StoreError("away \x1b[31m")

    monkeypatch.setattr(store, "stats", away)
    with pytest.raises(SystemExit) as end:
        Command().run_from_argv(["manage.py", "jobs", "status", "--format", "json"])

    said = capsys.readouterr()
    assert json.loads(said.out) == [{"queue": "default", "error": "away \x1b[31m"}]
    assert said.err == "CommandError: away \N{REPLACEMENT CHARACTER}[31m\n"
    assert end.value.code == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("list", "--since", "soon"),
        ("list", "--limit", "0"),
        ("list", "--status", "lost"),
        ("push", "tests.test_jobs_output.ships", "{"),
        ("push", "tests.test_jobs_output.ships", "7"),
        ("cancel",),
        ("cancel", "--queue", "default"),
        ("retry", "some-id", "--queue", "default"),
        ("tune", "default", "--reset", "--workers", "2"),
        ("prune", "--older-than", "soon"),
        ("bench", "--jobs", "0"),
        (),
        ("nonsense",),
    ],
)
def test_a_wrong_command_line_ends_with_2_and_a_word_on_stderr(
    arguments: tuple[str, ...], store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        Command().run_from_argv(["manage.py", "jobs", *arguments])

    said = capsys.readouterr()
    assert end.value.code == 2
    assert said.out == ""
    assert said.err


def test_what_cannot_be_done_ends_with_1(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        Command().run_from_argv(["manage.py", "jobs", "show", "not-an-id"])

    assert end.value.code == 1
    assert "not-an-id" in capsys.readouterr().err


def test_ctrl_c_ends_with_130(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*given: Any, **named: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(store, "query", interrupted)
    with pytest.raises(SystemExit) as end:
        Command().run_from_argv(["manage.py", "jobs", "list"])

    assert end.value.code == 130
    assert capsys.readouterr().err == "CommandError: interrupted.\n"


@pytest.mark.parametrize("code", [0, 1])
def test_a_reader_may_leave_before_the_end(child_environment: dict[str, str], code: int) -> None:
    arguments = ["status"] if code == 0 else ["show", "not-an-id"]
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "django", "jobs", *arguments]
    ended = subprocess.run(
        command, env=child_environment, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=PATIENCE
    )
    os.close(writing)

    assert ended.returncode == code
    assert "BrokenPipe" not in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_terminal_of_few_letters_gets_any_name(child_environment: dict[str, str]) -> None:
    environment = {**child_environment, "PYTHONIOENCODING": "ascii"}
    subprocess.run([sys.executable, "-c", WILD], env=environment, check=True, timeout=PATIENCE)
    listed = subprocess.run(
        [sys.executable, "-m", "django", "jobs", "list"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )

    assert "caf\\xe9" in listed.stdout
    assert listed.returncode == 0


WILD = """
import django
django.setup()
from jobify_django import queue
from jobify_django.job import JobSpec, new_id
queue().store.add(queue().settings, [JobSpec(new_id(), "caf\\xe9.pour", "[[],{}]")])
"""


# For people


def test_on_a_terminal_a_job_is_shown_line_by_line(store: Store) -> None:
    job = ran(ships.push(HOSTILE))

    shown = jobs("show", job.id, out=Terminal())

    lines = shown.splitlines()
    assert "status        failed" in lines
    assert f"args          {json.dumps([HOSTILE])}" in lines
    assert lines.index("Traceback (most recent call last):") > lines.index("queue         default")
    assert "CommandError: forged" not in lines[: lines.index("Traceback (most recent call last):")]
    assert "\x1b" not in shown
    assert json.loads(jobs("show", job.id, "--format", "json", out=Terminal()))["status"] == "failed"
    assert "status        failed" in jobs("show", job.id, "--format", "text")


@pytest.fixture
def columns(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    return lambda number: monkeypatch.setenv("COLUMNS", str(number))


def test_the_lists_fit_a_terminal_of_80_columns(store: Store, columns: Callable[[int], None]) -> None:
    columns(80)
    ran(ships.push("ord-1"))

    listed = jobs("list", out=Terminal())

    assert listed.splitlines()[0].split() == ["id", "task", "queue", "status", "age", "run"]
    assert "  ships  default  failed  " in listed
    for text in (listed, jobs("status", out=Terminal())):
        assert max(map(len, text.splitlines())) <= 80


def test_what_is_no_terminal_gets_everything(store: Store, columns: Callable[[int], None]) -> None:
    columns(80)
    job = ships.push("ord-1")

    for listed in (jobs("list"), jobs("list", "--wide", out=Terminal())):
        heading, line = listed.splitlines()
        assert heading.split()[-4:] == ["attempts", "age", "run", "pushed_at"]
        assert line.split()[:3] == [job.id, "tests.test_jobs_output.ships", "default"]
    assert "order" in jobs("status", "--wide", out=Terminal())


ROW = {"id": "x" * 10, "task": "shop.orders.tasks.charge", "queue": "default", "priority": 7}


@pytest.mark.parametrize(
    ("width", "line"),
    [
        (None, "xxxxxxxxxx  shop.orders.tasks.charge  default  7"),
        (55, "xxxxxxxxxx  shop.orders.tasks.charge  default  7"),
        (54, "xxxxxxxxxx  tasks.charge  default  7"),
        (42, "xxxxxxxxxx  tasks.charge  default"),
        (32, "xxxxxxxxxx  charge  default"),
        (26, "xxxxxxxxxx  charge"),
        (17, "xxxxxxxxxx  \N{HORIZONTAL ELLIPSIS}arge"),
        (2, "xxxxxxxxxx  \N{HORIZONTAL ELLIPSIS}rge"),
    ],
)
def test_a_table_gives_up_what_is_least_missed(width: int | None, line: str) -> None:
    shown = table(list(ROW), [ROW], width=width, spare=("priority", "queue"), dotted="task")

    assert shown.splitlines()[1] == line


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0s"),
        (-3, "0s"),
        (0.027, "27ms"),
        (1.9, "1s"),
        (59.9, "59s"),
        (60, "1m"),
        (3599, "59m"),
        (5 * 3600 + 7, "5h"),
        (86_399, "23h"),
        (2.5 * 86_400, "2d"),
    ],
)
def test_a_duration_is_a_word(seconds: float, said: str) -> None:
    assert words(seconds) == said


# What becomes of a cancelled job


def test_a_cancel_says_what_is_true_of_each_running_job(store: Store) -> None:
    waiting = ships.using(delay=3600).push("ord-1")
    with at_work():
        asked, there = aheld()
        deaf, here = held()
        there.reached()
        here.reached()

        said = jobs("cancel", waiting.id, asked.id, deaf.id)

        assert said == (
            "1 cancelled, 1 running asked to end, 1 running cannot be stopped: a 'def' ends as it ends, "
            "0 had ended"
        )
        asked.wait(timeout=PATIENCE)
        here.open()
        deaf.wait(timeout=PATIENCE)
    assert get_job(asked.id).status is JobStatus.CANCELLED
    assert get_job(deaf.id).status is JobStatus.SUCCESSFUL


def test_a_cancel_promises_nothing_of_a_task_that_is_not_known(store: Store) -> None:
    id = new_id()
    store.add(queue().settings, [JobSpec(id, "not.known", "[[],{}]")])
    claim(store, lease=3600.0)

    assert jobs("cancel", id) == (
        "0 cancelled, 0 running asked to end, 1 running of a task that is not known here: asked to end, "
        "which a 'def' does not, 0 had ended"
    )


# The bench


def test_the_bench_measures_the_queue_and_tells_nobody_of_its_jobs(store: Store) -> None:
    heard: list[str] = []
    told: list[object] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            heard.append(record.getMessage())

    def receive(sender: object, **values: object) -> None:
        told.append(sender)

    logger, handler = logging.getLogger("jobify"), Handler()
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    job_ended.connect(receive)
    try:
        jobs("bench", "--jobs", "20", "--workers", "2")
        assert [line for line in heard if "event=done" in line] == []
        assert told == []

        job = ran(ships.push("ord-1"))
        assert [line for line in heard if job.id in line]
        assert told
    finally:
        job_ended.disconnect(receive)
        logger.removeHandler(handler)
        logger.setLevel(level)
