"""``runjobs --processes N``: what becomes of its processes, and of their jobs."""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

from jobify_django import Job, JobStatus, queue
from jobify_django.management.supervisor import pause
from jobify_django.models import Job as Row
from jobify_django.stores import stores
from tests.app.tasks import kill_worker, sleep_at_first, wait_for_file, write_line
from tests.child import Child, until

GRACE = "0.3"
# Generous ends for what takes two seconds; a grace of minutes is long, and so is a job of an hour.
TO_END = TO_MISS = 30.0

STARTED = re.compile(r"event=process-started process=(\d+) pid=(\d+)")


class Supervisor(Child):
    """A supervisor, and the processes it says it has started."""

    @property
    def pids(self) -> dict[int, int]:
        """The newest process of each number."""
        return {int(number): int(pid) for number, pid in STARTED.findall(self.output)}

    def ready(self, times: int) -> None:
        self.wait_for("ready ", times=times)

    def alive(self) -> list[int]:
        return [pid for pid in self.pids.values() if is_child(pid)]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._kill_group()
        for _, pid in STARTED.findall(self.output):
            if is_child(int(pid)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
        super().__exit__(kind, error, trace)


Supervise = Callable[..., Supervisor]


@pytest.fixture
def supervise(child_environment: dict[str, str]) -> Iterator[Supervise]:
    with ExitStack() as stack:

        def run(*arguments: str, jobify: Mapping[str, Any] | None = None, **variables: str) -> Supervisor:
            environment = {
                **child_environment,
                "DJANGO_SETTINGS_MODULE": "tests.servers.settings",
                "TEST_JOBIFY": json.dumps(jobify or {}),
                **variables,
            }
            return stack.enter_context(Supervisor(["-m", "django", "runjobs", *arguments], environment))

        yield run


def is_child(pid: int) -> bool:
    """Whether a process that a supervisor has started runs under this number."""
    try:
        return b"--child" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def pools() -> set[int]:
    """Return the processes that have a pool alive."""
    return {pool.pid for pool in stores["database"].pools()}


def start_waiting(tmp_path: Path, number: int) -> list[Job[None]]:
    """Return jobs that run until the file ``go`` is there, once they have started."""
    started = [tmp_path / f"started-{at}" for at in range(number)]
    jobs = [wait_for_file.push(str(path), str(tmp_path / "go")) for path in started]
    until(lambda: all(path.exists() for path in started), "the jobs' start")
    return jobs


def assert_handed_back(jobs: list[Job[Any]]) -> None:
    for job in jobs:
        row = Row.objects.get(id=job.id)
        assert (row.status, row.crashes) == ("waiting", 0)


# Its work


def test_each_process_is_a_pool_of_its_own_and_names_its_lines(supervise: Supervise, tmp_path: Path) -> None:
    child = supervise("--processes", "2", "--workers", "1")
    child.ready(2)
    until(lambda: pools() == set(child.pids.values()), "a row for each process")
    jobs = start_waiting(tmp_path, 2)
    assert len({Row.objects.get(id=job.id).pool for job in jobs}) == 2
    (tmp_path / "go").touch()
    for job in jobs:
        job.wait(timeout=60)
    child.wait_for("event=done", times=2)
    for number in child.pids:
        assert len([line for line in child.lines if f" [{number}] event=done" in line]) == 1
    assert child.end(signal.SIGTERM) == 0
    assert pools() == set()


def test_json_lines_name_their_process(supervise: Supervise, tmp_path: Path) -> None:
    for number in range(4):
        write_line.push(str(tmp_path / "written"), str(number))
    child = supervise("--processes", "2", "--batch", "--log-format", "json")
    assert child.end() == 0
    entries = [json.loads(line) for line in child.lines]
    assert {entry.get("process") for entry in entries} == {None, 1, 2}
    assert all(entry["process"] for entry in entries if entry.get("event") == "done")


def test_batch_runs_what_waits_and_exits_0(supervise: Supervise, tmp_path: Path) -> None:
    jobs = [write_line.push(str(tmp_path / "written"), "one") for _ in range(25)]
    assert supervise("--processes", "3", "--batch").end() == 0
    for job in jobs:
        job.refresh()
    assert {job.status for job in jobs} == {JobStatus.SUCCESSFUL}


def test_batch_exits_4_when_jobs_are_left_and_replaces_nobody(supervise: Supervise, tmp_path: Path) -> None:
    job = write_line.push(str(tmp_path / "written"), "one")
    queue("default").pause()
    child = supervise("--processes", "2", "--batch")
    assert child.end() == 4
    assert len(STARTED.findall(child.output)) == 2
    assert child.output.count("event=left queue=default jobs=1") == 2
    assert "event=process-died" not in child.output
    job.refresh()
    assert job.status is JobStatus.WAITING


def test_a_process_that_has_run_max_jobs_is_replaced(supervise: Supervise, tmp_path: Path) -> None:
    jobs = [write_line.push(str(tmp_path / "written"), "one") for _ in range(5)]
    child = supervise("--processes", "1", "--max-jobs", "2")
    for job in jobs:
        job.wait(timeout=60)
    assert len(STARTED.findall(child.output)) == 3
    assert "event=process-died" not in child.output
    assert child.end(signal.SIGTERM) == 0


def test_with_batch_a_process_that_has_run_max_jobs_is_not_replaced(
    supervise: Supervise, tmp_path: Path
) -> None:
    for _ in range(5):
        write_line.push(str(tmp_path / "written"), "one")
    assert supervise("--processes", "2", "--max-jobs", "2", "--batch").end() == 0
    assert len((tmp_path / "written").read_text().split()) == 4


# Processes that die


def test_a_killed_process_is_replaced_and_its_job_runs_again_with_a_reason(
    supervise: Supervise, tmp_path: Path
) -> None:
    job = sleep_at_first.push(str(tmp_path / "started"))
    child = supervise("--processes", "2", jobify={"LEASE": 3})
    child.ready(2)
    until((tmp_path / "started").exists, "the job's start")
    holder = Row.objects.get(id=job.id).pool
    until(lambda: holder in {pool.id for pool in stores["database"].pools()}, "the pool's first report")
    (victim,) = (pool.pid for pool in stores["database"].pools() if pool.id == holder)
    (number,) = (number for number, pid in child.pids.items() if pid == victim)
    os.kill(victim, signal.SIGKILL)
    assert f"process={number} pid={victim} signal=SIGKILL" in child.wait_for("event=process-died")
    child.ready(3)
    assert child.pids[number] != victim
    job.wait(timeout=60)
    assert (job.result(), job.attempts) == ("second time", 2)
    (lost,) = stores["database"].get([job.id])[job.id].history
    assert (lost.attempt, lost.charged) == (1, True)
    assert "lease" in lost.reason
    assert child.end(signal.SIGTERM) == 0


def test_a_job_that_kills_its_process_is_failed_after_three_and_everything_else_is_run(
    supervise: Supervise, tmp_path: Path
) -> None:
    poison = kill_worker.push()
    jobs = [write_line.push(str(tmp_path / "written"), "one") for _ in range(50)]
    child = supervise("--processes", "2", "--workers", "1", jobify={"LEASE": 1})
    for job in [*jobs, poison]:
        job.wait(timeout=180)  # replacements come after pauses that grow
    row = Row.objects.get(id=poison.id)
    assert (row.status, row.attempt, row.crashes) == ("failed", 3, 3)
    assert child.output.count("event=process-died") == 3
    for job in jobs:
        job.refresh()
        assert job.status is JobStatus.SUCCESSFUL
    until(lambda: len(STARTED.findall(child.output)) == 5, "three replacements")
    for number in child.pids:
        child.wait_for(f"[{number}] ready", after=child.seen(f"event=process-started process={number} "))
    assert child.end(signal.SIGTERM) == 0


def test_a_job_that_kills_the_first_process_before_it_is_up_does_not_stop_them_all(
    supervise: Supervise, tmp_path: Path
) -> None:
    poison = kill_worker.push()
    job = write_line.push(str(tmp_path / "written"), "one")
    supervise(
        "--processes", "1", "--workers", "1", jobify={"LEASE": 1}, TEST_APPS="tests.servers.dawdling.Dawdling"
    ).wait_for("event=process-died")
    for one in (poison, job):
        one.wait(timeout=180)
    assert (poison.status, job.status) == (JobStatus.FAILED, JobStatus.SUCCESSFUL)


def test_the_pause_grows_while_a_process_dies_early_and_the_others_go_on(
    supervise: Supervise, tmp_path: Path
) -> None:
    child = supervise("--processes", "2")
    child.ready(2)
    other = child.pids[2]
    os.kill(child.pids[1], signal.SIGKILL)
    assert "restart_in=1:" in child.wait_for("event=process-died")
    child.ready(3)
    os.kill(child.pids[1], signal.SIGSEGV)
    died = child.wait_for("event=process-died", times=2)
    assert "signal=SIGSEGV" in died
    assert "restart_in=2:" in died
    write_line.push(str(tmp_path / "written"), "one").wait(timeout=60)
    assert child.pids[2] == other
    child.ready(4)
    assert child.end(signal.SIGTERM) == 0


def test_the_pause_doubles_up_to_half_a_minute() -> None:
    assert [pause(deaths) for deaths in range(8)] == [0, 1, 2, 4, 8, 16, 30, 30]


def test_a_process_that_the_system_has_no_room_for_is_tried_again(supervise: Supervise) -> None:
    child = supervise("--processes", "1")
    child.ready(1)
    limits = resource.prlimit(child.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(child.pid, resource.RLIMIT_NOFILE, (0, limits[1]))
    os.kill(child.pids[1], signal.SIGKILL)
    assert "Too many open files" in child.wait_for("event=process-not-started")
    resource.prlimit(child.pid, resource.RLIMIT_NOFILE, limits)
    child.ready(2)
    assert child.end(signal.SIGTERM) == 0


def test_a_process_that_is_told_to_end_is_replaced_at_once(supervise: Supervise) -> None:
    child = supervise("--processes", "1")
    child.ready(1)
    first = child.pids[1]
    os.kill(first, signal.SIGTERM)
    child.ready(2)
    assert child.pids[1] != first
    assert "event=process-died" not in child.output
    assert child.end(signal.SIGTERM) == 0


def test_processes_that_cannot_start_end_it_with_their_code(supervise: Supervise, tmp_path: Path) -> None:
    child = supervise("--processes", "2", DATABASE_URL=f"sqlite:///{tmp_path / 'new.sqlite3'}")
    assert child.end() == 1
    assert "run 'manage.py migrate'" in child.output
    child.wait_for("event=process-failed")
    assert len(STARTED.findall(child.output)) <= 2
    assert child.alive() == []


# Signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP], ids=["TERM", "INT", "HUP"])
def test_a_signal_lets_the_jobs_of_all_processes_end(
    supervise: Supervise, tmp_path: Path, number: int
) -> None:
    child = supervise("--processes", "2", "--workers", "1", "--grace", "60")
    jobs = start_waiting(tmp_path, 2)
    child.send(number)
    child.wait_for("] event=stopping", times=2)
    (tmp_path / "go").touch()
    assert child.end() == 0
    for job in jobs:
        job.refresh()
        assert job.status is JobStatus.SUCCESSFUL
    assert pools() == set()


def test_what_runs_after_the_grace_is_handed_back_by_all_processes(
    supervise: Supervise, tmp_path: Path
) -> None:
    child = supervise("--processes", "2", "--workers", "1", "--grace", GRACE)
    jobs = start_waiting(tmp_path, 2)
    assert child.end(signal.SIGTERM, patience=TO_END) == 0
    assert_handed_back(jobs)


def test_a_terminals_ctrl_c_is_one_wish(supervise: Supervise, tmp_path: Path) -> None:
    child = supervise("--processes", "2", "--workers", "1", "--grace", "60")
    start_waiting(tmp_path, 2)
    assert child.pid not in map(os.getpgid, child.alive()), "they would get it twice"
    os.killpg(child.pid, signal.SIGINT)
    child.wait_for("] event=stopping", times=2)
    (tmp_path / "go").touch()
    assert child.end() == 0
    assert "event=aborting" not in child.output


@pytest.mark.parametrize("signals", [["TERM", "TERM"], ["QUIT"]], ids=" and ".join)
def test_the_second_signal_ends_all_processes_now(
    supervise: Supervise, tmp_path: Path, signals: list[str]
) -> None:
    child = supervise("--processes", "2", "--workers", "1", "--grace", "600")
    jobs = start_waiting(tmp_path, 2)
    first, *second = [signal.Signals[f"SIG{name}"] for name in signals]
    child.send(first)
    for number in second:
        child.wait_for("] event=stopping", times=2)

        def again(number: int = number) -> bool:
            child.send(number)
            return child.output.count("event=aborting") >= 2

        until(again, "the second signal")
    assert child.end(patience=TO_END) == 1
    assert_handed_back(jobs)
    assert child.alive() == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP], ids=["TERM", "INT", "HUP"])
