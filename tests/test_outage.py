"""What goes wrong again and again: told at once, again when it changes, then ever more rarely, and when it is
over; by every loop that tries."""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from jobify_django import queue
from jobify_django.admin import reading
from jobify_django.exceptions import StoreError
from jobify_django.management.heartbeat import HeartbeatFile
from jobify_django.pool import backoff, upkeep
from jobify_django.repeated_failure import (
    FORGOTTEN,
    LONGEST_SILENCE,
    MOST_KINDS,
    REPORT_AGAIN,
    FailureReport,
    RepeatedFailure,
)
from jobify_django.runtime import MACHINE
from jobify_django.stores import watcher
from jobify_django.stores.database.watchdog import Watchdog
from jobify_django.stores.memory import MemoryStore
from tests.app.tasks import write_line
from tests.child import PATIENCE, until
from tests.workshop import Configure, at_work, pushed


class Clock:
    """A clock that a test sets."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def trouble(clock: Clock) -> RepeatedFailure:
    return RepeatedFailure(replace(MACHINE, monotonic=clock.monotonic))


def told_over(trouble: RepeatedFailure, clock: Clock, seconds: int) -> list[int]:
    """Fail once a second; return in which of them it was told."""
    told = []
    for second in range(seconds):
        if trouble.fail(StoreError("gone")) is not None:
            told.append(second)
        clock.now += 1
    return told


def test_an_outage_is_told_at_once_and_then_at_a_falling_rate(trouble: RepeatedFailure, clock: Clock) -> None:
    told = told_over(trouble, clock, 24 * 3600)
    assert told[:4] == [0, REPORT_AGAIN, 3 * REPORT_AGAIN, 7 * REPORT_AGAIN]
    assert len(told) < 35
    assert max(b - a for a, b in itertools.pairwise(told)) == LONGEST_SILENCE


def test_another_error_is_told_at_once_and_two_that_alternate_are_told_once_each(
    trouble: RepeatedFailure,
) -> None:
    errors = [StoreError("gone"), PermissionError("denied")] * 20
    words = [trouble.fail(error) for error in errors]
    assert words[:2] == [FailureReport(True, 1), FailureReport(True, 2)]
    assert words[2:] == [None] * 38


def test_errors_that_differ_in_numbers_are_one_and_many_that_never_read_the_same_are_not_all_told(
    trouble: RepeatedFailure,
) -> None:
    assert [trouble.fail(StoreError(f"process {pid} blocks")) is None for pid in range(3)] == [
        False,
        True,
        True,
    ]
    told = [trouble.fail(StoreError("x" * length)) for length in range(1000)]
    assert sum(word is not None for word in told) == MOST_KINDS - 1


def test_after_its_end_or_a_long_silence_it_is_a_new_one(trouble: RepeatedFailure, clock: Clock) -> None:
    assert trouble.recovered() == 0
    trouble.fail("x")
    assert trouble.fail("x") is None
    assert trouble.recovered(quiet=10.0) == 0
    clock.now += 10
    assert trouble.recovered(quiet=10.0) == 2
    assert trouble.recovered() == 0
    assert trouble.fail("x") == FailureReport(True, 1)
    clock.now += FORGOTTEN + 1
    assert trouble.fail("x") == FailureReport(True, 1)


def test_an_error_whose_text_cannot_be_read_is_told_too(trouble: RepeatedFailure) -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise ValueError

    assert trouble.fail(Mute()) == FailureReport(True, 1)


# The loops


class Shaky(MemoryStore):
    """A store that fails as the test says."""

    failing: dict[str, Exception]
    met: dict[str, int]

    def _try(self, verb: str) -> None:
        if (error := Shaky.failing.get(verb)) is not None:
            Shaky.met[verb] = Shaky.met.get(verb, 0) + 1
            raise error

    def claim(self, *given: Any, **named: Any) -> Any:
        self._try("claim")
        return super().claim(*given, **named)

    def heartbeat(self, *given: Any, **named: Any) -> Any:
        self._try("heartbeat")
        return super().heartbeat(*given, **named)

    def stats(self, *given: Any, **named: Any) -> Any:
        self._try("stats")
        return super().stats(*given, **named)

    def pools(self, *given: Any, **named: Any) -> Any:
        self._try("pools")
        return super().pools(*given, **named)


def met(verb: str, times: int) -> None:
    """Wait until a verb has failed so often from now on."""
    Shaky.met.clear()
    until(lambda: Shaky.met.get(verb, 0) >= times, f"{times} tries of {verb}")


@pytest.fixture
def shaky(jobify: Configure) -> Iterator[dict[str, Exception]]:
    """What fails, by the store's verb."""
    Shaky.failing, Shaky.met = {}, {}
    jobify(STORE="tests.test_outage.Shaky", QUEUES={"default": {}, "mail": {}, "slow": {}})
    yield Shaky.failing
    Shaky.failing.clear()


Said = Callable[[str], list[logging.LogRecord]]


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Said:
    """The records at INFO and above whose message holds this."""
    caplog.set_level(logging.INFO, "jobify")
    return lambda text: [one for one in caplog.records if text in one.getMessage()]


@pytest.fixture
def brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HEARTBEAT_EVERY", "TUNE_EVERY", "RESCUE_EVERY", "RETRY_AFTER"):
        monkeypatch.setattr(upkeep, name, 0.01)
    monkeypatch.setattr(backoff, "LONGEST_BACKOFF", 0.01)


