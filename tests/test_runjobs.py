"""``manage.py runjobs`` as a process: what it runs, how it stops, what it says."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import stat
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from queue import Empty
from typing import Any

import pytest
from django.db import connection

from jobify_django import Job, JobStatus, queue
from jobify_django.management.process import END, Process
from jobify_django.models import Job as Row
from jobify_django.stores import stores
from jobify_django.task import Task
from tests.app.tasks import (
    apush_into_full_queue_at_first,
    asleep_at_first,
    aterminate_children,
    await_job_at_first,
    block_loop_at_first,
    compute_at_first,
    push_into_full_queue_at_first,
    sleep_at_first,
    sleep_on_thread_at_first,
    terminate_children,
    wait_for_file,
    wait_for_job_at_first,
    write_line,
)
from tests.child import Child, until
from tests.claims import claim

pytestmark = pytest.mark.servers

GRACE = "0.3"
TO_END = float(GRACE) + 3.5 + 1.5  # its last words, and what a busy machine adds

Run = Callable[..., Child]


@pytest.fixture
def environment(child_environment: dict[str, str]) -> dict[str, str]:
    return {**child_environment, "DJANGO_SETTINGS_MODULE": "tests.servers.settings"}


@pytest.fixture
def runjobs(environment: dict[str, str]) -> Iterator[Run]:
    with ExitStack() as stack:

        def run(*arguments: str, jobify: Mapping[str, Any] | None = None, **variables: str) -> Child:
            changed = {**environment, "TEST_JOBIFY": json.dumps(jobify or {}), **variables}
            return stack.enter_context(Child(["-m", "django", "runjobs", *arguments], changed))

        yield run


@pytest.fixture
def flag(tmp_path: Path) -> Path:
    """Where a job says that it has started."""
    return tmp_path / "started"


def pools() -> list[int]:
    """Return the processes that have a pool alive."""
    return [pool.pid for pool in stores["database"].pools()]


def status_of(job: Job[Any]) -> JobStatus:
    job.refresh()
    return job.status


def assert_handed_back(job: Job[Any]) -> None:
    row = Row.objects.get(id=job.id)
    assert (row.status, row.crashes) == ("waiting", 0)


# Its work


def test_batch_runs_what_waits_and_exits_0(runjobs: Run, tmp_path: Path) -> None:
    written = tmp_path / "written"
    jobs = [write_line.push(str(written), str(number)) for number in range(25)]
    child = runjobs("--batch")
    assert child.end() == 0
    assert sorted(written.read_text().split(), key=int) == [str(number) for number in range(25)]
    assert {status_of(job) for job in jobs} == {JobStatus.SUCCESSFUL}


def test_batch_exits_0_at_once_when_nothing_waits(runjobs: Run) -> None:
    assert runjobs("--batch").end() == 0


def test_batch_exits_4_and_says_what_it_had_to_leave_in_a_paused_queue(runjobs: Run, tmp_path: Path) -> None:
    jobify: dict[str, Any] = {"QUEUES": {"default": {}, "mail": {}}}
    left = write_line.push(str(tmp_path / "written"), "left")
    queue("default").pause()
    child = runjobs("--batch", "-v", "0", jobify=jobify)
    assert child.end() == 4
    assert "jobs=1 reason='the queue is paused'" in child.wait_for("event=left queue=default")
    assert status_of(left) is JobStatus.WAITING
    queue("default").resume()
    assert runjobs("--batch", jobify=jobify).end() == 0
    assert status_of(left) is JobStatus.SUCCESSFUL


def test_batch_exits_4_when_jobs_of_unknown_tasks_wait(runjobs: Run, tmp_path: Path) -> None:
    job = write_line.push(str(tmp_path / "written"), "one")
    unknown = write_line.push(str(tmp_path / "written"), "two")
    Row.objects.filter(id=unknown.id).update(task="shop.tasks.renamed")
    child = runjobs("--batch")
    assert child.end() == 4
    assert "jobs=1" in child.wait_for("event=left queue=default")
    assert "'shop.tasks.renamed'" in child.wait_for("event=left queue=default")
    assert status_of(job) is JobStatus.SUCCESSFUL


def test_batch_waits_for_other_pools_that_run_as_many_as_may_run(runjobs: Run, tmp_path: Path) -> None:
    jobify: dict[str, Any] = {"QUEUES": {"default": {"MAX_RUNNING": 1}}}
    first = wait_for_file.push(str(tmp_path / "started"), str(tmp_path / "go"))
    other = runjobs(jobify=jobify)
    until((tmp_path / "started").exists, "the start of the other pool's job")
    second = wait_for_file.push(str(tmp_path / "second"), str(tmp_path / "go"))
    other.send(signal.SIGTERM)  # it lets its job end, and claims no other
    other.wait_for("event=stopping")
    child = runjobs("--batch", jobify=jobify)
    child.wait_for("event=waits-for-others queue=default jobs=1 max_running=1")
    (tmp_path / "go").touch()
    assert child.end() == 0
    assert other.end() == 0
    assert {status_of(first), status_of(second)} == {JobStatus.SUCCESSFUL}


def test_a_batch_that_is_stopped_while_it_waits_for_others_exits_0(runjobs: Run, tmp_path: Path) -> None:
    jobify: dict[str, Any] = {"QUEUES": {"default": {"MAX_RUNNING": 1}}}
    write_line.push_many([(str(tmp_path / "written"), "one")] * 2)
    assert claim(stores["database"], pool="another-pool", lease=600.0, max_running=1)
    child = runjobs("--batch", jobify=jobify)
    child.wait_for("event=waits-for-others")
    assert child.end(signal.SIGTERM) == 0


def test_jobs_that_fail_and_jobs_that_are_not_due_change_no_exit_code(runjobs: Run, tmp_path: Path) -> None:
    failing = write_line.push(str(tmp_path), "a directory is no file")
    write_line.using(delay=3600).push(str(tmp_path / "written"), "later")
    assert runjobs("--batch").end() == 0
    assert status_of(failing) is JobStatus.FAILED


@pytest.mark.parametrize("batch", [["--batch"], []])
def test_max_jobs_are_run_and_no_more(runjobs: Run, tmp_path: Path, batch: list[str]) -> None:
    for number in range(5):
        write_line.push(str(tmp_path / "written"), str(number))
    assert runjobs("--max-jobs", "2", *batch).end() == 0
    assert len((tmp_path / "written").read_text().split()) == 2
    assert Row.objects.filter(status="waiting").count() == 3


def test_max_jobs_come_from_whichever_queue_has_them(runjobs: Run, tmp_path: Path) -> None:
    write_line.push(str(tmp_path / "written"), "one")
    queues: dict[str, Any] = {"first": {}, "second": {}, "third": {}}
    assert runjobs("--max-jobs", "1", jobify={"QUEUES": queues}).end() == 0
    assert (tmp_path / "written").read_text() == "one\n"


def test_it_goes_on_with_what_is_pushed_while_it_runs(runjobs: Run, tmp_path: Path) -> None:
    child = runjobs()
    child.wait_for("ready")
    job = write_line.push(str(tmp_path / "written"), "here")
    job.wait(timeout=60)
    assert f"id={job.id}" in child.wait_for("event=done")
    assert child.end(signal.SIGTERM) == 0


def test_only_the_named_queues_are_served(runjobs: Run, tmp_path: Path) -> None:
    jobify: dict[str, Any] = {"QUEUES": {"mail": {}}}
    job = write_line.push(str(tmp_path / "written"), "one")
    assert runjobs("--batch", "--queues", "mail", jobify=jobify).end() == 0
    assert runjobs("--batch", "--exclude", "default", jobify=jobify).end() == 0
    assert status_of(job) is JobStatus.WAITING
    assert runjobs("--batch", "--exclude", "mail", jobify=jobify).end() == 0
    assert status_of(job) is JobStatus.SUCCESSFUL


def test_workers_given_stand_above_settings_and_live_tuning(runjobs: Run, tmp_path: Path) -> None:
    go = tmp_path / "go"
    queue("default").tune(workers=1)
    for number in range(5):
        wait_for_file.push(str(tmp_path / str(number)), str(go))
    child = runjobs("--workers", "3", jobify={"WORKERS": 2})
    assert "default 3 workers (--workers; live tuning of it is ignored)" in child.wait_for("queues ")
    until(lambda: sum((tmp_path / str(number)).exists() for number in range(5)) >= 3, "three jobs' start")
    child.send(signal.SIGUSR1)
    assert "3 of 3 workers busy" in child.wait_for("queue default:")
    assert not (tmp_path / "4").exists()
    go.touch()
    assert child.end(signal.SIGTERM) == 0


# Signals

ENDINGS = {
    "TERM": ([signal.SIGTERM], GRACE, 0),
    "INT": ([signal.SIGINT], GRACE, 0),
    "TERM, no grace": ([signal.SIGTERM], "0", 0),
    "INT, no grace": ([signal.SIGINT], "0", 0),
    # With a grace without end, only the second signal can end the process in time.
    "TERM twice": ([signal.SIGTERM, signal.SIGTERM], "600", 1),
    "INT twice": ([signal.SIGINT, signal.SIGINT], "600", 1),
    "HUP": ([signal.SIGHUP], GRACE, 0),
    "HUP twice": ([signal.SIGHUP, signal.SIGHUP], "600", 1),
    "QUIT": ([signal.SIGQUIT], "600", 1),
}


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize(
    "task", [sleep_at_first, asleep_at_first, compute_at_first], ids=["sync", "async", "computing"]
)
def test_a_running_job_is_handed_back_uncharged_and_the_next_process_runs_it(
    runjobs: Run, flag: Path, task: Task[[str], str], ending: str
) -> None:
    signals, grace, code = ENDINGS[ending]
    job = task.push(str(flag))
    child = runjobs("--grace", grace)
    until(flag.exists, "the job's start")
    child.send(signals[0])
    if len(signals) > 1:
        child.wait_for("event=stopping")

        def second() -> bool:
            child.send(signals[1])
            return "event=aborting" in child.output

        until(second, "the second signal")
    assert child.end(patience=TO_END) == code
    assert_handed_back(job)
    assert runjobs("--batch").end() == 0
    assert status_of(job) is JobStatus.SUCCESSFUL
    assert job.result() == "second time"
    assert job.attempts == 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP], ids=["TERM", "INT", "HUP"])
def test_an_idle_process_ends_at_once(runjobs: Run, number: int) -> None:
    child = runjobs("--grace", "600")
    child.wait_for("ready")
    assert child.end(number, patience=TO_END) == 0


def test_two_signals_at_the_same_moment_are_one_wish(runjobs: Run, flag: Path) -> None:
    sleep_at_first.push(str(flag))
    child = runjobs("--grace", GRACE)
    until(flag.exists, "the job's start")
    child.send(signal.SIGINT)
    child.send(signal.SIGTERM)
    assert child.end(patience=TO_END) == 0
    assert "event=aborting" not in child.output


@pytest.mark.parametrize("task", [sleep_at_first, asleep_at_first, None], ids=["sync", "async", "idle"])
def test_a_signal_before_it_is_ready_ends_it_cleanly(
    runjobs: Run, flag: Path, task: Task[[str], str] | None
) -> None:
    job = task.push(str(flag)) if task else None
    child = runjobs("--grace", GRACE)
    child.wait_for("jobify ")
    assert child.end(signal.SIGTERM, patience=TO_END) == 0
    if job is not None:
        assert_handed_back(job)


CLAIM = "UPDATE jobify_job SET status = 'running'"
FINISH = "UPDATE jobify_job SET status = 'successful'"


@pytest.mark.parametrize(
    "moment",
    [
        "SELECT NULL AS id, name:1",  # it introduces itself
        "INSERT INTO jobify_pool:1",
        "BEGIN:1",
        "BEGIN:2",
        f"{CLAIM}:1",
        f"{CLAIM}:2",
        "UPDATE jobify_queue:1",
        "COMMIT:1",
        "COMMIT:2",
        "COMMIT:3",
        f"{FINISH}:1",
        f"{FINISH}:5",
    ],
)
def test_term_at_any_point_of_the_claim_path_strands_no_job(
    runjobs: Run, tmp_path: Path, moment: str
) -> None:
    written = tmp_path / "written"
    jobs = write_line.push_many([(str(written), "one")] * 20)
    child = runjobs("--workers", "2", TEST_APPS="tests.servers.ending.Ending", TEST_TERM_AT=moment)
    assert child.end() == 0
    statuses = Counter(Row.objects.values_list("status", flat=True))
    run = len(written.read_text().split()) if written.exists() else 0
    assert statuses == Counter(successful=run, waiting=len(jobs) - run)
    child.wait_for("event=stopping signal=SIGTERM")
    assert {row.crashes for row in Row.objects.all()} == {0}
    assert pools() == []


def test_a_job_that_ends_within_the_grace_is_not_interrupted(runjobs: Run, tmp_path: Path) -> None:
    job = wait_for_file.push(str(tmp_path / "started"), str(tmp_path / "go"))
    child = runjobs("--grace", "60")
    until((tmp_path / "started").exists, "the job's start")
    child.send(signal.SIGTERM)
    child.wait_for("event=stopping")
    (tmp_path / "go").touch()
    assert child.end() == 0
    assert status_of(job) is JobStatus.SUCCESSFUL


@pytest.mark.parametrize(
    ("task", "code"), [(sleep_on_thread_at_first, 0), (block_loop_at_first, 1)], ids=["thread", "loop"]
)
def test_a_job_that_cannot_be_cancelled_does_not_hold_the_process(
    runjobs: Run, flag: Path, task: Task[[str], str], code: int
) -> None:
    job = task.push(str(flag))
    child = runjobs("--grace", GRACE)
    until(flag.exists, "the job's start")
    assert child.end(signal.SIGTERM, patience=TO_END) == code
    assert_handed_back(job)


@pytest.mark.parametrize(
    "task",
    [
        push_into_full_queue_at_first,
        apush_into_full_queue_at_first,
        wait_for_job_at_first,
        await_job_at_first,
    ],
    ids=["push", "apush", "wait", "await"],
)
def test_a_job_that_waits_for_other_jobs_does_not_hold_the_process(
    runjobs: Run, flag: Path, settings: Any, task: Task[[str], str]
) -> None:
    jobify: dict[str, Any] = {"QUEUES": {"default": {}, "full": {"MAXSIZE": 1}}}
    settings.JOBIFY = jobify
    write_line.using(queue="full").push("nowhere", "never")
    job = task.push(str(flag))
    child = runjobs("--grace", GRACE, "--queues", "default", jobify=jobify)
    until(flag.exists, "the job's start")
    assert child.end(signal.SIGTERM, patience=TO_END) == 0
    assert_handed_back(job)
    assert runjobs("--batch", "--queues", "default", jobify=jobify).end() == 0
    assert status_of(job) is JobStatus.SUCCESSFUL


def test_a_database_that_stays_locked_does_not_hold_the_process(runjobs: Run, flag: Path) -> None:
    job = sleep_at_first.push(str(flag))
    child = runjobs("--grace", GRACE)
    until(flag.exists, "the job's start")
    with closing(sqlite3.connect(connection.settings_dict["NAME"], isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        child.send(signal.SIGTERM)
        code = child.end(patience=TO_END)
    assert code == 0
    assert job.id in child.wait_for("event=stopped-without-store")
    assert Row.objects.get(id=job.id).status == "running"  # until its lease is over


def test_after_kill_9_another_process_rescues_the_job(runjobs: Run, flag: Path) -> None:
    job = sleep_at_first.push(str(flag))
    child = runjobs(jobify={"LEASE": 1})
    until(flag.exists, "the job's start")
    child.end(signal.SIGKILL)
    rescuer = runjobs(jobify={"LEASE": 1})
    rescuer.wait_for("event=rescued")
    job.wait(timeout=60)
    assert job.result() == "second time"
    assert Row.objects.get(id=job.id).crashes == 1
    assert rescuer.end(signal.SIGTERM) == 0


def test_usr1_shows_what_the_workers_do(runjobs: Run, flag: Path) -> None:
    job = sleep_at_first.push(str(flag))
    child = runjobs("--grace", GRACE)
    until(flag.exists, "the job's start")

    def shown() -> bool:
        child.send(signal.SIGUSR1)
        return "time.sleep(AN_HOUR)" in child.output  # it may not have come to that line yet

    until(shown, "the job's stack")
    assert "1 of 10" in child.wait_for("queue default:")
    assert "tests.app.tasks.sleep_at_first" in child.wait_for(f"  {job.id}")
    assert child.end(signal.SIGTERM) == 0


# What it says


def test_its_first_lines_say_what_runs_where(runjobs: Run) -> None:
    queue("default").tune(workers=3)
    child = runjobs(jobify={"WORKERS": 7, "QUEUES": {"mail": {"MAXSIZE": 50}}})
    child.wait_for("ready    stop with Ctrl+C (drains up to 25 s; again to abort)")
    assert "store database(default: sqlite)" in child.wait_for(f"pid {child.pid}")
    queues = child.wait_for("queues ")
    assert "default 3 workers (tuned, settings say 7), maxsize 1024" in queues
    assert "mail 7 workers, maxsize 50" in queues
    assert "tests.app.tasks" in child.wait_for("tasks ")
    assert child.end(signal.SIGTERM) == 0


def test_json_lines_can_each_be_read(runjobs: Run, tmp_path: Path) -> None:
    job = write_line.push(str(tmp_path / "written"), "one")
    child = runjobs("--batch", "--log-format", "json")
    assert child.end() == 0
    entries = [json.loads(line) for line in child.lines]
    assert all({"time", "level", "logger", "message"} <= entry.keys() for entry in entries)
    (done,) = (entry for entry in entries if entry.get("event") == "done")
    assert (done["id"], done["task"]) == (job.id, "tests.app.tasks.write_line")
    assert (done["queue"], done["attempt"]) == ("default", 1)


def test_verbosity_0_says_nothing_of_what_goes_well(runjobs: Run, tmp_path: Path) -> None:
    write_line.push(str(tmp_path / "written"), "one")
    child = runjobs("--batch", "-v", "0")
    assert child.end() == 0
    assert child.lines == []


def test_the_heartbeat_file_is_touched_while_it_works_and_gone_afterwards(
    runjobs: Run, tmp_path: Path
) -> None:
    path = tmp_path / "beat"
    child = runjobs("--heartbeat-file", str(path))
    child.wait_for("ready")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    os.utime(path, (0, 0))
    until(lambda: time.time() - path.stat().st_mtime < 60, "the next heartbeat")
    assert child.end(signal.SIGTERM) == 0
    assert not path.exists()


def test_the_heartbeat_stops_while_the_event_loop_is_blocked(
    runjobs: Run, tmp_path: Path, flag: Path
) -> None:
    path = tmp_path / "beat"
    child = runjobs("--heartbeat-file", str(path), "--grace", GRACE)
    block_loop_at_first.push(str(flag))
    child.wait_for("event=loop-blocked")
    os.utime(path, (0, 0))
    child.wait_for("event=loop-blocked", times=3)  # one a second
    assert path.stat().st_mtime == 0


# What it refuses


def test_a_heartbeat_file_that_is_a_link_is_refused(runjobs: Run, tmp_path: Path) -> None:
    target = tmp_path / "target"
    (tmp_path / "link").symlink_to(target)
    child = runjobs("--heartbeat-file", str(tmp_path / "link"))
    assert child.end() == 2
    assert "Name a file, not a link" in child.output
    assert not target.exists()


def test_a_queue_in_memory_is_refused_unless_it_is_left_out(runjobs: Run) -> None:
    jobify = {"QUEUES": {"cache": {"STORE": "memory"}}}
    child = runjobs("--batch", jobify=jobify)
    assert child.end() == 2
    assert "'cache' are in a memory store" in child.output
    assert "--exclude cache" in child.output
    assert runjobs("--batch", "--exclude", "cache", jobify=jobify).end() == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--queues", "defualt"], "--queues: there is no queue 'defualt' (did you mean 'default'?)"),
        (["--exclude", "mail"], "--exclude: there is no queue 'mail'"),
        (["--exclude", "default"], "no queue is left"),
        (["--queues", ","], "name at least one queue"),
        (["--queues", "default", "--exclude", "default"], "not allowed with"),
        (["--workers", "0"], "'0' is not a whole number of at least 1"),
        (["--workers", "1001"], "from 1 to 1000"),
        (["--max-jobs", "many"], "'many' is not a whole number"),
        (["--grace", "-1"], "'-1' is not a number of seconds"),
        (["--grace", "nan"], "'nan' is not a number of seconds"),
    ],
)
def test_a_wrong_option_is_named_and_ends_it_with_2(runjobs: Run, arguments: list[str], message: str) -> None:
    child = runjobs(*arguments)
    assert child.end() == 2
    child.wait_for(message)


def test_wrong_settings_end_it_with_2(runjobs: Run) -> None:
    child = runjobs(jobify={"WORKES": 3})
    assert child.end() == 2
    assert "did you mean 'WORKERS'" in child.output


def test_a_database_without_tables_ends_it_with_1_and_the_way_out(runjobs: Run, tmp_path: Path) -> None:
    child = runjobs(DATABASE_URL=f"sqlite:///{tmp_path / 'new.sqlite3'}")
    assert child.end() == 1
    assert "run 'manage.py migrate'" in child.output


# Reload


@pytest.fixture
def changing(tmp_path: Path) -> Path:
    """The tasks of an app that a test edits."""
    app = tmp_path / "changing_app"
    app.mkdir()
    (app / "__init__.py").touch()
    tasks = app / "tasks.py"
    tasks.write_text("version = 1\n")
    return tasks


def edit_until_noticed(child: Child, path: Path, text: str, sign: str, after: int = 0) -> None:
    """Write until the process prints ``sign``: it misses what is written before it first looks."""

    def edit() -> bool:
        later = path.stat().st_mtime + 10
        path.write_text(text)
        os.utime(path, (later, later))
        return any(sign in line for line in child.lines[after:])

    until(edit, sign)


def test_a_change_of_code_hands_jobs_back_and_starts_anew(runjobs: Run, changing: Path, flag: Path) -> None:
    job = sleep_at_first.push(str(flag))
    path = f"{changing.parent.parent}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    child = runjobs("--reload", "-v", "2", TEST_APPS="changing_app", PYTHONPATH=path)
    until(flag.exists, "the job's start")
    edit_until_noticed(child, changing, "version = 2\n", "reason=code-changed")
    child.wait_for("ready", after=child.seen("reason=code-changed"))
    assert job.wait(timeout=60) is None
    assert job.result() == "second time"
    assert Row.objects.get(id=job.id).crashes == 0

    edit_until_noticed(child, changing, "a slip of the pen\n", "SyntaxError")
    child.wait_for("event=waiting-for-change")
    edit_until_noticed(child, changing, "version = 3\n", "ready", after=child.seen("SyntaxError"))
    assert child.end(signal.SIGTERM) == 0
    child.wait_for("event=stopped", after=child.seen("signal=SIGTERM"))


def test_the_child_ends_when_its_parent_is_killed(runjobs: Run, flag: Path) -> None:
    job = asleep_at_first.push(str(flag))
    child = runjobs("--reload")
    until(flag.exists, "the job's start")
    assert child.end(signal.SIGKILL) == -9
    child.wait_for("reason=parent-gone")
    child.wait_for("event=stopped")
    assert_handed_back(job)


def test_a_wait_that_ends_early_does_not_end_a_stopping_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits may go by the system's clock, and that may be set forward."""
    ends = iter([Empty(), Empty(), END])

    class Signals:
        def put(self, name: str) -> None: ...

        def get(self, timeout: float) -> str:
            assert timeout > 0
            end = next(ends)
            if isinstance(end, Empty):
                raise end
            return end

    ended: list[int] = []
    monkeypatch.setattr("jobify_django.management.process.SimpleQueue", Signals)
    monkeypatch.setattr(os, "_exit", ended.append)
    process = Process(last_resort=True)
    process.stop(60.0, "signal=SIGTERM")
    before = {number: signal.getsignal(number) for number in signal.valid_signals()}
    try:
        with process.listening():
            until(lambda: "jobify-signals" not in {thread.name for thread in threading.enumerate()})
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) is not handler:
                signal.signal(number, handler)
    assert ended == []
    assert next(ends, None) is None


