"""Workers inside real ASGI servers. ``docs/reference/servers.md`` shows what these tests hold."""

from __future__ import annotations

import os
import signal
import sqlite3
from collections.abc import Collection
from contextlib import closing
from pathlib import Path

import pytest
from django.db import connection

from jobify_django import JobStatus, get_job, queue
from jobify_django.models import Job as Row
from jobify_django.models import Pool
from jobify_django.stores import stores
from tests.app.tasks import block_loop_at_first, sleep_at_first, wait_for_file, write_line
from tests.child import Child, until
from tests.requirement import need_module
from tests.servers.conftest import Serve
from tests.servers.server import (
    DAPHNE,
    GUNICORN_IMPATIENT,
    GUNICORN_PRELOADED,
    HYPERCORN,
    HYPERCORN_ALONE,
    RUNSERVER,
    UVICORN,
    UVICORN_LIMITED,
    UVICORN_STARLETTE,
    WITH_LIFESPAN,
    Server,
)

every = pytest.mark.parametrize("server", WITH_LIFESPAN, ids=lambda server: server.name)
telling = pytest.mark.parametrize(
    "server",
    [*(server for server in WITH_LIFESPAN if server.tells_workers), HYPERCORN_ALONE],
    ids=lambda server: server.name,
)

# A generous end for what takes two seconds; a database that stays locked would hold it for twenty.
TO_END = 15.0


def pools() -> Collection[int]:
    """Return the processes that have a pool alive."""
    return [pool.pid for pool in stores["database"].pools()]


