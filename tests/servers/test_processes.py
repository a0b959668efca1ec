"""Real processes on one SQLite file: who pushes, who runs, who is killed, and what is left afterwards."""

from __future__ import annotations

import json
import random
import signal
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from django.db import connection

from jobify_django import JobFailed, JobStatus, get_job
from jobify_django.models import Job as Row
from jobify_django.models import Queue as QueueRow
from jobify_django.stores import stores
from tests.app.tasks import hold_interpreter_at_first, kill_worker, sleep_at_first, wait_for_file, write_line
from tests.child import PATIENCE, Child, is_stopped, until

PUSH = """
import django
django.setup()
from tests.app.tasks import write_line
for number in range({count}):
    print(write_line.push({path!r}, f"{name} {{number}}").id, flush=True)
"""

Start = Callable[..., Child]


@pytest.fixture
def start(child_environment: dict[str, str]) -> Iterator[Start]:
    """Start a Python process that knows the tasks and this test's database."""
    with ExitStack() as stack:

        def run(*arguments: str, **jobify: Any) -> Child:
            environment = {
                **child_environment,
                "DJANGO_SETTINGS_MODULE": "tests.servers.settings",
                "TEST_JOBIFY": json.dumps(jobify),
            }
            return stack.enter_context(Child(arguments, environment))

        yield run


@pytest.fixture
def pushing(start: Start, tmp_path: Path) -> Start:
    def push(name: str, count: int, **jobify: Any) -> Child:
        return start("-c", PUSH.format(count=count, path=str(tmp_path / "written"), name=name), **jobify)

    return push


@contextmanager
def write_lock(timeout: float = PATIENCE) -> Iterator[None]:
    """Hold SQLite's lock while the block runs, so that nobody else holds it then."""
    name = connection.settings_dict["NAME"]
    with closing(sqlite3.connect(name, timeout=timeout, isolation_level=None)) as lock:
        lock.execute("BEGIN IMMEDIATE")
        yield


def freeze(child: Child) -> None:
    """Stop a process while it holds no lock of SQLite's: nobody could write before it wakes."""
    while True:
        with write_lock():
            child.send(signal.SIGSTOP)
            until(lambda: is_stopped(child.pid), "the stop")
        try:
            with write_lock(timeout=1):
                return
        except sqlite3.OperationalError:  # stopped in the moment in which it takes or gives one
            child.send(signal.SIGCONT)


RESCUERS_LEASE = 6
"""Seconds; a pool rescues nothing in its first third of them. Its own job must outlast a busy machine."""


@pytest.fixture
def runjobs(start: Start) -> Start:
    def run(*arguments: str, **jobify: Any) -> Child:
        return start("-m", "django", "runjobs", *arguments, **jobify)

    return run


def assert_whole() -> None:
    """The counts are right, and the file is whole."""
    assert stores["database"].repair() is False
    with connection.cursor() as cursor:
        assert cursor.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_one_process_pushes_another_runs_and_a_third_waits(
    pushing: Start, runjobs: Start, tmp_path: Path
) -> None:
    pusher = pushing("a", 1)
    assert pusher.end() == 0
    job = get_job(pusher.lines[-1])
    assert job.status is JobStatus.WAITING
    pool = runjobs()
    job.wait(timeout=PATIENCE)
    assert job.result() is None
    assert (tmp_path / "written").read_text() == "a 0\n"
    assert pool.end(signal.SIGTERM) == 0


def test_a_job_whose_process_is_killed_runs_elsewhere_and_the_reason_is_recorded(
    runjobs: Start, tmp_path: Path
) -> None:
    flag = tmp_path / "started"
    first = runjobs(LEASE=3)
    job = sleep_at_first.push(str(flag))
    until(flag.exists, "the job's start")
    dead = job.record().pool
    second = runjobs(LEASE=RESCUERS_LEASE)
    second.wait_for("ready")
    first.end(signal.SIGKILL)
    # What ran in the killed process; the other one was idle.
    second.wait_for(f"event=rescued id={job.id}")
    job.wait(timeout=PATIENCE)
    assert job.result() == "second time"
    record = job.record()
    assert (record.attempt, record.crashes) == (2, 1)
    (interruption,) = record.history
    assert (interruption.attempt, interruption.pool, interruption.charged) == (1, dead, True)
    assert interruption.reason == "its worker's lease ran out"
    assert second.end(signal.SIGTERM) == 0
    assert_whole()


def test_a_job_that_kills_its_process_is_failed_after_three_and_others_run(
    runjobs: Start, tmp_path: Path
) -> None:
    poison = kill_worker.push()
    for attempt in range(1, 4):
        until(lambda: poison.record().status is JobStatus.WAITING, "the poison waiting")
        pool = runjobs("--workers", "1", LEASE=1)
        assert pool.end() == -signal.SIGKILL
        assert poison.record().attempt == attempt
        # Whoever comes next finds it: here, once the lease has run out.
        until(lambda: stores["database"].rescue(), "the rescue")
    with pytest.raises(JobFailed, match="crashed its worker 3 times"):
        poison.result()
    job = write_line.push(str(tmp_path / "written"), "alive")
    assert runjobs("--batch", LEASE=1).end() == 0
    job.wait(timeout=PATIENCE)
    assert_whole()


