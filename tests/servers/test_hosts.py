"""Several hosts over one PostgreSQL: they share the work, and one that is cut off costs nothing but time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.child import Child, is_stopped, until
from tests.requirement import need_module
from tests.servers.hosts import Host, Network, a_network, cluster

LEASE = 3.0
GRACE = 1.0
# Generous ends for what takes two seconds, and six. Waiting for a silent network takes twenty or more.
TO_END = TO_RUN_ELSEWHERE = 15.0

Runjobs = Callable[..., Child]


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    with a_network() as network:
        yield network


@pytest.fixture(scope="module")
def environment(network: Network) -> Iterator[dict[str, str]]:
    """What a process needs to work on a PostgreSQL that listens on the bridge."""
    need_module("psycopg", "databases")
    with cluster(network) as url:
        environment = {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "tests.servers.settings",
            "DATABASE_URL": url,
            "TEST_JOBIFY": json.dumps({"LEASE": LEASE}),
        }
        django(environment, "migrate", "--skip-checks")
        yield environment


@pytest.fixture
def first(network: Network) -> Iterator[Host]:
    with Host(network, 11, "first") as host:
        yield host


@pytest.fixture
def second(network: Network) -> Iterator[Host]:
    with Host(network, 12, "second") as host:
        yield host


@pytest.fixture
def runjobs(environment: dict[str, str], first: Host, second: Host) -> Iterator[Runjobs]:
    with ExitStack() as stack:

        def run(host: Host, **variables: str) -> Child:
            child = host.start(
                ["runjobs", "--workers", "1", "--grace", str(GRACE)], {**environment, **variables}
            )
            stack.enter_context(child)
            child.wait_for("ready")
            return child

        yield run


class Book:
    """A job that signs a book where it runs, and what the database knows of it.

    Args:
        path: where the book is.
        host: where the job is pushed.
    """

    def __init__(self, path: Path, host: Host, environment: dict[str, str]) -> None:
        self._path = path
        self._go = path.with_suffix(".go")
        self._environment = environment
        task, arguments = "tests.app.tasks.sign_book", json.dumps([str(path), str(self._go)])
        with host.start(["jobs", "push", task, arguments], environment) as push:
            assert push.end() == 0, push.output
            self.id = push.lines[-1]

    @property
    def lines(self) -> list[str]:
        return self._path.read_text().splitlines() if self._path.exists() else []

    @property
    def values(self) -> dict[str, Any]:
        values: dict[str, Any] = json.loads(django(self._environment, "jobs", "show", self.id))
        return values

    def close(self, *hosts: Host) -> None:
        """Let the job end where it runs on these hosts."""
        for host in hosts:
            Path(f"{self._go}-{host.name}").touch()

    def ended(self) -> bool:
        return self.values["status"] == "successful"


def django(environment: dict[str, str], *arguments: str) -> str:
    command = [sys.executable, "-m", "django", *arguments]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def push_one_for_each(
    path: Path, name: str, hosts: tuple[Host, Host], environment: dict[str, str]
) -> dict[str, Book]:
    """Push two jobs from the first host; return them by where they run. Each host has one worker."""
    books = [Book(path / f"{name}-{number}", hosts[0], environment) for number in (1, 2)]
    until(lambda: all(book.lines for book in books), "the start of both jobs")
    placed = {book.lines[0].split()[0]: book for book in books}
    assert placed.keys() == {host.name for host in hosts}
    return placed


def test_jobs_pushed_on_one_host_run_on_both(
    runjobs: Runjobs, first: Host, second: Host, environment: dict[str, str], tmp_path: Path
) -> None:
    children = [runjobs(first), runjobs(second)]
    for name, book in push_one_for_each(tmp_path, "book", (first, second), environment).items():
        book.close(first, second)
        until(book.ended, "the job's end")
        assert (book.values["result"], book.values["attempts"]) == (name, 1)
    for child in children:
        assert child.end(signal.SIGTERM) == 0


def test_the_job_of_a_host_that_is_cut_off_runs_on_the_other_and_its_late_end_is_refused(
    runjobs: Runjobs, first: Host, second: Host, environment: dict[str, str], tmp_path: Path
) -> None:
    runjobs(first)
    cut_off = runjobs(second)
    books = push_one_for_each(tmp_path, "before", (first, second), environment)
    books["first"].close(first)
    until(books["first"].ended, "the end of the job on the host that stays")

    book = books["second"]
    second.cut()
    until(
        lambda: book.lines == ["second begins", "first begins"],
        "the job's start elsewhere",
        patience=TO_RUN_ELSEWHERE,
    )
    book.close(second)
    until(lambda: "second ends" in book.lines, "the end of the first attempt")

    second.mend()
    assert f"id={book.id} " in cut_off.wait_for("event=refused")
    assert book.values["status"] == "running"
    book.close(first)
    until(book.ended, "the end of the second attempt")
    assert (book.values["result"], book.values["attempts"], book.values["crashes"]) == ("first", 2, 1)
    (lost,) = book.values["interruptions"]
    assert lost["attempt"] == 1
    assert lost["charged"]
    assert "lease" in lost["reason"]

    for later in push_one_for_each(tmp_path, "after", (first, second), environment).values():
        later.close(first, second)
        until(later.ended, "the job's end")


def test_a_host_that_is_cut_off_can_be_stopped(
    runjobs: Runjobs, first: Host, second: Host, environment: dict[str, str], tmp_path: Path
) -> None:
    cut_off = runjobs(second)
    book = Book(tmp_path / "book", first, environment)
    until(lambda: book.lines, "the job's start")
    second.cut()
    assert cut_off.end(signal.SIGTERM, patience=TO_END) == 0
    runjobs(first)
    until(lambda: book.lines == ["second begins", "first begins"], "the job's start elsewhere")
    book.close(first, second)
    until(book.ended, "the job's end")


def test_a_host_that_is_cut_off_says_so_where_the_connection_has_a_limit(
    runjobs: Runjobs, first: Host, second: Host, environment: dict[str, str], tmp_path: Path
) -> None:
    limited = f"{environment['DATABASE_URL']}?connect_timeout=2&tcp_user_timeout=2000"
    cut_off = runjobs(second, DATABASE_URL=limited)
    second.cut()
    cut_off.wait_for("event=store-away")
    second.mend()
    cut_off.wait_for("event=store-back")
    book = Book(tmp_path / "book", first, environment)
    book.close(first, second)
    until(book.ended, "the job's end")
    assert cut_off.end(signal.SIGTERM) == 0


def test_a_host_that_freezes_in_the_middle_of_a_claim_keeps_no_job(
    runjobs: Runjobs, first: Host, second: Host, environment: dict[str, str], tmp_path: Path
) -> None:
    # With a limit a claim is a transaction of several messages; otherwise there is no middle to freeze in.
    capped = json.dumps({"LEASE": LEASE, "MAX_RUNNING": 2})
    frozen = runjobs(second, TEST_APPS="tests.servers.freezing.Freezing", TEST_JOBIFY=capped)
    book = Book(tmp_path / "book", first, environment)
    until(lambda: is_stopped(frozen.pid), "the claim")
    runjobs(first)
    until(lambda: book.lines == ["first begins"], "the job's start elsewhere")
    book.close(first, second)
    until(book.ended, "the job's end")
    assert (book.values["attempts"], book.values["crashes"]) == (1, 0)

    frozen.send(signal.SIGCONT)
    for later in push_one_for_each(tmp_path, "after", (first, second), environment).values():
        later.close(first, second)
        until(later.ended, "the job's end")


class Sampler:
    """Counts, again and again, how many jobs run whose lease holds."""

    RUNNING = """
        SELECT count(*) FROM jobify_job
        WHERE status = 'running' AND lease_until >= extract(epoch FROM clock_timestamp())"""

    def __init__(self, url: str) -> None:
        self.most = self.samples = 0
        self._stop = threading.Event()
        self._connection = need_module("psycopg", "databases").connect(url, autocommit=True)
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()
        self._connection.close()

    def tuned(self) -> int:
        """Return how many pools have taken over a change of the queue."""
        tuned = "SELECT count(*) FROM jobify_pool WHERE queues::jsonb -> 'default' ->> 'version' = '1'"
        (pools,) = self._connection.execute(tuned).fetchone()
        return int(pools)

    def _look(self) -> None:
        while not self._stop.wait(0.005):
            (running,) = self._connection.execute(self.RUNNING).fetchone()
            self.most = max(self.most, running)
            self.samples += 1


def test_no_more_than_max_running_run_on_all_hosts_whatever_is_tuned_or_killed(
    first: Host, second: Host, environment: dict[str, str], tmp_path: Path
) -> None:
    capped = {"LEASE": LEASE, "MAX_RUNNING": 2}
    environment = {**environment, "TEST_JOBIFY": json.dumps(capped)}
    books = [tmp_path / f"book-{number}" for number in range(8)]
    calls = [(str(book), str(tmp_path / "go")) for book in books]
    push = (
        f"import django; django.setup(); from tests.app.tasks import sign_book; sign_book.push_many({calls})"
    )

    def begun() -> list[Path]:
        return [book for book in books if book.exists()]

    with ExitStack() as stack:
        sampler = stack.enter_context(Sampler(environment["DATABASE_URL"]))
        pools = [stack.enter_context(host.start(["runjobs"], environment)) for host in (first, second)]
        for pool in pools:
            pool.wait_for("ready")
        subprocess.run([sys.executable, "-c", push], env=environment, check=True)
        until(lambda: len(begun()) == 2, "the start of as many as may run")

        django(environment, "jobs", "tune", "default", "--workers", "4")
        until(lambda: sampler.tuned() == 2, "the change on both hosts")
        assert len(begun()) == 2

        holder = first if any("first" in book.read_text() for book in begun()) else second
        pools[(first, second).index(holder)].end(signal.SIGKILL)
        survivor = second if holder is first else first
        until(
            lambda: sum(f"{survivor.name} begins" in book.read_text() for book in begun()) == 2,
            "the dead host's slots for the one that lives",
            patience=TO_RUN_ELSEWHERE,
        )
        for host in (first, second):
            (tmp_path / f"go-{host.name}").touch()
        until(lambda: all(f"{survivor.name} ends" in _read(book) for book in books), "the end of all jobs")
        assert sampler.samples > 100
        assert sampler.most == 2


def _read(book: Path) -> str:
    return book.read_text() if book.exists() else ""
