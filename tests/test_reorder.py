"""A changed order: jobs are moved in parts, late ones too, and it is reported once it is in force."""

from __future__ import annotations

import io
import threading
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection, connections, transaction

from jobify_django import queue, task
from jobify_django.exceptions import StoreError
from jobify_django.models import Job, Queue
from jobify_django.stores.base import Store
from jobify_django.stores.database import DatabaseStore
from jobify_django.stores.database import tune as module
from tests.child import PATIENCE
from tests.claims import claim as take
from tests.claims import release
from tests.workshop import Configure, at_work, database, until

postgresql = pytest.mark.skipif(connection.vendor != "postgresql", reason="about PostgreSQL")
servers = pytest.mark.skipif(connection.vendor == "sqlite", reason="about servers: SQLite has one writer")


@task
def note(value: int = 0) -> None: ...


def order() -> list[int]:
    """The waiting jobs' numbers, in claim order, as the keys have them."""
    rows = Job.objects.filter(status="waiting").order_by("order_key", "sequence")
    return [number for (number,) in rows.values_list("sequence")]


def reordering() -> bool:
    return queue().stats().state.reordering


class Late:
    """A transaction that has pushed, on a thread of its own, and commits when it is told to."""

    def __init__(self) -> None:
        self._pushed = threading.Event()
        self._commit = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            with transaction.atomic():
                note.push(1)
                self._pushed.set()
                assert self._commit.wait(PATIENCE)
        finally:
            connections.close_all()

    def __enter__(self) -> Late:
        self._thread.start()
        assert self._pushed.wait(PATIENCE)
        return self

    def commit(self) -> None:
        self._commit.set()
        self._thread.join(PATIENCE)

    def __exit__(self, *_: object) -> None:
        self.commit()


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Parts of two jobs; the list has how many each of them moved."""
    monkeypatch.setattr(module, "REORDER_PART", 2)
    moved: list[int] = []
    real = DatabaseStore.reorder

    def reorder(self: Any, settings: Any) -> int:
        moved.append(real(self, settings))
        return moved[-1]

    monkeypatch.setattr(DatabaseStore, "reorder", reorder)
    return moved


@database
def test_a_changed_order_is_made_in_parts(jobify: Configure, small_parts: list[int]) -> None:
    jobify(ORDER="fifo")
    note.push_many([()] * 5)
    first, *rest = order()

    state = queue().tune(order="lifo")

    assert [number for number in small_parts if number] == [2, 2, 1]
    assert order() == [*reversed(rest), first]
    assert not state.reordering
    assert not reordering()


@database
def test_a_part_that_fails_leaves_the_rest_to_the_pools(
    jobify: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobify(ORDER="fifo", WORKERS=1)
    queue().pause()
    note.push_many([()] * 3)
    numbers = order()
    real = DatabaseStore.reorder

    def away(self: Store, settings: Any) -> int:
        raise StoreError("the database is away.")

    monkeypatch.setattr(DatabaseStore, "reorder", away)
    state = queue().tune(order="lifo")
    assert state.reordering
    assert order() == numbers
    monkeypatch.setattr(DatabaseStore, "reorder", real)

    with at_work():
        until(lambda: not reordering(), "the new order")
        assert order() == numbers[::-1]


@database
def test_the_new_version_is_reported_once_the_order_is_in_force(
    jobify: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobify(ORDER="fifo")
    gate = threading.Event()
    asked = threading.Event()
    real = DatabaseStore.reorder

    def held(self: Any, settings: Any) -> int:
        asked.set()
        return real(self, settings) if gate.is_set() else 0

    monkeypatch.setattr(DatabaseStore, "reorder", held)
    with at_work() as shop:
        state = queue().tune(order="lifo", workers=7)
        slots = shop.pool.slots["default"]
        asked.clear()
        until(lambda: slots.size == 7 and asked.is_set(), "the new size")
        assert slots.version < state.version
        assert shop.pool.record().queues["default"].version < state.version
        gate.set()
        until(lambda: slots.version == state.version, "the new version")


@postgresql
@database
def test_a_push_that_commits_after_the_change_gets_its_place(jobify: Configure) -> None:
    jobify(ORDER="fifo")
    note.push_many([()] * 2)
    with Late() as late:
        assert queue().tune(order="lifo").reordering
        assert queue().store.reorder(queue().settings) == 0
        assert reordering()  # somebody may come late

        late.commit()
        while reordering():
            queue().store.reorder(queue().settings)

    numbers = order()
    assert len(numbers) == 3
    assert numbers == sorted(numbers, reverse=True)


@postgresql
@database
def test_a_transaction_that_has_pushed_nothing_holds_up_no_order(jobify: Configure) -> None:
    jobify(ORDER="fifo")
    note.push()
    begun, end = threading.Event(), threading.Event()

    def other() -> None:
        try:
            with transaction.atomic():
                Queue.objects.create(name="another")
                begun.set()
                assert end.wait(PATIENCE)
        finally:
            connections.close_all()

    thread = threading.Thread(target=other)
    thread.start()
    try:
        assert begun.wait(PATIENCE)
        assert not queue().tune(order="lifo").reordering
    finally:
        end.set()
        thread.join(PATIENCE)


@database
def test_a_job_that_runs_while_the_order_changes_comes_back_at_its_new_place(jobify: Configure) -> None:
    jobify(ORDER="fifo")
    store = queue().store
    note.push_many([()] * 3)
    numbers = order()
    (claim,) = take(store, pool="p")

    queue().tune(order="lifo")
    assert release(store, [claim], "p")

    assert order() == numbers[::-1]


@database
def test_inside_the_callers_transaction_all_is_moved_and_the_rest_is_left_to_the_pools(
    jobify: Configure, small_parts: list[int]
) -> None:
    jobify(ORDER="fifo")
    note.push_many([()] * 3)
    numbers = order()

    with transaction.atomic():
        state = queue().tune(order="lifo")
    assert order() == numbers[::-1]
    assert state.reordering

    for _ in range(2):
        queue().store.reorder(queue().settings)
    assert not reordering()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@database
def test_progress_is_told_on_a_terminal_and_nowhere_else(jobify: Configure, small_parts: list[int]) -> None:
    jobify(ORDER="fifo")
    note.push_many([()] * 5)
    terminal, file = Terminal(), io.StringIO()

    call_command("jobs", "tune", "default", "--order", "lifo", stdout=io.StringIO(), stderr=terminal)
    call_command("jobs", "tune", "default", "--order", "fifo", stdout=io.StringIO(), stderr=file)

    assert "5 jobs re-ordered" in terminal.getvalue()
    assert file.getvalue() == ""
