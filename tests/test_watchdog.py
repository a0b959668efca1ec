"""The watchdog: it ends a call that a silent network lets wait, whatever happens to its own clock."""

from __future__ import annotations

import errno
import socket
from dataclasses import replace

from jobify_django.runtime import MACHINE
from jobify_django.stores.database.watchdog import Watchdog
from tests.child import PATIENCE


def test_a_call_that_waits_for_ever_is_ended_although_a_sleep_fails() -> None:
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 1:
            raise OSError(errno.EINVAL, "Invalid argument")
        MACHINE.sleep(0.01)

    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(PATIENCE)
        with Watchdog(replace(MACHINE, sleep=sleep)).limit(ours, 0.05):
            assert ours.recv(1) == b""
    assert len(slept) > 1
