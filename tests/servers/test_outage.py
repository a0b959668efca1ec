"""The database goes away and comes back, goes silent, or has no room: real servers, real processes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from chaos.database import MariaDB, PostgreSQL, Server
from chaos.proxy import Proxy
from tests.child import Child, until
from tests.requirement import need_module, need_success
from tests.servers.crash import SETTINGS, Setting, crash, environment, running

DRIVER = {PostgreSQL: "psycopg", MariaDB: "MySQLdb"}
EPOCH = "SELECT unix_timestamp(now(6))"
NOTICED_WITHIN = 30.0
"""Seconds after which a pool has noticed that its connection is dead, at most."""

A_PUSH = """
import sys, django
django.setup()
from tests.app import tasks
task = getattr(tasks, sys.argv[2]).using(queue=sys.argv[1], delay=float(sys.argv[3]))
print(task.push(*sys.argv[4:]).id)
"""
PUSHES = """
import sys, django
django.setup()
from jobify_django import StoreError
from tests.app.tasks import write_line
for number in range(1_000_000):
    try:
        print(write_line.push(sys.argv[1], str(number)).id)
    except StoreError as error:
        print("refused:", error)
"""

servers = pytest.mark.parametrize("server", [PostgreSQL, MariaDB], ids=lambda kind: kind.kind, indirect=True)


def need_driver(kind: type[Server]) -> None:
    need_module(DRIVER[kind], "databases")


Servers = Callable[[type[Server]], Server]


@pytest.fixture(scope="module")
def running_servers() -> Iterator[Servers]:
    """The servers of all tests here; each is started when the first test asks for it."""
    with ExitStack() as stack:
        yield cache(lambda kind: stack.enter_context(running(kind)))


@pytest.fixture
def server(request: pytest.FixtureRequest, running_servers: Servers) -> Server:
    need_driver(request.param)
    return running_servers(request.param)


class Site:
    """Processes over one database."""

    def __init__(self, stack: ExitStack, variables: Mapping[str, str]) -> None:
        self._stack = stack
        self.variables = variables

    def runjobs(self, *options: str, **changes: str) -> Child:
        arguments = ["-m", "django", "runjobs", *options]
        child = self._stack.enter_context(Child(arguments, {**self.variables, **changes}))
        child.wait_for("ready")
        return child

    def push(self, name: str, *arguments: object, queue: str = "default", delay: float = 0.0) -> str:
        with Child(["-c", A_PUSH, queue, name, str(delay), *map(str, arguments)], self.variables) as child:
            assert child.end() == 0, child.output
            return child.lines[-1]

    def pushing(self, path: Path) -> Child:
        return self._stack.enter_context(Child(["-c", PUSHES, str(path)], self.variables))


@pytest.fixture
def site(server: Server) -> Iterator[Site]:
    with ExitStack() as stack:
        yield a_site(server, stack)


def a_site(server: Server, stack: ExitStack, *queues: str) -> Site:
    jobify = {"MAXSIZE": 100_000, "GRACE": 0.3, "QUEUES": {queue: {} for queue in ("default", *queues)}}
    return Site(stack, environment(server, TEST_JOBIFY=json.dumps(jobify)))


def of_job(server: Server, columns: str, id: str) -> str:
    table = "chaos.jobify_job" if isinstance(server, MariaDB) else "jobify_job"
    return server.ask(f"SELECT {columns} FROM {table} WHERE id = '{id}'").strip()


# Away and back


def crash_and_return(server: Server) -> Callable[[], None]:
    server.stop("immediate")
    return server.start


def refuse_connections(server: Server) -> Callable[[], None]:
    """End all connections, and let nobody in, as when there are too many."""
    assert isinstance(server, PostgreSQL)
    server.ask("ALTER ROLE chaos CONNECTION LIMIT 0")
    server.terminate_all()
    return lambda: server.ask("ALTER ROLE chaos CONNECTION LIMIT -1") and None


@pytest.mark.parametrize(
    ("server", "outage"),
    [(PostgreSQL, crash_and_return), (PostgreSQL, refuse_connections), (MariaDB, crash_and_return)],
    indirect=["server"],
    ids=["postgresql crashed", "postgresql full", "mariadb crashed"],
)
def test_a_pool_outlives_its_database_and_stores_what_ended_meanwhile(
    server: Server, site: Site, tmp_path: Path, outage: Callable[[Server], Callable[[], None]]
) -> None:
    started, go, book = tmp_path / "started", tmp_path / "go", tmp_path / "book"
    pool = site.runjobs()
    job = site.push("wait_for_file", started, go)
    until(started.exists, "the job's start")
    bring_back = outage(server)
    try:
        go.touch()  # it ends, and nobody can be told
        pool.wait_for("event=store-away")
    finally:
        bring_back()
    pool.wait_for(f"event=done id={job}")
    assert of_job(server, "concat_ws(' ', status, attempt, crashes)", job) == "successful 1 0"
    site.push("write_line", book, "alive")
    until(book.exists, "the next job")
    assert pool.process.poll() is None
    assert pool.end(signal.SIGTERM) == 0


LEASE = 9.0


@servers
def test_who_is_back_first_takes_no_job_from_a_pool_that_is_back_a_moment_later(
    server: Server, site: Site, tmp_path: Path
) -> None:
    """Leases run out while the database is away, and no process has died."""
    setting = json.dumps({"WORKERS": 1, "LEASE": LEASE})
    pools = [site.runjobs(TEST_JOBIFY=setting) for _ in range(2)]
    started, go = [tmp_path / "started 1", tmp_path / "started 2"], tmp_path / "go"
    jobs = [site.push("wait_for_file", mark, go) for mark in started]
    until(lambda: all(mark.exists() for mark in started), "both jobs' start")
    server.stop("immediate")
    threading.Event().wait(LEASE - 1)  # how long it is away is what this is about
    server.start()
    back = float(server.ask("SELECT extract(epoch FROM now())" if isinstance(server, PostgreSQL) else EPOCH))

    for job in jobs:
        # By then every pool has had its time to rescue, and has renewed what it holds.
        until(lambda job=job: float(of_job(server, "lease_until", job)) > back + 1.5 * LEASE, "renewals", 60)
    go.touch()

    for job in jobs:
        until(lambda job=job: of_job(server, "status", job) == "successful", "the job's end")
        assert of_job(server, "concat_ws(' ', attempt, crashes)", job) == "1 0"
    for pool in pools:
        assert pool.end(signal.SIGTERM) == 0


# Silent


@contextlib.contextmanager
def through_proxy(server: Server) -> Iterator[Proxy]:
    proxy = Proxy(server.port)
    links: set[Any] = set()
    deafen = proxy.deafen

    def remember() -> int:
        links.update(proxy.links)
        return deafen()

    proxy.deafen = remember  # type: ignore[method-assign]
    try:
        yield proxy
    finally:
        proxy.close()
        for link in links:
            link.close()


class Silenced:
    """A pool behind a proxy, which has run a job before it is cut off, and a job that was pushed then.

    It serves a queue of its own.
    """

    def __init__(self, server: Server, stack: ExitStack, directory: Path, queue: str) -> None:
        self._site = a_site(server, stack, queue)
        self._queue = queue
        self._directory = directory
        self.proxy = stack.enter_context(through_proxy(server))
        self.pool = self._site.runjobs("--queues", queue, DATABASE_URL=server.url(self.proxy.port))
        self._push("first")
        until((directory / "first").exists, "a job")

    def push_after(self, delay: float = 0.0) -> None:
        """Push the job that it has to run although it was cut off."""
        self._since = time.time()
        self._push("second", delay)

    def _push(self, name: str, delay: float = 0.0) -> None:
        # Past the proxy.
        self._site.push("write_line", self._directory / name, name, queue=self._queue, delay=delay)

    def until_noticed(self, what: str) -> None:
        """Wait until it has run it; all of that must not take longer than it may."""
        second = self._directory / "second"
        until(second.exists, what, NOTICED_WITHIN)
        assert second.stat().st_mtime - self._since < NOTICED_WITHIN


@pytest.fixture(scope="module")
def silenced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Server], list[Silenced]]]:
    """Two pools that are cut off at once, each in its way: noticing that takes them 20 seconds."""

    def begin(server: Server) -> list[Silenced]:
        deaf, swallowed = (
            Silenced(server, stack, tmp_path_factory.mktemp(queue), queue) for queue in ("deaf", "swallowed")
        )
        assert deaf.proxy.deafen()
        deaf.push_after()
        assert swallowed.pool.wait_for("event=done")
        swallowed.proxy.swallow_commit(after=b"SKIP LOCKED")
        # PostgreSQL needs a transaction of several messages only where a job comes due.
        swallowed.push_after(delay=0.1)
        return [deaf, swallowed]

    with ExitStack() as stack:
        yield cache(begin)


@servers
def test_a_pool_whose_connections_went_silent_takes_new_ones(
    server: Server, silenced: Callable[[Server], list[Silenced]]
) -> None:
    deaf, _ = silenced(server)
    deaf.until_noticed("a job on new connections")
    assert deaf.pool.end(signal.SIGTERM) == 0


@servers
def test_a_claim_whose_commit_never_arrives_holds_its_job_no_longer_than_a_silent_connection(
    server: Server, silenced: Callable[[Server], list[Silenced]]
) -> None:
    """The server keeps its transaction open, and with it the job's lock, until it misses the pool."""
    _, swallowed = silenced(server)
    swallowed.until_noticed("a job whose claim was not committed")
    assert swallowed.proxy.to_swallow is None
    assert swallowed.pool.end(signal.SIGTERM) == 0