# What it inherits, and what its jobs' children do


@pytest.mark.parametrize("arguments", [[], ["--processes", "1"]], ids=["alone", "processes"])
def test_under_nohup_it_goes_on_when_the_terminal_is_gone(
    environment: dict[str, str], arguments: list[str]
) -> None:
    command = ["-m", "django", "runjobs", "--grace", GRACE, *arguments]
    nohup = (
        "import os, signal, sys; signal.signal(signal.SIGHUP, signal.SIG_IGN); "
        f"os.execv(sys.executable, [sys.executable, *{command!r}])"
    )
    with Child(["-c", nohup], {**environment, "TEST_JOBIFY": "{}"}) as child:
        child.wait_for("ready")
        child.send(signal.SIGHUP)
        child.send(signal.SIGUSR1)
        child.wait_for("event=snapshot")
        assert "event=stopping" not in child.output
        assert child.end(signal.SIGTERM, patience=TO_END) == 0


@pytest.mark.parametrize("task", [terminate_children, aterminate_children], ids=["sync", "async"])
def test_processes_that_a_job_forks_can_be_terminated(
    runjobs: Run, tmp_path: Path, task: Task[[str], str]
) -> None:
    job = task.push(str(tmp_path / "endings"))
    child = runjobs("--batch")
    until((tmp_path / "endings").exists, "the end of the children")
    assert child.end() == 0
    assert status_of(job) is JobStatus.SUCCESSFUL
    assert set((tmp_path / "endings").read_text().split()) == {str(-signal.SIGTERM)}
    assert "event=stopping signal" not in child.output