def has_ended(pid: int) -> bool:
    """Whether a process is gone, but for what its parent has not read of it yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@every
def test_a_job_pushed_by_a_view_runs_in_the_server(serve: Serve, tmp_path: Path, server: Server) -> None:
    site = serve.up(server)
    job = get_job(site.get("/push", path=str(tmp_path / "written"), line="by a view"))
    job.wait(timeout=60)
    assert (tmp_path / "written").read_text() == "by a view\n"
    assert pools() == [int(site.get("/who"))]
    assert site.end(signal.SIGTERM, patience=TO_END) == server.term_code
    assert pools() == []


@every
def test_term_lets_a_running_job_end(serve: Serve, tmp_path: Path, server: Server) -> None:
    site = serve.up(server, grace=20)
    job = wait_for_file.push(str(tmp_path / "started"), str(tmp_path / "go"))
    until((tmp_path / "started").exists, "the job's start")
    site.send(signal.SIGTERM)
    site.wait_for("event=stopping")
    (tmp_path / "go").touch()
    assert site.end(patience=TO_END) == server.term_code
    job.refresh()
    assert job.status is JobStatus.SUCCESSFUL


@every
def test_term_lets_a_running_job_end_after_the_servers_other_processes(
    serve: Serve, tmp_path: Path, server: Server
) -> None:
    site = serve.up(server, workers=2, grace=60)
    until(lambda: len(set(pools())) == 2, "two pools")
    job = wait_for_file.push(str(tmp_path / "started"), str(tmp_path / "go"))
    until((tmp_path / "started").exists, "the job's start")
    busy = Pool.objects.get(id=job.record().pool)
    (idle,) = set(pools()) - {busy.pid}
    site.send(signal.SIGTERM)
    until(lambda: has_ended(idle), "the end of the idle process")
    seen = Pool.objects.get(id=busy.id).seen_at
    until(lambda: Pool.objects.get(id=busy.id).seen_at > seen, "the busy pool's next report")
    (tmp_path / "go").touch()
    job.wait(timeout=60)
    assert (job.record().attempt, job.record().crashes) == (1, 0)
    assert site.end(patience=TO_END) == 0
    assert pools() == []


@every
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["TERM", "INT"])
def test_what_runs_after_the_grace_is_handed_back_uncharged(
    serve: Serve, tmp_path: Path, server: Server, number: int
) -> None:
    site = serve.up(server, grace=0.3)
    job = sleep_at_first.push(str(tmp_path / "started"))
    until((tmp_path / "started").exists, "the job's start")
    assert site.end(number, patience=TO_END) == (server.term_code if number == signal.SIGTERM else 0)
    row = Row.objects.get(id=job.id)
    assert (row.status, row.crashes) == ("waiting", 0)
    assert pools() == []


def test_a_hangup_hands_back_what_runs_after_the_grace(serve: Serve, tmp_path: Path) -> None:
    site = serve.up(UVICORN, grace=0.3)
    job = sleep_at_first.push(str(tmp_path / "started"))
    until((tmp_path / "started").exists, "the job's start")
    assert site.end(signal.SIGHUP, patience=TO_END) == -signal.SIGHUP
    row = Row.objects.get(id=job.id)
    assert (row.status, row.crashes) == ("waiting", 0)
    assert pools() == []


@telling
def test_an_open_stream_does_not_keep_a_stopping_server_claiming(
    serve: Serve, tmp_path: Path, server: Server
) -> None:
    site = serve.up(server)
    with site.open_stream():
        until(pools, "the pool's first report")
        site.send(signal.SIGTERM)
        until(lambda: not pools(), "the pool's end", patience=TO_END)
        assert site.process.poll() is None  # the stream holds the server, not the jobs
        job = write_line.push(str(tmp_path / "written"), "for the next server")
    site.end()
    job.refresh()
    assert job.status is JobStatus.WAITING


def test_hypercorn_tells_its_workers_once_the_open_streams_are_closed(serve: Serve) -> None:
    site = serve.up(HYPERCORN)
    with site.open_stream():
        until(pools, "the pool's first report")
        site.send(signal.SIGTERM)
    assert site.end(patience=TO_END) == 0
    assert pools() == []


def test_term_to_a_process_that_it_would_end_at_once_hands_back_first(serve: Serve, tmp_path: Path) -> None:
    site = serve.up(HYPERCORN)  # whose own processes have no handler
    until(pools, "the pool's first report")
    job = sleep_at_first.push(str(tmp_path / "started"))
    until((tmp_path / "started").exists, "the job's start")
    (worker,) = pools()
    os.kill(worker, signal.SIGTERM)
    site.end(patience=TO_END)
    row = Row.objects.get(id=job.id)
    assert (row.status, row.crashes) == ("waiting", 0)
    assert pools() == []


def test_a_second_signal_hands_back_now(serve: Serve, tmp_path: Path) -> None:
    site = serve.up(UVICORN, grace=600)
    job = sleep_at_first.push(str(tmp_path / "started"))
    until((tmp_path / "started").exists, "the job's start")
    site.send(signal.SIGTERM)
    site.wait_for("event=stopping")

    def second() -> bool:
        if site.process.poll() is None:
            site.send(signal.SIGTERM)
        return "event=released" in site.output

    until(second, "the second signal", patience=TO_END)
    site.end(patience=TO_END)
    assert Row.objects.get(id=job.id).status == "waiting"


def test_a_push_that_waits_for_room_does_not_hold_the_server(serve: Serve, tmp_path: Path) -> None:
    queue().pause()
    write_line.push("nowhere", "never")
    site = serve.up(UVICORN_LIMITED, TEST_JOBIFY='{"MAXSIZE": 1, "PUSH_TIMEOUT": null, "GRACE": 0.3}')
    with closing(site.ask("/push", path="nowhere", line="never")):
        site.wait_for("pushing")
        assert site.end(signal.SIGTERM, patience=TO_END) == UVICORN_LIMITED.term_code
    assert Row.objects.count() == 1
    assert pools() == []


@every
def test_a_database_that_stays_locked_does_not_hold_the_server(
    serve: Serve, tmp_path: Path, server: Server
) -> None:
    site = serve.up(server, grace=0.3)
    job = sleep_at_first.push(str(tmp_path / "started"))
    until((tmp_path / "started").exists, "the job's start")
    with closing(sqlite3.connect(connection.settings_dict["NAME"], isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert site.end(signal.SIGTERM, patience=TO_END) == server.term_code
    assert job.id in site.wait_for("event=stopped-without-store")


@every
def test_a_terminals_ctrl_c_hands_back_what_runs_after_the_grace(
    serve: Serve, tmp_path: Path, server: Server
) -> None:
    site = serve.up(server, grace=0.3)
    job = sleep_at_first.push(str(tmp_path / "started"))
    until((tmp_path / "started").exists, "the job's start")
    os.killpg(site.pid, signal.SIGINT)
    assert site.end(patience=TO_END) == 0
    row = Row.objects.get(id=job.id)
    assert (row.status, row.crashes) == ("waiting", 0)


@every
def test_the_pools_of_a_server_end_when_its_parent_process_is_killed(serve: Serve, server: Server) -> None:
    site = serve.up(server, workers=2)
    until(lambda: len(set(pools())) == 2, "two pools")
    assert site.end(signal.SIGKILL) == -9
    until(lambda: not pools(), "the pools' end")


@every
def test_a_database_without_tables_fails_the_startup_with_the_reason(
    serve: Serve, tmp_path: Path, server: Server
) -> None:
    site = serve(server, DATABASE_URL=f"sqlite:///{tmp_path / 'new.sqlite3'}")
    assert site.end(patience=30) == server.failed_code
    site.wait_for("the workers of jobify_django.asgi.lifespan cannot start")
    assert "run 'manage.py migrate'" in site.output


@every
def test_wrong_settings_fail_the_startup_with_the_reason(serve: Serve, server: Server) -> None:
    site = serve(server, TEST_JOBIFY='{"WORKERS": 0}')
    assert site.end(patience=30) == server.failed_code
    assert "JOBIFY['WORKERS'] is 0" in site.output


@every
def test_two_server_workers_are_two_pools(serve: Serve, server: Server) -> None:
    site = serve.up(server, workers=2)
    until(lambda: len(set(pools())) == 2, "two pools")
    assert site.end(signal.SIGTERM, patience=TO_END) == 0
    assert pools() == []


def test_a_job_that_makes_the_server_kill_its_worker_is_charged_and_runs_again(
    serve: Serve, tmp_path: Path
) -> None:
    flag = tmp_path / "started"
    site = serve.up(GUNICORN_IMPATIENT, TEST_JOBIFY='{"LEASE": 3, "GRACE": 0.3}')
    job = block_loop_at_first.push(str(flag))
    site.wait_for(f"event=rescued id={job.id}")
    job.wait(timeout=60)
    assert job.result() == "second time"
    assert (job.record().attempt, job.record().crashes) == (2, 1)
    site.wait_for("WORKER TIMEOUT")
    assert site.end(signal.SIGTERM, patience=TO_END) == 0


def test_an_application_loaded_before_the_fork_has_its_pools_in_the_workers(
    serve: Serve, tmp_path: Path
) -> None:
    written = tmp_path / "written"
    site = serve.up(GUNICORN_PRELOADED, workers=2, TEST_WRITTEN=str(written))
    until(lambda: len(set(pools())) == 2, "two pools")
    assert site.pid not in pools()
    get_job(site.get("/push", path=str(written), line="pushed by a view")).wait(timeout=60)
    until(lambda: len(written.read_text().splitlines()) == 2, "both jobs")
    assert set(written.read_text().splitlines()) == {f"pushed by {site.pid}", "pushed by a view"}
    assert site.end(signal.SIGTERM, patience=TO_END) == 0
    assert pools() == []


@pytest.mark.parametrize("server", [DAPHNE, RUNSERVER], ids=["daphne", "runserver"])
def test_without_lifespan_a_push_and_the_doctor_say_that_nobody_works(
    serve: Serve, tmp_path: Path, child_environment: dict[str, str], server: Server
) -> None:
    site = serve.up(server)
    jobs = [get_job(site.get("/push", path=str(tmp_path / "written"), line="nobody")) for _ in range(2)]
    until(lambda: "no worker is alive for queue 'default'" in site.output, "the warning", patience=10)
    with Child(["-m", "django", "jobs", "doctor"], child_environment) as doctor:
        doctor.wait_for("WARN  queue default: no worker is alive, 2 jobs wait")
    for job in jobs:
        job.refresh()
        assert job.status is JobStatus.WAITING
    assert site.end(signal.SIGTERM, patience=TO_END) == server.term_code


def test_a_starlette_application_inside_has_its_own_lifespan(serve: Serve, tmp_path: Path) -> None:
    need_module("starlette")
    site = serve.up(UVICORN_STARLETTE)
    assert site.get("/greet") == "prepared"
    job = get_job(site.get("/push", path=str(tmp_path / "written"), line="beside it"))
    job.wait(timeout=60)
    assert site.end(signal.SIGTERM, patience=TO_END) == UVICORN_STARLETTE.term_code
    seen = [
        event
        for line in site.lines
        for event in ("inner-started", "started kind=lifespan", "stopping kind=lifespan", "inner-stopped")
        if f"event={event}" in line
    ]
    assert seen == ["inner-started", "started kind=lifespan", "stopping kind=lifespan", "inner-stopped"]
    assert pools() == []


def test_a_starlette_application_inside_that_cannot_start_keeps_the_server_from_starting(
    serve: Serve,
) -> None:
    need_module("starlette")
    site = serve(UVICORN_STARLETTE, TEST_BROKEN="1")
    assert site.end(patience=TO_END) == UVICORN_STARLETTE.failed_code
    assert "no pantry" in site.output
    assert pools() == []
