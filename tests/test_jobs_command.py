"""``manage.py jobs``, on the memory store and on SQLite."""

import json
import time
from collections.abc import Collection, Iterator
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from jobify_django import JobStatus, StoreError, get_job, queue, task
from jobify_django.management.commands.jobs import SUBCOMMANDS, Command
from jobify_django.management.subcommands import acting
from jobify_django.testing import FakeClock
from tests.workshop import only_these_tasks

pytestmark = pytest.mark.django_db(transaction=True)


@task
def add(a: int, b: int = 2) -> int:
    return a + b


@pytest.fixture(params=["memory", "database"], autouse=True)
def store(request: Any, settings: Any) -> None:
    settings.JOBIFY = {"STORE": request.param, "QUEUES": {"mail": {"MAXSIZE": 3}}}


@pytest.fixture(autouse=True)
def only_the_tasks_of_this_module() -> Iterator[None]:
    """Other test modules' tasks name queues and bands of their own settings, which the doctor examines."""
    with only_these_tasks(add):
        yield


def jobs(*arguments: str) -> str:
    out = StringIO()
    call_command("jobs", *arguments, stdout=out)
    return out.getvalue().strip()


def test_a_pushed_job_is_listed_shown_and_cancelled() -> None:
    id = jobs("push", "tests.test_jobs_command.add", '{"args": [1], "kwargs": {"b": 5}}', "--priority", "7")

    assert [row["id"] for row in json.loads(jobs("list", "--format", "json"))] == [id]
    assert json.loads(jobs("show", id))["kwargs"] == {"b": 5}
    assert jobs("cancel", id) == "1 cancelled, 0 running asked to end, 0 had ended"
    assert get_job(id).status is JobStatus.CANCELLED
    assert jobs("retry", id) == "1 retried, 0 were not failed or cancelled"
    assert get_job(id).status is JobStatus.WAITING


def test_many_jobs_are_changed_only_when_said_twice() -> None:
    add.push_many([(1,), (2,)])

    with pytest.raises(CommandError, match="--dry-run"):
        jobs("cancel", "--queue", "default")
    assert jobs("cancel", "--queue", "default", "--dry-run") == "2 would be cancelled"
    assert jobs("cancel", "--queue", "default", "--yes").startswith("2 cancelled")


def test_status_shows_depth_against_bound() -> None:
    add.using(queue="mail").push(1)

    rows = {row["queue"]: row for row in json.loads(jobs("status", "--format", "json"))}
    assert (rows["mail"]["waiting"], rows["mail"]["maxsize"]) == (1, 3)
    assert "maxsize" in jobs("status")


def test_a_queue_is_tuned_paused_resumed_and_reset() -> None:
    assert "4 workers" in jobs("tune", "mail", "--workers", "4", "--order", "fifo")
    assert "paused" in jobs("pause", "mail")
    assert queue("mail").stats().paused
    jobs("resume", "mail")
    assert "10 workers" in jobs("tune", "mail", "--reset")


def test_prune_says_how_many_it_deleted() -> None:
    id = add.push(1).id
    jobs("cancel", id)

    assert jobs("prune") == "0 jobs deleted"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("tune", "nope", "--workers", "2"), "no queue 'nope'"),
        (("tune", "mail", "--workers", "0"), "0"),
        (("tune", "mail"), "nothing to tune"),
        (("push", "no.such.task"), "no.such.task"),
        (("push", "add"), r"did you mean 'tests\.test_jobs_command\.add'"),
        (("push", add.name, "[1]", "--queue", "Mial"), "did you mean 'mail'"),
        (("list", "--queue", "mial"), "did you mean 'mail'"),
        (("list", "--task", "tests.jobs.add"), r"did you mean 'tests\.test_jobs_command\.add'"),
        (("cancel", "--task", "ad", "--yes"), r"did you mean 'tests\.test_jobs_command\.add'"),
        (("retry", "--task", "ad", "--dry-run"), r"did you mean 'tests\.test_jobs_command\.add'"),
        (("pause", "mial"), "did you mean 'mail'"),
        (("push", "tests.test_jobs_command.add", "{"), "no JSON"),
        (("push", "tests.test_jobs_command.add", "[]"), "missing"),
        (("show", "not-an-id"), "not-an-id"),
        (("list", "--since", "soon"), "soon"),
        (("list", "--queue", "nope"), "nope"),
        (("cancel",), "by their ids"),
    ],
)
def test_a_wrong_argument_is_named(arguments: tuple[str, ...], said: str) -> None:
    with pytest.raises(CommandError, match=said):
        jobs(*arguments)


def test_the_doctor_names_queues_without_workers() -> None:
    report = jobs("doctor")

    assert "WARN  queue mail: no worker is alive" in report
    assert "FAIL" not in report


def test_the_doctor_fails_on_wrong_settings(settings: Any) -> None:
    settings.JOBIFY = {"WORKRES": 3}

    with pytest.raises(CommandError, match="broken"):
        jobs("doctor")


def test_bench_ends_by_itself() -> None:
    assert "runs/s" in jobs("bench", "--jobs", "50", "--workers", "2")


