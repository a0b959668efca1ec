"""What a job does to its database connections reaches neither its worker nor the next job."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import Group
from django.db import OperationalError, connection, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from jobify_django import JobFailed, JobStatus
from jobify_django.pool import connection as pool_connection
from jobify_django.pool import execution
from jobify_django.pool.session import lasting
from tests.child import PATIENCE, until
from tests.requirement import need_module
from tests.workshop import Configure, at_work, both, database, do, memory, named, pushed


def run(action: Callable[[], Any]) -> Any:
    """Have a job do it, and return its result."""
    job = pushed(action)
    job.wait(timeout=PATIENCE)
    return job.result()


# An end that was reached is kept, whatever comes between the job and its outcome


def close_below_django() -> str:
    """Close the driver's connection, of which Django's wrapper learns nothing."""
    connection.ensure_connection()
    connection.connection.close()
    return "closed"


@database
@pytest.mark.parametrize("max_age", [0, None])
def test_a_job_that_closes_its_drivers_connection_has_succeeded_and_its_worker_goes_on(
    jobify: Configure,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    max_age: int | None,
) -> None:
    jobify(WORKERS=1)
    monkeypatch.setitem(connections.settings["default"], "CONN_MAX_AGE", max_age)

    async def aclose_below_django() -> str:
        return await sync_to_async(close_below_django)()

    with at_work():
        for action in (close_below_django, aclose_below_django):
            assert run(action) == "closed"
            assert run(Group.objects.count) == 0

    assert "left a transaction open" not in caplog.text


class Unclosable:
    """A connection that nothing can be asked of."""

    alias = "default"

    def __getattr__(self, name: str) -> Any:
        raise SystemError(name)


@memory
@pytest.mark.parametrize("kind", ["def", "async def"])
def test_a_connection_that_raises_whatever_is_asked_of_it_is_dropped(jobify: Configure, kind: str) -> None:
    jobify(WORKERS=1)

    def replace() -> str:
        connections["default"] = Unclosable()
        return "replaced"

    async def areplace() -> str:
        return await sync_to_async(replace)()

    def look() -> bool:
        return isinstance(connections["default"], BaseDatabaseWrapper)

    with at_work() as shop:
        assert run(replace if kind == "def" else areplace) == "replaced"
        assert run(look)
        until(lambda: shop.pool.slots["default"].busy == 0, "a free worker")


@both
@pytest.mark.parametrize("kind", ["def", "async def"])
def test_an_end_is_kept_although_tidying_up_after_it_fails(
    jobify: Configure, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    jobify(WORKERS=1)

    class Broken:
        def all(self, **options: object) -> Any:
            raise SystemExit("nothing works")

    def succeed() -> str:
        return "done"

    async def asucceed() -> str:
        return await sync_to_async(succeed)()

    monkeypatch.setattr(pool_connection, "connections", Broken())
    with at_work() as shop:
        assert run(succeed if kind == "def" else asucceed) == "done"
        until(lambda: shop.pool.slots["default"].busy == 0, "a free worker")


@memory
@pytest.mark.parametrize("kind", ["def", "async def"])
def test_an_error_that_cannot_even_be_taken_apart_fails_its_job(jobify: Configure, kind: str) -> None:
    jobify(WORKERS=1)

    class Text(str):
        __slots__ = ()

        def __getitem__(self, key: object) -> str:
            raise RuntimeError("no part of it")

    class Stubborn(Exception):
        def __str__(self) -> str:
            return Text("no")

    def fail() -> None:
        raise Stubborn

    async def afail() -> None:
        raise Stubborn

    with at_work() as shop:
        job = pushed(fail if kind == "def" else afail)
        job.wait(timeout=PATIENCE)
        with pytest.raises(JobFailed) as caught:
            job.result()
        until(lambda: shop.pool.slots["default"].busy == 0, "a free worker")

    assert caught.value.error_type.endswith("Stubborn")


@memory
def test_a_cancel_that_comes_while_an_ended_job_is_tidied_up_does_not_undo_its_end(
    jobify: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobify(WORKERS=1)
    tidying, go_on = threading.Event(), threading.Event()
    theirs = execution.close_connections

    def close(*args: Any) -> None:
        tidying.set()
        assert go_on.wait(PATIENCE)
        theirs(*args)

    monkeypatch.setattr(execution, "close_connections", close)

    async def succeed() -> str:
        return await sync_to_async(lambda: "done")()

    with at_work() as shop:
        job = pushed(succeed)
        assert tidying.wait(PATIENCE)
        running = shop.pool.completer.running(job.id)
        assert running is not None
        running.stop("release")
        go_on.set()
        job.wait(timeout=PATIENCE)
        assert (job.status, job.result()) == (JobStatus.SUCCESSFUL, "done")


@memory
def test_a_worker_thread_lives_on_when_telling_an_outcome_fails(
    jobify: Configure, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    jobify(WORKERS=1)

    def said() -> list[int]:
        return [r.levelno for r in caplog.records if "event=" in r.getMessage()]

    with at_work() as shop:
        claim_loop = shop.pool.workers.claim_loop
        wake = claim_loop.wake

        def fail() -> None:
            wake()
            if threading.current_thread().name.startswith("jobify-worker-"):
                raise RuntimeError("told, and broken")

        monkeypatch.setattr(claim_loop, "wake", fail)
        assert run(threading.get_ident) == run(threading.get_ident)
        # The thread speaks after it has told.
        until(lambda: len(said()) == 2, "the word of the thread")
    assert said() == [logging.CRITICAL] * 2


# A connection that the server ended


by_server = pytest.mark.skipif(connection.vendor == "sqlite", reason="no server ends a connection to a file")
ENDING = {"postgresql": "SELECT pg_terminate_backend(%s)", "mysql": "KILL %s"}
NUMBER = {"postgresql": "SELECT pg_backend_pid()", "mysql": "SELECT connection_id()"}


def lose_connection(seen: str, held: str) -> None:
    """Have the server end this thread's connection: in a statement of its own, or unseen from outside."""
    if held == "in atomic":
        transaction.atomic().__enter__()
    with connection.cursor() as cursor:
        cursor.execute(NUMBER[connection.vendor])
        (number,) = cursor.fetchone()
        if seen == "seen":
            with contextlib.suppress(OperationalError):
                cursor.execute(ENDING[connection.vendor], [number])
            return
    other = connections.create_connection("default")
    with contextlib.closing(other), other.cursor() as cursor:
        cursor.execute(ENDING[connection.vendor], [number])


