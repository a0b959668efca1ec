"""What a listener makes of the payloads it gets; PostgreSQL's are put into its mouth."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from jobify_django.runtime import MACHINE
from jobify_django.stores.database import listener as module
from jobify_django.stores.database.listener import DEBOUNCE, ECHO, WAIT, ListenDetector
from jobify_django.stores.notifier import EVERY_KIND
from jobify_django.testing.clock import FakeClock
from tests.child import until


class Mouth:
    """A connection that has got the given payloads, and notes how long it was to wait for more."""

    def __init__(self) -> None:
        self.payloads: list[str] = []
        self.waits: list[float] = []
        self.closed = 0

    def execute(self, statement: str) -> None:
        assert statement == "LISTEN jobify"

    def fileno(self) -> int:
        return 0

    def notifies(self, *, timeout: float, stop_after: int) -> list[SimpleNamespace]:
        assert timeout == 0
        got, self.payloads = self.payloads[:stop_after], self.payloads[stop_after:]
        return [SimpleNamespace(payload=payload) for payload in got]

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def mouth(monkeypatch: pytest.MonkeyPatch) -> Mouth:
    mouth = Mouth()
    driver = SimpleNamespace(connect=lambda **parameters: mouth)
    wrapper = SimpleNamespace(Database=driver, get_connection_params=dict)
    monkeypatch.setattr(module, "connections", {"default": wrapper})
    monkeypatch.setattr(module, "wait_for_input", lambda socket, seconds: mouth.waits.append(seconds))
    return mouth


def test_what_was_said_before_it_listened_is_looked_for(mouth: Mouth) -> None:
    listener = ListenDetector("default", mouth.payloads.append, MACHINE)
    assert listener() == EVERY_KIND
    assert mouth.waits == []
    assert listener() == set()


def test_a_listener_looks_again_for_what_was_not_said_a_second_time(mouth: Mouth) -> None:
    # A process says a thing once in a while: a job that was pushed right after another was not announced.
    listener = ListenDetector("default", lambda word: None, MACHINE)
    listener()
    mouth.payloads.append("work default")
    assert listener() == {("work", "default")}
    mouth.waits.clear()
    until(lambda: listener() == {("work", "default")}, "the second look", patience=10)
    assert max(mouth.waits) <= DEBOUNCE
    mouth.waits.clear()
    assert listener() == set()
    assert mouth.waits == [WAIT]


def test_words_heard_between_are_looked_for_again_too(mouth: Mouth) -> None:
    listener = ListenDetector("default", lambda word: None, MACHINE)
    listener()
    mouth.payloads += ["work default", "room mail"]
    assert [listener(), listener()] == [{("work", "default")}, {("room", "mail")}]
    again: set[object] = set()
    until(lambda: again.update(listener()) or len(again) == 2, "the second looks", patience=10)
    assert again == {("work", "default"), ("room", "mail")}


def test_it_hears_once_an_echo_has_come_back_and_until_one_does_not(
    mouth: Mouth, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = FakeClock(1000.0)
    listener = ListenDetector("default", lambda word: None, replace(MACHINE, monotonic=clock))
    listener()
    assert not listener.hears
    mouth.payloads.append(f"{ECHO} ")
    listener()
    assert listener.hears
    clock.now += module.TEST_EVERY
    listener()  # which sends the next one
    assert listener.hears
    clock.now += module.ECHO_TIMEOUT + 1
    listener()
    assert not listener.hears
    mouth.payloads.append(f"{ECHO} ")
    listener()
    assert listener.hears


def test_a_word_of_its_own_tells_nobody_anything(mouth: Mouth) -> None:
    listener = ListenDetector("default", mouth.payloads.append, MACHINE)
    listener()
    assert listener() == set()  # it has got its own payload
    mouth.payloads += [ECHO, "gossip default"]
    assert [listener(), listener()] == [set(), set()]