def test_djangos_options_stand_before_or_behind_the_subcommand(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, Any]] = []

    def note(out: object, **options: Any) -> None:
        """Note the options."""
        seen.append(options)

    monkeypatch.setitem(SUBCOMMANDS, "status", (SUBCOMMANDS["status"][0], note))

    jobs("status", "--verbosity", "3", "--no-color")
    jobs("--verbosity", "2", "status")

    assert [options["verbosity"] for options in seen] == [3, 2]
    assert seen[0]["no_color"]


def test_wrong_settings_are_told_without_a_traceback(settings: Any) -> None:
    settings.JOBIFY = {"MAXSISE": 3}

    with pytest.raises(CommandError, match="did you mean 'MAXSIZE'"):
        jobs("status")


@pytest.mark.parametrize(
    "arguments",
    [
        ("push", "tests.test_jobs_command.add", "[1]"),
        ("tune", "default", "--workers", "2"),
        ("pause", "default"),
        ("resume", "default"),
    ],
)
def test_a_process_of_its_own_does_not_act_on_another_ones_memory(
    arguments: tuple[str, ...], settings: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    settings.JOBIFY = {"STORE": "memory"}

    with pytest.raises(SystemExit):
        Command().run_from_argv(["manage.py", "jobs", *arguments])

    assert "in the memory of the process that serves it" in capsys.readouterr().err


def test_the_doctor_does_not_miss_workers_in_another_ones_memory(
    settings: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    settings.JOBIFY = {"STORE": "memory"}

    Command().run_from_argv(["manage.py", "jobs", "doctor"])

    said = capsys.readouterr().out
    assert "queue default: in memory" in said
    assert "no worker is alive" not in said


def test_since_looks_past_older_jobs_that_would_start_earlier() -> None:
    store = queue().store
    now, store.clock = store.clock, FakeClock(time.time() - 7200)
    add.using(priority=1).push(1)
    store.clock = now
    new = add.push(2)

    listed = json.loads(
        jobs("list", "--status", "waiting", "--since", "1h", "--limit", "1", "--format", "json")
    )

    assert [row["id"] for row in listed] == [new.id]


@pytest.fixture
def broken(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that answers nothing."""

    def fail(*arguments: object, **options: object) -> None:
        raise StoreError("the database is away.")

    store = queue().store
    for verb in ("stats", "query"):
        monkeypatch.setattr(store, verb, fail)


def test_status_of_a_store_that_is_away_says_so_once_and_fails(
    broken: None, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(CommandError, match=r"^the database is away\.$"):
        call_command("jobs", "status")

    assert [line.split() for line in capsys.readouterr().out.splitlines()[1:]] == [
        ["default", "?"],
        ["mail", "?"],
    ]


def test_the_doctor_goes_on_when_a_store_is_away(broken: None, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(CommandError, match="broken"):
        call_command("jobs", "doctor")

    said = capsys.readouterr().out
    assert "FAIL  queue mail: the database is away." in said
    assert "ASGI_APPLICATION" in said


@pytest.mark.parametrize(
    "command", [("tune", "mail", "--workers", "4"), ("pause", "mail"), ("resume", "mail")]
)
def test_a_queue_that_was_changed_meanwhile_is_left_as_it_is(command: tuple[str, ...]) -> None:
    jobs("tune", "mail", "--maxsize", "9", "--expected", "0")

    with pytest.raises(CommandError, match="has version 1, and this change was made from version 0"):
        jobs(*command, "--expected", "0")

    assert queue("mail").stats().state.version == 1


# Many jobs


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acting, "PART", 2)


def test_a_part_that_fails_tells_how_far_it_came(monkeypatch: pytest.MonkeyPatch, small_parts: None) -> None:
    pushed = add.push_many([(number,) for number in range(5)])
    store = queue().store
    real = store.cancel
    parts: list[int] = []

    def cancel(ids: Collection[str]) -> Any:
        parts.append(len(ids))
        if len(parts) == 3:
            raise StoreError("the database is away.")
        return real(ids)

    monkeypatch.setattr(store, "cancel", cancel)

    with pytest.raises(CommandError, match=r"after 4 of 5 jobs: the database is away\. Run it again"):
        jobs("cancel", "--queue", "default", "--yes")

    assert parts == [2, 2, 1]
    statuses = [get_job(job.id).status for job in pushed]
    assert (statuses.count(JobStatus.CANCELLED), statuses.count(JobStatus.WAITING)) == (4, 1)


@pytest.mark.parametrize("action", ["cancel", "retry"])
def test_a_terminal_is_told_how_far_it_is_and_a_file_is_not(small_parts: None, action: str) -> None:
    add.push_many([(number,) for number in range(3)])
    if action == "retry":
        jobs("cancel", "--queue", "default", "--yes")
    terminal, file = Terminal(), StringIO()

    command = ("jobs", action, "--queue", "default", "--yes")
    call_command(*command, stdout=StringIO(), stderr=terminal)
    call_command("jobs", "cancel", "--queue", "default", "--yes", stdout=StringIO(), stderr=file)

    assert "2 of 3 jobs" in terminal.getvalue()
    assert "3 of 3 jobs" in terminal.getvalue()
    assert file.getvalue() == ""
