"""What a pool needs to keep its promises does not depend on what jobs and requests can use up."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.db import connection, connections

from jobify_django import JobStatus, queue
from jobify_django.management.commands.jobs import Command
from jobify_django.stores.database import DatabaseStore, listener
from tests.child import PATIENCE, until
from tests.requirement import need_module
from tests.workshop import Configure, at_work, database, pushed

pytestmark = database

Set = Callable[..., dict[str, Any]]


@pytest.fixture
def changed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Set]:
    """Change the database's settings for every thread but this one."""

    def change(options: dict[str, Any] | None = None, **values: Any) -> dict[str, Any]:
        settings = connections.settings["default"]
        new = {**settings, **values, "OPTIONS": {**settings["OPTIONS"], **(options or {})}}
        monkeypatch.setitem(connections.settings, "default", new)
        return new

    yield change
    for pool in list(getattr(connection, "_connection_pools", {}).values()):
        pool.close()
    getattr(connection, "_connection_pools", {}).clear()


def on_a_thread(work: Callable[[DatabaseStore], Any]) -> Any:
    """Do something on a thread that serves nothing but the store, and return what it returned."""
    store = queue().store
    assert isinstance(store, DatabaseStore)
    answers: list[Any] = []

    def run() -> None:
        try:
            store.open()
            answers.append(work(store))
        finally:
            connections.close_all()

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(PATIENCE)
    return answers[0]


@pytest.mark.skipif(connection.vendor != "postgresql", reason="about PostgreSQL")
def test_jobs_may_hold_every_connection_of_psycopgs_pool(
    jobify: Configure, changed: Set, caplog: pytest.LogCaptureFixture
) -> None:
    need_module("psycopg_pool", "databases")
    jobify(WORKERS=6, LEASE=3)
    changed({"pool": {"min_size": 1, "max_size": 4, "timeout": 2}}, CONN_MAX_AGE=0)
    everybody, over = threading.Barrier(5), threading.Event()

    def hold() -> None:
        connection.ensure_connection()
        everybody.wait(PATIENCE)
        assert over.wait(PATIENCE)

    with at_work() as shop:
        holding = [pushed(hold) for _ in range(4)]
        try:
            everybody.wait(PATIENCE)
            leases = [job.record().lease_until for job in holding]
            later = pushed(lambda: "ran")
            later.wait(timeout=PATIENCE)
            assert later.result() == "ran"
            until(
                lambda: all(
                    job.record().lease_until > lease for job, lease in zip(holding, leases, strict=True)
                ),
                "the renewal of every lease",
            )
            shop.turn()
        finally:
            over.set()
        for job in holding:
            job.wait(timeout=PATIENCE)
            assert (job.status, job.record().attempt) == (JobStatus.SUCCESSFUL, 1)

    assert [record.message for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_a_thread_of_the_pool_has_a_connection_without_what_suits_requests(
    jobify: Configure, changed: Set
) -> None:
    options = {"pool": True, "server_side_binding": True} if connection.vendor == "postgresql" else {}
    settings = changed(options, CONN_MAX_AGE=0, CONN_HEALTH_CHECKS=True, AUTOCOMMIT=False, TIME_ZONE=None)
    before = deepcopy(settings)

    def look(store: DatabaseStore) -> Any:
        wrapper = connections["default"]
        first = (store.clock(), store.pools(), wrapper.connection)[2]
        store.close()
        closed = wrapper.connection is None
        store.pools()
        kept = wrapper.settings_dict
        return first, closed, wrapper.connection, kept, connections["default"] is wrapper

    first, closed, second, kept, same = on_a_thread(look)
    assert closed
    assert same
    assert None not in (first, second)
    assert first is not second
    assert kept["AUTOCOMMIT"] is True
    assert kept["CONN_HEALTH_CHECKS"] is False
    assert kept["NAME"] == connection.settings_dict["NAME"]
    assert not {"pool", "server_side_binding"} & kept["OPTIONS"].keys()
    assert before == settings, "the project's own settings are as they were"


def test_a_password_that_the_project_changes_is_used_by_the_next_connection(
    jobify: Configure, changed: Set
) -> None:
    def look(store: DatabaseStore) -> Any:
        store.pools()
        store.close()
        changed(TIME_ZONE="Europe/Berlin")
        store.pools()
        return connections["default"].settings_dict["TIME_ZONE"]

    assert on_a_thread(look) == "Europe/Berlin"


def test_a_connection_that_others_lend_to_the_thread_stays(jobify: Configure) -> None:
    store = queue().store
    lent = connections["default"]
    lent.inc_thread_sharing()
    try:
        store.open()
        assert connections["default"] is lent
    finally:
        lent.dec_thread_sharing()


def test_a_pool_commits_where_the_project_has_autocommit_off(jobify: Configure, changed: Set) -> None:
    jobify(WORKERS=1)
    changed(AUTOCOMMIT=False)
    with at_work():
        job = pushed(lambda: "done")
        job.wait(timeout=PATIENCE)
        assert job.result() == "done"


def test_no_call_of_a_pool_is_made_on_a_borrowed_thread(
    jobify: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobify(WORKERS=2)
    connected: set[str] = set()
    wrapper = type(connections["default"])
    theirs = wrapper.connect

    def connect(self: Any) -> None:
        connected.add(threading.current_thread().name.rstrip("-0123456789"))
        theirs(self)

    monkeypatch.setattr(wrapper, "connect", connect)
    with at_work() as shop:
        job = pushed(Group.objects.count)
        job.wait(timeout=PATIENCE)
        shop.turn()

    assert connected - {"MainThread"} <= {
        "jobify-pool",
        "jobify-upkeep",
        "jobify-watch-database",
        "jobify-worker",
    }


def test_a_producer_that_binds_on_the_server_is_heard(jobify: Configure, changed: Set) -> None:
    if connection.vendor != "postgresql":
        pytest.skip("only PostgreSQL's driver binds on the server")
    changed({"server_side_binding": True})
    errors: list[BaseException] = []

    def say() -> None:
        try:
            with connections["default"].cursor() as cursor:
                cursor.execute(listener.NOTIFY, [["work default"]])
        except BaseException as error:
            errors.append(error)
        finally:
            connections["default"].close()

    with connection.cursor() as cursor:
        cursor.execute(f"LISTEN {listener.CHANNEL}")
    thread = threading.Thread(target=say)
    thread.start()
    thread.join(PATIENCE)

    heard = list(connection.connection.notifies(timeout=PATIENCE, stop_after=1))
    assert errors == []
    assert [notice.payload for notice in heard] == ["work default"]
    with connection.cursor() as cursor:
        cursor.execute(f"UNLISTEN {listener.CHANNEL}")


def test_the_command_commits_what_it_does_without_autocommit(jobify: Configure, changed: Set) -> None:
    settings = changed(AUTOCOMMIT=False)

    def pause(store: DatabaseStore) -> None:
        store.close()
        del connections["default"]  # a process of its own has no pool's connection
        Command().run_from_argv(["manage.py", "jobs", "pause", "default"])

    on_a_thread(pause)

    assert queue().stats().paused
    assert settings["AUTOCOMMIT"] is False
