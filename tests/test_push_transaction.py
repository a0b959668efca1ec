"""A push means what the caller's transaction means, in sync and async code and on every store."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.contrib.auth.models import Group
from django.db import IntegrityError, connection, connections, transaction
from django.test import SimpleTestCase

from jobify_django import StoreBusy, queue, task
from jobify_django.exceptions import StoreError
from jobify_django.job import JobSpec, new_id
from jobify_django.models import Job as Row
from jobify_django.models import Pool as PoolRow
from jobify_django.runtime import MACHINE
from jobify_django.stores.base import Store
from jobify_django.stores.database import DatabaseStore
from jobify_django.stores.database import connection as limits
from tests.child import PATIENCE, until
from tests.workshop import Configure, at_work, both, database, memory, pushed

broken = pytest.raises(transaction.TransactionManagementError)


@task
def note(value: Any = None) -> Any:
    return value


def the_store() -> Store:
    return queue().store


def waiting() -> int:
    return queue().stats().waiting


# What Django refuses, a push refuses


def swallow_an_integrity_error() -> None:
    with contextlib.suppress(IntegrityError):
        Group.objects.create(name="ada")


def undo() -> None:
    transaction.set_rollback(True)


def lose_an_inner_block() -> None:
    with contextlib.suppress(KeyError), transaction.atomic(savepoint=False):
        raise KeyError


@both
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("spoil", [swallow_an_integrity_error, undo, lose_an_inner_block])
def test_a_push_in_a_transaction_that_can_only_be_rolled_back_is_refused(
    jobify: Configure, spoil: Callable[[], None]
) -> None:
    Group.objects.create(name="ada")
    with transaction.atomic():
        spoil()
        with broken:
            note.push(1)
        with broken:
            note.push_many([(1,), (2,)])
        undo()
    assert waiting() == 0
    note.push(2)
    assert waiting() == 1


@database
def test_whatever_changes_or_reads_the_store_is_refused_there_too(jobify: Configure) -> None:
    job = note.push(1)
    with transaction.atomic():
        undo()
        for verb in (job.cancel, job.refresh, queue().pause, queue().resume, queue().stats):
            with broken:
                verb()
        with broken:
            the_store().retry([job.id])
    assert waiting() == 1


@database
def test_an_error_in_a_push_of_a_servers_transaction_marks_it_for_rollback(
    jobify: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    if connection.vendor == "sqlite":
        pytest.skip("about servers: a lost deadlock undoes all that was done, and the rest would commit")

    def fail(execute: Any, statement: str, *given: Any) -> Any:
        return execute(statement.replace("INTO jobify_job", "INTO no_such_table"), *given)

    with transaction.atomic():
        with connection.execute_wrapper(fail), pytest.raises(StoreError):
            note.push(1)
        assert transaction.get_rollback()


@database
def test_the_event_loops_thread_is_refused(jobify: Configure) -> None:
    from django.core.exceptions import SynchronousOnlyOperation

    store, settings = the_store(), queue().settings

    async def add() -> None:
        store.add(settings, [JobSpec(new_id(), "a.task", "[[],{}]")])

    note.push(1)
    with pytest.raises(SynchronousOnlyOperation):
        asyncio.run(add())
    assert waiting() == 1


def test_without_a_database_mark_a_push_is_refused(
    jobify: Configure, django_db_setup: None, django_db_blocker: Any
) -> None:
    jobify(STORE="database")
    with django_db_blocker.unblock():
        connection.ensure_connection()
    with pytest.raises(RuntimeError, match="Database access not allowed"):
        note.push(1)
    with pytest.raises(RuntimeError, match="Database access not allowed"):
        queue().stats()


def test_a_test_case_without_databases_is_refused(
    jobify: Configure, django_db_setup: None, django_db_blocker: Any
) -> None:
    jobify(STORE="database")
    refused: list[BaseException] = []

    class Case(SimpleTestCase):
        def runTest(self) -> None:
            for push in (note.push, queue().stats, queue().pause):
                try:
                    push()
                except AssertionError as error:  # Django's DatabaseOperationForbidden
                    refused.append(error)

    with django_db_blocker.unblock():
        connection.ensure_connection()
        Case.setUpClass()
        try:
            Case("runTest").debug()
        finally:
            Case.tearDownClass()
            Case.doClassCleanups()
        assert len(refused) == 3
        assert not Row.objects.exists()


@database
def test_a_wrapper_around_queries_sees_a_push_and_may_refuse_it(jobify: Configure) -> None:
    class Refused(Exception):
        pass

    seen: list[str] = []

    def look(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        seen.append(sql)
        return execute(sql, params, many, context)

    def refuse(*args: Any) -> None:
        raise Refused

    with connection.execute_wrapper(refuse), pytest.raises(Refused):
        note.push(1)
    assert waiting() == 0
    with connection.execute_wrapper(look):
        note.push(2)
        note.using(delay=60).push(3)
    assert any("INTO jobify_job" in sql for sql in seen)
    assert waiting() == 1


# Sync and async are one


@memory
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("undone", [False, True])
def test_a_push_awaited_below_sync_code_waits_for_that_codes_commit(jobify: Configure, undone: bool) -> None:
    async def helper() -> None:
        await note.apush(1)
        await note.push(2)
        await note.apush_many([(3,), (4,)])

    with transaction.atomic():
        async_to_sync(helper)()
        assert waiting() == 0
        transaction.set_rollback(undone)
    assert waiting() == (0 if undone else 4)


@memory
@pytest.mark.django_db(transaction=True)
def test_a_push_awaited_below_a_view_on_a_thread_of_the_event_loop_waits_too(jobify: Configure) -> None:
    async def helper() -> None:
        await note.apush(1)

    def view() -> int:
        with transaction.atomic():
            async_to_sync(helper)()
            note.push(2)
            before = waiting()
            undo()
        connections.close_all()
        return before

    async def main() -> int:
        return await sync_to_async(view)()

    assert asyncio.run(main()) == 0
    assert waiting() == 0


@memory
@pytest.mark.django_db(transaction=True)
def test_an_awaited_push_in_a_broken_transaction_is_refused(jobify: Configure) -> None:
    async def helper() -> None:
        await note.apush(1)

    with transaction.atomic():
        undo()
        with broken:
            async_to_sync(helper)()


@memory
@pytest.mark.django_db(transaction=True)
def test_an_awaited_push_can_be_sent_before_the_commit(jobify: Configure) -> None:
    async def helper() -> None:
        await note.using(on_commit=False).apush(1)

    with transaction.atomic():
        async_to_sync(helper)()
        assert waiting() == 1
        undo()
    assert waiting() == 1


@memory
async def test_in_memory_a_push_on_a_plain_event_loop_needs_no_thread(jobify: Configure) -> None:
    def no_thread(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("it went to a thread")

    jobify.run_on(replace(MACHINE, sync_to_async=no_thread))
    await note.apush(1)
    await note.apush_many([(2,), (3,)])
    assert waiting() == 3


@memory
def test_a_task_that_outlives_its_sync_caller_still_pushes(jobify: Configure) -> None:
    async def main() -> None:
        made: list[asyncio.Task[Any]] = []
        over = asyncio.Event()

        async def late() -> None:
            await over.wait()
            await note.apush(1)

        async def helper() -> None:
            made.append(asyncio.create_task(late()))

        await sync_to_async(async_to_sync(helper))()
        over.set()
        await made[0]

    asyncio.run(main())
    assert waiting() == 1


# One idea of "a transaction is open"


@pytest.fixture
def manual(transactional_db: None) -> Iterator[None]:
    transaction.set_autocommit(False)
    yield
    connection.rollback()
    transaction.set_autocommit(True)


@database
@pytest.mark.parametrize("first", ["job", "row"])
def test_without_autocommit_a_push_is_part_of_the_open_transaction(
    jobify: Configure, manual: None, first: str
) -> None:
    steps = [lambda: note.push(1), lambda: Group.objects.create(name="ada")]
    for step in steps if first == "job" else reversed(steps):
        step()
    assert waiting() == 1
    connection.rollback()
    assert (waiting(), Group.objects.count()) == (0, 0)
    connection.rollback()
    note.push(2)
    connection.commit()
    connection.rollback()
    assert waiting() == 1


@memory
def test_without_autocommit_a_push_that_cannot_wait_for_the_commit_is_refused(
    jobify: Configure, manual: None
) -> None:
    with pytest.raises(transaction.TransactionManagementError, match=r"on_commit=False"):
        note.push(1)
    assert waiting() == 0
    note.using(on_commit=False).push(1)
    assert waiting() == 1


@database
def test_a_pool_commits_whatever_autocommit_says(jobify: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    job = pushed(lambda: 7)
    monkeypatch.setitem(connections.settings["default"], "AUTOCOMMIT", False)
    with at_work():
        job.wait(timeout=PATIENCE)
    assert job.result() == 7


# What is stored is told


@database
def test_a_pool_of_a_newer_release_makes_no_push_fail(jobify: Configure) -> None:
    PoolRow.objects.create(
        id="new",
        host="h",
        pid=1,
        kind="code",
        started_at=0,
        seen_at=the_store().clock(),
        queues='{"default": {"workers": 1, "busy": 0, "version": 0, "mood": "sunny"}, "odd": 7}',
    )
    PoolRow.objects.create(
        id="odd", host="h", pid=2, kind="code", started_at=0, seen_at=the_store().clock(), queues="["
    )
    note.push(1)
    assert waiting() == 1
    by_id = {pool.id: pool for pool in the_store().pools()}
    assert set(by_id) == {"new", "odd"}
    assert by_id["new"].queues["default"].workers == 1
    assert (set(by_id["new"].queues), dict(by_id["odd"].queues)) == ({"default"}, {})


@database
def test_an_order_of_a_newer_release_leaves_it_to_the_settings(jobify: Configure) -> None:
    from jobify_django.models import Queue as QueueRow

    queue().tune(order="lifo")
    QueueRow.objects.update(order="fair")
    note.push_many([(1,), (2,)])
    assert queue().stats().order == "priority"


@database
def test_an_error_or_a_history_that_cannot_be_read_costs_no_more_than_itself(jobify: Configure) -> None:
    job = note.push(1)
    Row.objects.update(
        error='{"type": "a", "message": "b", "code": 7}',
        history='[{"attempt": 1, "reason": "r", "at": 1, "mood": 1}, 7]',
    )
    job.refresh()
    assert job.error is not None
    assert job.error.message == "b"
    Row.objects.update(error="{", history="{")
    job.refresh()
    assert job.error is not None
    assert "cannot be read" in job.error.message


@both
def test_a_look_at_the_pools_that_fails_makes_no_push_fail(
    jobify: Configure, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*args: Any) -> Any:
        raise TypeError("odd")

    monkeypatch.setattr(the_store(), "pools", fail)
    with caplog.at_level(logging.WARNING, "jobify.push"):
        assert note.push(1).id
    assert "event=lookout-failed" in caplog.text


@both
def test_a_listener_that_fails_makes_no_push_fail(
    jobify: Configure, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(about: object) -> None:
        raise RuntimeError("Event loop is closed")

    unsubscribe = the_store().listen("work", fail)
    try:
        assert note.push(1).id
    finally:
        unsubscribe()
    assert waiting() == 1
    # The watcher's thread may be the one that tells of it.
    until(lambda: "event=notify-failed" in caplog.text, "the word of the listener that failed")


# How long others may block it


@pytest.fixture
def blocked(jobify: Configure, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Somebody else's transaction that stands in every push's way."""
    note.push(0)
    monkeypatch.setattr(limits, "SHORTEST_LOCK_WAIT", 0.2)
    held, over = threading.Event(), threading.Event()

    def hold() -> None:
        try:
            with transaction.atomic(), connection.cursor() as cursor:
                if connection.vendor == "postgresql":
                    cursor.execute("LOCK TABLE jobify_job IN ACCESS EXCLUSIVE MODE")
                else:
                    note.push(0)
                held.set()
                assert over.wait(PATIENCE)
        finally:
            held.set()
            connections.close_all()

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(PATIENCE)
    yield
    over.set()
    thread.join(PATIENCE)