def test_a_claim_loop_tells_an_outage_once_its_change_once_and_its_end(
    shaky: dict[str, Exception], said: Said, brisk: None
) -> None:
    with at_work():
        shaky["claim"] = StoreError("the server is away.")
        met("claim", 10)
        assert len(said("event=store-away")) == 1
        shaky["claim"] = StoreError("permission denied for table jobify_job.")
        met("claim", 10)
        assert len(said("event=store-away")) == 2
        assert said("event=store-back") == []
        shaky.clear()
        assert pushed(lambda: None).wait(timeout=PATIENCE) is None
        until(lambda: said("event=store-back"), "the end")
    assert len(said("event=store-back")) == 1


def test_a_chore_that_fails_in_a_way_nobody_foresaw_is_told_once_with_its_traceback(
    shaky: dict[str, Exception], said: Said, brisk: None, caplog: pytest.LogCaptureFixture
) -> None:
    with at_work():
        shaky["heartbeat"] = OSError("no space left on device")
        met("heartbeat", 10)
        (one,) = said("event=upkeep-failed")
        assert (one.levelno, one.exc_info is not None) == (logging.WARNING, True)
        shaky.clear()
        until(lambda: said("event=upkeep-back"), "the end")
    assert len(said("event=upkeep-back")) == 1


def test_a_push_that_cannot_look_for_workers_says_so_once(
    shaky: dict[str, Exception], said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobify_django.push.unserved.CHECK_EVERY", 0.0)
    shaky["pools"] = StoreError("permission denied for table jobify_pool.")
    for _ in range(5):
        write_line.push("path", "line")
    (one,) = said("event=lookout-failed")
    assert one.exc_info is not None
    shaky.clear()
    for _ in range(2):
        write_line.push("path", "line")
    assert len(said("event=lookout-back")) == 1


@pytest.fixture
def admin(admin_client: Client, trouble: RepeatedFailure, monkeypatch: pytest.MonkeyPatch) -> Client:
    monkeypatch.setattr(reading, "read_failures", trouble)
    return admin_client


def test_the_admin_pages_tell_a_store_they_cannot_read_once_not_for_each_queue_and_poll(
    shaky: dict[str, Exception], said: Said, admin: Client, clock: Clock
) -> None:
    overview = reverse("admin:jobify_django_overview_changelist")
    shaky["stats"] = StoreError("the tables are missing.")
    for _ in range(5):
        for page in (overview, reverse("admin:jobify_django_queue_change", args=["mail"])):
            assert "the tables are missing" in admin.get(page).text
    assert Shaky.met["stats"] >= 10
    (one,) = said("event=store-unreadable")
    assert one.exc_info is not None
    shaky.clear()
    admin.get(overview)
    assert said("event=store-readable") == [], "another page may still see it"
    clock.now += reading.UNREADABLE_FOR
    admin.get(overview)
    assert len(said("event=store-readable")) == 1


def test_a_watcher_whose_database_is_away_says_so_once(
    shaky: dict[str, Exception], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watcher, "RETRY", 0.001)
    caplog.set_level(logging.DEBUG, "jobify.store")
    store = queue().store
    tries: list[None] = []
    works, looked = threading.Event(), threading.Event()

    def detector() -> Any:
        if works.is_set():
            return look
        tries.append(None)
        raise StoreError("away")

    def look() -> Any:
        looked.set()
        return ()

    monkeypatch.setattr(store, "change_detector", detector)
    monkeypatch.setattr(type(store), "shared", True)
    stop = store.listen("work", lambda what: None)
    try:
        until(lambda: len(tries) >= 10, "ten tries")
        assert caplog.text.count("cannot watch for changes") == 1
        works.set()
        until(lambda: "watching for changes again" in caplog.text, "the end")
    finally:
        stop()


def test_a_listener_that_raises_at_each_notification_is_told_once(
    shaky: dict[str, Exception], said: Said
) -> None:
    def listen(what: object) -> None:
        raise ValueError("a bug")

    store = queue().store
    stop = store.listen("work", listen)
    try:
        for _ in range(5):
            store.notifier.publish("work", "default")
    finally:
        stop()
    (one,) = said("event=notify-failed")
    assert one.exc_info is not None


def test_calls_that_go_without_a_deadline_for_want_of_a_thread_are_told_once(said: Said) -> None:
    class Refused(threading.Thread):
        def start(self) -> None:
            raise RuntimeError("can't start new thread")

    watchdog = Watchdog(replace(MACHINE, thread=Refused))
    for _ in range(5):
        with watchdog.limit(SimpleNamespace(), 1.0):
            pass
    assert len(said("event=no-thread")) == 1


def test_a_heartbeat_file_that_cannot_be_touched_is_told_once_and_when_it_can_again(
    tmp_path: Any, said: Said
) -> None:
    path = tmp_path / "missing" / "heartbeat"
    heartbeat = HeartbeatFile(path)
    for _ in range(5):
        heartbeat.show()
    assert len(said("event=heartbeat-failed")) == 1
    path.parent.mkdir()
    for _ in range(2):
        heartbeat.show()
    assert len(said("event=heartbeat-back")) == 1