@by_server
@database
@pytest.mark.parametrize("held", ["outside", "in atomic"])
@pytest.mark.parametrize("seen", ["seen", "unseen"])
@pytest.mark.parametrize("kind", ["def", "async def"])
def test_a_connection_that_the_server_ended_is_no_transaction_left_open(
    jobify: Configure, caplog: pytest.LogCaptureFixture, seen: str, held: str, kind: str
) -> None:
    jobify(WORKERS=1)

    def lose() -> str:
        lose_connection(seen, held)
        return "done"

    async def alose() -> str:
        return await sync_to_async(lose)()

    def look() -> int:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SELECT 1")
            return int(cursor.fetchone()[0])

    with at_work():
        assert run(lose if kind == "def" else alose) == "done"
        assert run(look) == 1
    assert "left a transaction open" not in caplog.text
    lines = [r for r in caplog.records if "event=connection-dropped" in r.message]
    if (seen, held) != ("unseen", "outside"):  # then a driver may find out at its next use only
        assert [line.levelno for line in lines] == [logging.WARNING]
    for line in lines:
        assert line.exc_info is None
        assert "it was ended by the server" in line.message


# What a job changes on its connection


@database
def test_an_attribute_that_a_job_sets_on_its_connection_does_not_reach_the_next(
    jobify: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobify(WORKERS=1)
    monkeypatch.setitem(connections.settings["default"], "CONN_MAX_AGE", None)

    def become_a_tenant() -> None:
        Group.objects.count()
        connection.tenant = "acme"  # type: ignore[attr-defined]
        connection.force_debug_cursor = True

    def look() -> list[Any]:
        return [getattr(connection, "tenant", None), connection.force_debug_cursor]

    with at_work():
        run(become_a_tenant)
        assert run(look) == [None, False]


SETTINGS = {
    "postgresql": ("SET search_path TO pg_catalog", "SHOW search_path"),
    "mysql": ("SET SESSION group_concat_max_len = 77", "SELECT @@group_concat_max_len"),
    "sqlite": ("PRAGMA cache_size = 77", "PRAGMA cache_size"),
}


@database
@pytest.mark.parametrize("pooled", [False, True])
def test_what_a_job_sets_in_its_session_does_not_reach_the_next(
    jobify: Configure, monkeypatch: pytest.MonkeyPatch, pooled: bool
) -> None:
    jobify(WORKERS=1)
    settings = {**connections.settings["default"], "CONN_MAX_AGE": None}
    if pooled:
        if connection.vendor != "postgresql":
            pytest.skip("about psycopg's pool")
        need_module("psycopg_pool", "databases")
        options = {**settings["OPTIONS"], "pool": {"min_size": 1, "max_size": 1}}
        settings |= {"CONN_MAX_AGE": 0, "OPTIONS": options}
    monkeypatch.setitem(connections.settings, "default", settings)
    change, ask = SETTINGS[connection.vendor]

    def look() -> Any:
        with connection.cursor() as cursor:
            cursor.execute(ask)
            return cursor.fetchone()[0]

    def alter() -> None:
        with connection.cursor() as cursor:
            cursor.execute(change)

    async def alook() -> Any:
        return await sync_to_async(look)()

    async def aalter() -> None:
        await sync_to_async(alter)()

    try:
        with at_work():
            before = run(look)
            run(alter)
            assert run(look) == before
            run(aalter)
            assert run(alook) == before
    finally:
        for pool in getattr(connection, "_connection_pools", {}).values():
            pool.close()
        getattr(connection, "_connection_pools", {}).clear()


@database
def test_a_persistent_connection_stays_open_after_ordinary_work(
    jobify: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobify(WORKERS=1)
    monkeypatch.setitem(connections.settings["default"], "CONN_MAX_AGE", None)
    seen: list[Any] = []

    def work() -> None:
        with transaction.atomic(), transaction.atomic():
            Group.objects.create(name=f"group {len(seen)}")
        _ = connection.features.supports_json_field, connection.ops.max_name_length()
        do.push(named(lambda: None))
        seen.append(connection.connection)

    with at_work():
        for _ in range(3):
            run(work)
    assert seen[0] is seen[1]
    assert seen[1] is seen[2]


@pytest.mark.parametrize(
    ("sql", "found"),
    [
        ("SET search_path TO a", True),
        ("/* app */ set role x", True),
        ("SELECT 1; SET x = 1", True),
        ("SELECT set_config('a', 'b', false)", True),
        ("SELECT pg_advisory_lock(1)", True),
        ("PRAGMA foreign_keys = OFF", True),
        ("CREATE TEMPORARY TABLE t (a int)", True),
        ("SET LOCAL x = 1", False),
        ("SET TRANSACTION ISOLATION LEVEL READ COMMITTED", False),
        ("SET CONSTRAINTS ALL IMMEDIATE", False),
        ("BEGIN; SET LOCAL statement_timeout = 1; SELECT 1", False),
        ("SELECT pg_advisory_xact_lock(1)", False),
        ("SET STATEMENT max_statement_time = 1 FOR SELECT 1", False),
        ("SELECT set_config('a', 'b', true), pg_notify('c', 'd')", False),
        ("SELECT set_config('a', 'b', true), set_config('a', 'b', false)", True),
        ("PRAGMA table_info(a)", False),
        ('UPDATE "a" SET "b" = 1', False),
        ("UPDATE a\nSET b = 1", False),
    ],
)
def test_a_statement_whose_effect_lasts_is_told_from_one_whose_effect_ends(sql: str, found: bool) -> None:
    assert lasting(sql) is found