LONG = 12.0


@database
def test_a_push_waits_no_longer_for_others_than_it_may(jobify: Configure, blocked: None) -> None:
    for timeout in (0, 0.5):
        began = time.monotonic()
        with pytest.raises(StoreBusy, match="long transaction"):
            note.using(timeout=timeout).push(1)
        assert time.monotonic() - began < LONG


@database
def test_in_async_code_a_push_waits_no_longer_for_others_either(jobify: Configure, blocked: None) -> None:
    async def main() -> None:
        try:
            await note.using(timeout=0).apush(1)
        finally:
            await sync_to_async(connections.close_all)()

    began = time.monotonic()
    with pytest.raises(StoreBusy, match="long transaction"):
        asyncio.run(main())
    assert time.monotonic() - began < LONG


@database
def test_in_a_transaction_a_push_waits_no_longer_for_others_either(jobify: Configure, blocked: None) -> None:
    if connection.vendor == "postgresql":
        pytest.skip("the caller's own lock_timeout counts there: nothing of a push waits but for LOCK TABLE")
    began = time.monotonic()
    with transaction.atomic(), pytest.raises(StoreBusy):
        note.push(1)
    assert time.monotonic() - began < LONG
    assert isinstance(the_store(), DatabaseStore)


@database
def test_a_pause_waits_for_others_no_longer_than_a_store_may(
    jobify: Configure, blocked: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if connection.vendor == "postgresql":
        pytest.skip("a push holds nothing there that a pause needs")
    monkeypatch.setattr(limits, "LONGEST_LOCK_WAIT", 0.2)
    began = time.monotonic()
    with pytest.raises(StoreBusy, match="long transaction"):
        queue().pause()
    assert time.monotonic() - began < LONG