def test_a_signal_while_they_start_ends_it_cleanly(supervise: Supervise, number: int) -> None:
    child = supervise("--processes", "2")
    child.wait_for("event=process-started", times=2)
    assert child.end(number, patience=TO_END) == 0
    assert child.alive() == []


def test_usr1_shows_the_processes_and_what_their_workers_do(supervise: Supervise, tmp_path: Path) -> None:
    child = supervise("--processes", "2", "--workers", "1", "--grace", GRACE)
    jobs = start_waiting(tmp_path, 2)
    child.send(signal.SIGUSR1)
    for number, pid in child.pids.items():
        child.wait_for(f"process {number}: pid {pid}")
        child.wait_for(f"[{number}] event=snapshot")
    for job in jobs:
        child.wait_for(f"  {job.id} tests.app.tasks.wait_for_file")
    assert child.end(signal.SIGTERM) == 0


def test_usr1_does_not_end_a_process_that_starts(supervise: Supervise) -> None:
    child = supervise("--processes", "2")
    child.wait_for("event=process-started", times=2)
    child.send(signal.SIGUSR1)
    child.ready(2)
    assert "event=process-died" not in child.output
    assert "event=process-failed" not in child.output
    assert child.end(signal.SIGTERM) == 0


# A supervisor that is gone