@servers
def test_a_process_whose_network_is_silent_can_be_stopped(server: Server, site: Site) -> None:
    with through_proxy(server) as proxy:
        pool = site.runjobs(DATABASE_URL=server.url(proxy.port))
        proxy.stall()
        assert pool.end(signal.SIGTERM, patience=15.0) == 0


# What a crash of the server's processes takes


@pytest.mark.parametrize("setting", [SETTINGS[0], SETTINGS[4]], ids=str)
def test_a_killed_server_loses_no_acknowledged_push(setting: Setting) -> None:
    need_driver(setting.kind)
    told, lost = crash(setting, 200)
    assert told > 100
    assert lost == 0


# No room on the disk


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    # Not so small that pushes alone fill it again: SQLite empties its log only once it has 4 MB.
    need_success(["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(disk)], "a small disk needs root")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def fill(disk: Path) -> Path:
    filler = disk / "filler"
    with contextlib.suppress(OSError), filler.open("ab", buffering=0) as file:
        for size in (65536, 4096, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(b"\0" * size)
    return filler


def test_a_full_disk_loses_no_acknowledged_push_and_is_got_over(small_disk: Path, tmp_path: Path) -> None:
    database, book = small_disk / "jobs.sqlite3", tmp_path / "book"
    variables: dict[str, Any] = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "tests.servers.settings",
        "DATABASE_URL": f"sqlite:///{database}",
        "TEST_LOG": "1",
        "TEST_JOBIFY": json.dumps({"MAXSIZE": 100_000, "GRACE": 0.3}),
    }
    with ExitStack() as stack:
        with Child(["-m", "django", "migrate", "--verbosity=0", "--skip-checks"], variables) as migrate:
            assert migrate.end() == 0, migrate.output
        site = Site(stack, variables)
        pool = site.runjobs()
        started, go = tmp_path / "started", tmp_path / "go"
        held = site.push("wait_for_file", started, go)
        until(started.exists, "the job's start")
        filler = fill(small_disk)
        pushing = site.pushing(book)
        pushing.wait_for("refused:")
        go.touch()
        pool.wait_for("event=store-away")
        filler.unlink()
        pool.wait_for("event=store-back")
        pool.wait_for(f"event=done id={held}")
        refused = pushing.seen("refused:")
        until(lambda: len(pushing.lines) > refused + 3, "pushes after it")
        pushing.end(signal.SIGKILL)
        pushing.read_out()
        told = {line for line in pushing.lines if len(line) == 36 and " " not in line}
        with closing(sqlite3.connect(database)) as look:
            count = "SELECT count(*) FROM jobify_job WHERE status <> 'successful'"
            until(lambda: look.execute(count).fetchone() == (0,), "the end of all jobs")
            ended = {id for (id,) in look.execute("SELECT id FROM jobify_job WHERE attempt = 1")}
            assert told <= ended
            assert look.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert pool.end(signal.SIGTERM) == 0
