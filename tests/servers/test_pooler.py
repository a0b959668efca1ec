"""PostgreSQL behind PgBouncer in transaction mode: every transaction may have another session."""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import pytest

from chaos.database import PostgreSQL, Server, free_port
from tests.child import Child, until
from tests.requirement import need_file, need_module
from tests.servers.crash import environment, running

PGBOUNCER = Path("/usr/sbin/pgbouncer")
SESSIONS = 8
"""Sessions of the server that all clients share: fewer than there are clients."""

MAXSIZE, PUSHERS, PUSHES = 5, 4, 25

SETTINGS = """
[databases]
* = host=127.0.0.1 port={server}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = trust
auth_file = {directory}/users
pool_mode = transaction
default_pool_size = {sessions}
max_client_conn = 500
server_idle_timeout = 1
"""
PUSH = """
import sys, django
django.setup()
from tests.app.tasks import write_line
for number in range(int(sys.argv[2])):
    write_line.push(sys.argv[1], f"{sys.argv[3]} {number}")
"""


class Pooler:
    """A PgBouncer in front of a server."""

    def __init__(self, server: Server) -> None:
        self.port = free_port()
        self._directory = server.directory / "pooler"
        self._directory.mkdir()
        self._file = self._directory / "settings"
        values = {
            "server": server.port,
            "port": self.port,
            "directory": self._directory,
            "sessions": SESSIONS,
        }
        self._file.write_text(SETTINGS.format(**values))
        (self._directory / "users").write_text('"chaos" ""\n')
        self._user = server.user

    def __enter__(self) -> Self:
        with (self._directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [need_file(PGBOUNCER), self._file], user=self._user, stdout=log, stderr=log
            )
        until(self._answers, "the pooler's start")
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.wait()

    def _answers(self) -> bool:
        assert self._process.poll() is None, (self._directory / "log").read_text()
        with socket.socket() as asking:
            return asking.connect_ex(("127.0.0.1", self.port)) == 0


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    need_module("psycopg", "databases")
    need_file(PGBOUNCER)
    with running(PostgreSQL) as server:
        server.ask("ALTER ROLE chaos CREATEDB")
        yield server


@pytest.fixture
def pooler(server: Server) -> Iterator[Pooler]:
    with Pooler(server) as pooler:
        yield pooler
    shutil.rmtree(server.directory / "pooler")


@pytest.fixture
def variables(server: Server, pooler: Pooler) -> Mapping[str, str]:
    jobify = {"MAXSIZE": MAXSIZE, "PUSH_TIMEOUT": None, "GRACE": 1, "LEASE": 3}
    return environment(server, pooler.port, TEST_JOBIFY=json.dumps(jobify))


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def runjobs(stack: ExitStack, variables: Mapping[str, str]) -> Child:
    child = stack.enter_context(Child(["-m", "django", "runjobs", "--workers=4"], variables))
    child.wait_for("ready")
    return child


def pushing(stack: ExitStack, variables: Mapping[str, str], book: Path, count: int) -> list[Child]:
    return [
        stack.enter_context(Child(["-c", PUSH, str(book), str(count), str(name)], variables))
        for name in range(PUSHERS)
    ]


def count(server: Server, status: str) -> int:
    return int(server.ask(f"SELECT count(*) FROM jobify_job WHERE status = '{status}'"))


def test_the_whole_contract_holds(server: Server, pooler: Pooler) -> None:
    suite = ["-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "tests/test_conformance.py"]
    variables = {**environment(server, pooler.port), "DJANGO_SETTINGS_MODULE": "tests.settings"}
    variables.pop("JOBIFY_TEST_DIRECTORY", None)  # a test run makes its own

    with Child([*suite, "-k", "TestDatabaseStore and not ByTheWatermark"], variables) as child:
        assert child.end(patience=300) == 0, child.output
        passed = re.search(r"(\d+) passed", child.output)
        assert passed is not None
        assert int(passed[1]) > 100


def test_pools_and_producers_keep_the_bound_and_run_each_job_once(
    server: Server, variables: Mapping[str, str], stack: ExitStack, tmp_path: Path
) -> None:
    book = tmp_path / "book"
    pools = [runjobs(stack, variables) for _ in range(2)]
    producers = pushing(stack, variables, book, PUSHES)
    depths = []
    while any(producer.process.poll() is None for producer in producers):
        depths.append(count(server, "waiting"))

    assert [producer.end() for producer in producers] == [0] * PUSHERS
    until(lambda: not count(server, "waiting") + count(server, "running"), "the end of all jobs")
    assert max(depths) <= MAXSIZE
    lines = book.read_text().splitlines()
    assert sorted(lines) == sorted(f"{name} {number}" for name in range(PUSHERS) for number in range(PUSHES))
    for pool in pools:
        pool.wait_for("event=deaf")  # so it looks by itself
        assert pool.end(signal.SIGTERM) == 0


def test_a_pooler_that_dies_and_returns_loses_nothing(
    server: Server, pooler: Pooler, variables: Mapping[str, str], stack: ExitStack, tmp_path: Path
) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    pool = runjobs(stack, variables)
    for producer in pushing(stack, variables, before, 5):
        assert producer.end() == 0

    pooler.__exit__()
    pool.wait_for("event=store-away")
    with pooler:
        for producer in pushing(stack, variables, after, 5):
            assert producer.end() == 0
        until(lambda: not count(server, "waiting") + count(server, "running"), "the end of all jobs")

        for book in (before, after):
            assert len(book.read_text().splitlines()) == len(set(book.read_text().splitlines())) == 20
        assert pool.end(signal.SIGTERM) == 0