@pytest.mark.parametrize("grace", [GRACE, "600"])
def test_the_processes_of_a_killed_supervisor_hand_back_and_end(
    supervise: Supervise, tmp_path: Path, grace: str
) -> None:
    child = supervise("--processes", "2", "--workers", "1", "--grace", grace)
    jobs = start_waiting(tmp_path, 2)
    assert child.end(signal.SIGKILL) == -9
    until(lambda: not child.alive(), "the processes' end", patience=TO_MISS)
    assert child.output.count("reason=parent-gone") == 2
    assert_handed_back(jobs)
    assert pools() == set()


def test_the_processes_of_a_killed_supervisor_let_their_jobs_end(
    supervise: Supervise, tmp_path: Path
) -> None:
    child = supervise("--processes", "2", "--workers", "1")
    jobs = start_waiting(tmp_path, 2)
    child.end(signal.SIGKILL)
    child.wait_for("reason=parent-gone", times=2)
    (tmp_path / "go").touch()
    until(lambda: not child.alive(), "the processes' end", patience=TO_MISS)
    for job in jobs:
        job.refresh()
        assert job.status is JobStatus.SUCCESSFUL


def test_processes_that_drain_for_long_end_when_their_supervisor_is_killed(
    supervise: Supervise, tmp_path: Path
) -> None:
    child = supervise("--processes", "2", "--workers", "1", "--grace", "600")
    jobs = start_waiting(tmp_path, 2)
    child.send(signal.SIGTERM)
    child.wait_for("] event=stopping", times=2)
    child.end(signal.SIGKILL)
    until(lambda: not child.alive(), "the processes' end", patience=TO_MISS)
    assert_handed_back(jobs)


