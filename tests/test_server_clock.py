"""How a process knows a server's clock: a slow look at it is taken again, and a worse one counts less."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from jobify_django.runtime import MACHINE
from jobify_django.stores.database.server import ServerClock


class Slow:
    """A connection that tells a time, and takes so many seconds for it, the clock's error among them."""

    def __init__(self, clock: list[float], *seconds: float) -> None:
        self._clock, self._seconds = clock, list(seconds)
        self.was_set = 0.0

    def execute(self, statement: str, values: Any = ()) -> Slow:
        return self

    def fetchone(self) -> tuple[float]:
        told = 1000.0 + self._clock[0] + self.was_set
        self._clock[0] += self._seconds.pop(0)  # all of it on the way back
        return (told,)


def a_server_clock(now: list[float]) -> Any:
    """A server's clock as a process knows it that was never asked for it, whose own one shows ``now``."""
    return ServerClock("SELECT 1", replace(MACHINE, monotonic=lambda: now[0]))


@pytest.mark.parametrize(
    ("seconds", "late"), [([0.002], 0.001), ([0.4, 0.002], 0.001), ([0.4, 0.05, 0.2], 0.025)], ids=str
)
def test_a_slow_look_at_the_servers_clock_is_taken_again(seconds: list[float], late: float) -> None:
    clock = [0.0]
    server_clock = a_server_clock(clock)
    server_clock.measure(Slow(clock, *seconds))
    assert server_clock.reading.ahead == pytest.approx(1000.0 - late)


@pytest.mark.parametrize(
    ("later", "seconds", "was_set", "ahead"),
    [
        (20.0, 0.5, 0.0, 999.999),
        (20.0, 0.01, 0.0, 999.995),
        (2000.0, 0.5, 0.0, 999.75),
        (20.0, 0.5, 60.0, 1059.75),
        (20.0, 0.5, -60.0, 939.75),
    ],
    ids=["worse", "as good", "perhaps drifted apart", "set forward", "set back"],
)
def test_a_worse_look_at_the_servers_clock_counts_only_when_that_was_set(
    later: float, seconds: float, was_set: float, ahead: float
) -> None:
    clock = [0.0]
    server_clock = a_server_clock(clock)
    server_clock.measure(Slow(clock, 0.002))
    clock[0] += later
    slow = Slow(clock, *[seconds] * 3)
    slow.was_set = was_set
    server_clock.measure(slow)
    assert server_clock.reading.ahead == pytest.approx(ahead)