def test_a_process_frozen_past_its_lease_changes_nothing_when_it_wakes(
    runjobs: Start, tmp_path: Path
) -> None:
    started, go = tmp_path / "started", tmp_path / "go"
    frozen = runjobs("--workers", "1", LEASE=1)
    job = wait_for_file.push(str(started), str(go))
    until(started.exists, "the job's start")
    freeze(frozen)
    other = runjobs("--workers", "1", LEASE=RESCUERS_LEASE)
    other.wait_for(f"event=rescued id={job.id}")
    until(lambda: job.record().status is JobStatus.RUNNING, "the second attempt")
    assert job.record().attempt == 2
    owner = job.record().pool
    frozen.send(signal.SIGCONT)
    frozen.wait_for(f"event=lost id={job.id}")
    assert (job.record().pool, job.record().attempt) == (owner, 2)
    go.touch()
    frozen.wait_for(f"event=refused id={job.id}")
    job.wait(timeout=PATIENCE)
    other.wait_for(f"event=done id={job.id}")
    assert (job.record().attempt, job.record().crashes, job.record().pool) == (2, 1, owner)
    assert "event=done" not in frozen.output
    for child in (frozen, other):
        assert child.end(signal.SIGTERM) == 0
    assert_whole()


def test_a_job_that_holds_the_interpreter_past_its_lease_runs_elsewhere(
    runjobs: Start, tmp_path: Path
) -> None:
    started, begin, held, end = (tmp_path / name for name in ("started", "begin", "held", "end"))
    stuck = runjobs("--workers", "1", LEASE=1)
    job = hold_interpreter_at_first.push(str(tmp_path))
    until(started.exists, "the job's start")
    # Not while another thread of it holds SQLite's lock: nobody could write before it goes on.
    with write_lock():
        begin.touch()
        until(held.exists, "the interpreter's standstill")
    other = runjobs("--workers", "1", LEASE=RESCUERS_LEASE)
    job.wait(timeout=PATIENCE)
    assert job.result() == "second time"
    other.wait_for(f"event=rescued id={job.id}")
    owner = job.record().pool
    end.touch()
    stuck.wait_for(f"event=refused id={job.id}")
    record = job.record()
    assert (record.attempt, record.crashes, record.pool, record.result) == (2, 1, owner, '"second time"')
    for child in (stuck, other):
        assert child.end(signal.SIGTERM) == 0
    assert_whole()


def test_the_bound_is_exact_over_four_pushing_processes(
    pushing: Start, runjobs: Start, tmp_path: Path
) -> None:
    each, maxsize = 100, 5
    jobify = {"MAXSIZE": maxsize, "PUSH_TIMEOUT": PATIENCE}
    pool = runjobs(**jobify)
    pushers = [pushing(name, each, **jobify) for name in "abcd"]
    samples: list[int] = []

    def all_done() -> bool:
        samples.append(Row.objects.filter(status="waiting").count())
        return Row.objects.filter(status="successful").count() == 4 * each

    until(all_done, "the end of all jobs")
    assert [pusher.end() for pusher in pushers] == [0] * 4
    assert 0 < max(samples) <= maxsize
    lines = (tmp_path / "written").read_text().splitlines()
    assert sorted(lines) == sorted(f"{name} {number}" for name in "abcd" for number in range(each))
    assert "database is locked" not in "".join(child.output for child in (pool, *pushers))
    assert pool.end(signal.SIGTERM) == 0
    assert_whole()


def test_a_full_queue_stays_full_whoever_pushes(pushing: Start) -> None:
    jobify = {"MAXSIZE": 3, "PUSH_TIMEOUT": 0}
    pushers = [pushing(name, 10, **jobify) for name in "abc"]
    for pusher in pushers:
        assert pusher.end() == 1
        assert "jobify_django.exceptions.QueueFull" in pusher.output
    assert Row.objects.filter(status="waiting").count() == 3
    assert_whole()


def test_killed_producers_lose_no_job_they_were_told_of_and_leak_no_room(pushing: Start) -> None:
    chance = random.Random(7)
    for _ in range(2):
        pushers = [pushing(name, 100_000, MAXSIZE=1_000_000) for name in "abc"]
        for pusher in pushers:
            many = chance.randint(5, 40)
            until(lambda pusher=pusher, many=many: len(pusher.lines) > many, "some pushes")
            pusher.end(signal.SIGKILL)
        for pusher in pushers:
            pusher.read_out()
            told = {line for line in pusher.lines if len(line) == 36}
            assert told <= set(Row.objects.values_list("id", flat=True))
    stores["database"].repair()
    assert QueueRow.objects.get().waiting == Row.objects.filter(status="waiting").count()
    assert_whole()
