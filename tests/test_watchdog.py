"""The watchdog: it ends a call that a silent network lets wait, whatever happens to its own clock."""

from __future__ import annotations

import errno
import socket
import time

import pytest

from jobify_django.stores.database import watchdog as module
from jobify_django.stores.database.watchdog import Watchdog
from tests.child import PATIENCE


def test_a_call_that_waits_for_ever_is_ended_although_a_sleep_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []

    def sleep(seconds: float, sleep: object = time.sleep) -> None:
        slept.append(seconds)
        if len(slept) == 1:
            raise OSError(errno.EINVAL, "Invalid argument")
        sleep(0.01)  # type: ignore[operator]

    monkeypatch.setattr(module.time, "sleep", sleep)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(PATIENCE)
        with Watchdog().limit(ours, 0.05):
            assert ours.recv(1) == b""
    assert len(slept) > 1