# The heartbeat file


def beats(path: Path) -> bool:
    """Whether the file is touched again."""
    os.utime(path, (0, 0))
    until(lambda: path.stat().st_mtime > 0, "the next heartbeat")
    return True


def test_one_heartbeat_file_is_touched_while_all_processes_turn(supervise: Supervise, tmp_path: Path) -> None:
    path = tmp_path / "beat"
    child = supervise("--processes", "2", "--heartbeat-file", str(path))
    child.ready(2)
    assert beats(path)
    os.kill(child.pids[2], signal.SIGSTOP)
    # Its last word counts for a few seconds.
    until(lambda: time.time() - path.stat().st_mtime > 3, "a file that ages")
    assert child.process.poll() is None
    os.kill(child.pids[2], signal.SIGCONT)
    assert beats(path)
    assert child.end(signal.SIGTERM) == 0
    assert not path.exists()


# What it refuses


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--processes", "0"], "'0' is not a whole number of at least 1"),
        (["--processes", "-1"], "'-1' is not a whole number of at least 1"),
        (["--processes", "two"], "'two' is not a whole number of at least 1"),
        (["--processes", "65"], "65 is not a whole number from 1 to 64"),
        (["--processes", "2", "--reload"], "--reload does not go with --processes"),
        (["--processes", "2", "--queues", "defualt"], "did you mean 'default'?"),
        (["--processes", "2", "--heartbeat-file", "/"], "--heartbeat-file '/' cannot be touched"),
        (["--child", "1:999"], "--child is for runjobs itself"),
    ],
)
def test_a_wrong_option_is_named_once_and_ends_it_with_2(
    supervise: Supervise, arguments: list[str], message: str
) -> None:
    child = supervise(*arguments)
    assert child.end() == 2
    child.wait_for(message)
    assert child.output.count(message) == 1
    assert child.pids == {}


def test_wrong_settings_end_it_with_2(supervise: Supervise) -> None:
    child = supervise("--processes", "2", jobify={"WORKES": 3})
    assert child.end() == 2
    assert child.output.count("did you mean 'WORKERS'") == 1
    assert child.pids == {}
