"""Notifications: who listens hears of every change, and every notification may be lost."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any, NoReturn

import pytest
from django.db import connection, transaction

from jobify_django import JobStatus, queue, task
from jobify_django.exceptions import StoreError
from jobify_django.job import JobSpec, new_id
from jobify_django.outcome import succeeded
from jobify_django.pool.workers import Workers
from jobify_django.stores import watcher
from jobify_django.stores.base import Store
from jobify_django.stores.database import DatabaseStore
from jobify_django.stores.notifier import Kind
from tests.child import PATIENCE, until
from tests.claims import claim
from tests.workshop import Configure, at_work, both, database, elsewhere, memory, notice_nothing

KINDS: tuple[Kind, ...] = ("work", "room", "ended")

noticing = pytest.mark.skipif(
    connection.vendor == "mysql", reason="nothing tells of other processes' writes there; pools poll"
)


@task
def note(value: int = 0) -> None: ...


class Ears:
    """Listeners of every kind."""

    def __init__(self, store: Store) -> None:
        self.heard: list[tuple[str, Any]] = []
        self._stops = [
            store.listen(kind, lambda what, kind=kind: self.heard.append((kind, what)))  # type: ignore[misc]
            for kind in KINDS
        ]

    def close(self) -> None:
        for stop in self._stops:
            stop()


def watchers() -> int:
    return sum(thread.name.startswith("jobify-watch-") for thread in threading.enumerate())


def the_store() -> Store:
    return queue().store


@pytest.fixture
def ears(jobify: Configure) -> Iterator[Ears]:
    made = Ears(the_store())
    yield made
    made.close()
    until(lambda: watchers() == 0, "the watcher's end")


@both
def test_what_this_process_does_is_told_at_once(jobify: Configure, ears: Ears) -> None:
    job = note.push()
    assert ("work", "default") in ears.heard
    (started,) = claim(the_store())
    assert ("room", "default") in ears.heard
    the_store().settle([succeeded(started)])
    assert ("ended", [job.id]) in ears.heard


@database
def test_a_claimed_job_starts_before_anybody_is_told_of_the_room(jobify: Configure) -> None:
    started: list[int] = []
    with at_work() as shop:

        def note_started(queue: object) -> None:
            if queue is not None:  # the first look at the store is about any
                started.append(shop.pool.workers.started)

        stop = the_store().listen("room", note_started)
        note.push().wait(timeout=PATIENCE)
        until(lambda: started, "the notification")
        stop()
    assert started[0] == 1


@database
def test_notifications_are_sent_although_what_was_claimed_cannot_be_started(
    jobify: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = threading.Event()

    def bug(*arguments: object) -> NoReturn:
        raise AssertionError("a bug of ours")

    with monkeypatch.context() as patch, at_work():
        stop = the_store().listen("room", lambda queue: queue and told.set())
        patch.setattr(Workers, "start", bug)
        note.push()
        assert told.wait(PATIENCE)
        stop()


@database
def test_what_a_thread_holds_back_is_told_at_the_end_and_no_other_thread_waits(
    jobify: Configure, ears: Ears
) -> None:
    store = the_store()
    until(lambda: connection.vendor == "mysql" or ears.heard, "the first look")
    ears.heard.clear()
    with store.notifying_last():
        note.push()
        with store.notifying_last():
            claim(store)
        assert not {("work", "default"), ("room", "default")} & set(ears.heard)
        elsewhere(note.push)
        assert ("work", "default") in ears.heard
        ears.heard.clear()
    assert {("work", "default"), ("room", "default")} <= set(ears.heard)


@both
def test_who_stops_listening_twice_stops_nobody_else(jobify: Configure) -> None:
    first, second = Ears(the_store()), Ears(the_store())
    first.close()
    first.close()
    note.push()
    assert ("work", "default") not in first.heard
    assert ("work", "default") in second.heard
    second.close()


@memory
def test_memory_needs_no_watcher(jobify: Configure) -> None:
    until(lambda: watchers() == 0, "the end of other tests' watchers")
    ears = Ears(the_store())
    assert watchers() == 0
    ears.close()


@noticing
@database
def test_one_thread_watches_and_only_while_somebody_listens(jobify: Configure) -> None:
    until(lambda: watchers() == 0, "the end of other tests' watchers")
    note.push()
    assert watchers() == 0
    first, second = Ears(the_store()), Ears(the_store())
    assert watchers() == 1
    first.close()
    assert watchers() == 1
    second.close()
    until(lambda: watchers() == 0, "the watcher's end")
    third = Ears(the_store())
    assert watchers() == 1
    third.close()
    until(lambda: watchers() == 0, "the watcher's end")


@noticing
@database
def test_what_others_write_is_told(jobify: Configure, ears: Ears) -> None:
    until(lambda: ears.heard, "the first look")
    ears.heard.clear()
    another = DatabaseStore("elsewhere")
    another.tune(queue().settings, {"paused": True}, actor="", source="code")
    # SQLite tells only that something was written; PostgreSQL tells what, and of which queue.
    sqlite = connection.vendor == "sqlite"
    told = [(kind, None) for kind in KINDS] if sqlite else [("work", "default"), ("room", "default")]
    for hint in told:
        until(lambda hint=hint: hint in ears.heard, f"the hint {hint}")


@noticing
@database
def test_a_watcher_that_fails_tries_again(jobify: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watcher, "RETRY", 0.0)
    change_detector, failures = the_store().change_detector, iter([StoreError("away"), StoreError("away")])

    def failing() -> Any:
        if error := next(failures, None):
            raise error
        return change_detector()

    monkeypatch.setattr(the_store(), "change_detector", failing)
    ears = Ears(the_store())
    until(lambda: ("work", None) in ears.heard, "a hint in spite of it")
    ears.close()


@noticing
@database
def test_who_hears_no_more_is_told_so_that_it_polls_soon(
    jobify: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    breaks = threading.Event()

    class Breaking:
        hears = True

        def __call__(self) -> tuple[()]:
            if breaks.wait(0.01):
                raise StoreError("away")
            return ()

    store = the_store()
    monkeypatch.setattr(store, "change_detector", Breaking)
    ears = Ears(store)
    until(lambda: store.hears, "a watcher that hears")
    assert ears.heard == []
    breaks.set()
    until(lambda: ears.heard, "the word")
    assert ears.heard[0] == ("work", None)
    ears.close()


@database
def test_a_notification_comes_with_the_commit_and_not_with_a_rollback(
    jobify: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    notice_nothing(monkeypatch)
    ears = Ears(the_store())
    with transaction.atomic():
        note.push()
        assert ears.heard == []
    assert ears.heard == [("work", "default")]
    with transaction.atomic():
        note.push()
        transaction.set_rollback(True)
    assert ears.heard == [("work", "default")]
    ears.close()


@noticing
@database
def test_a_pool_is_woken_by_another_connection(jobify: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobify_django.pool.turn.POLL", 3600.0)
    _push_elsewhere_and_wait()


@database
def test_with_every_notification_lost_a_job_waits_one_poll_longer(
    jobify: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobify_django.pool.turn.POLL", 0.05)
    notice_nothing(monkeypatch)
    _push_elsewhere_and_wait()


def _push_elsewhere_and_wait() -> None:
    """Have a job added as another process does, to a pool that has nothing to do."""
    with at_work() as shop:
        note.push().wait(timeout=PATIENCE)
        until(lambda: shop.pool.completer.empty, "an idle pool")
        specs = [JobSpec(new_id(), note.name, "[[],{}]")]
        DatabaseStore("elsewhere").add(queue().settings, specs)
        until(
            lambda: the_store().get([specs[0].id])[specs[0].id].status is JobStatus.SUCCESSFUL,
            "the job's end",
        )
