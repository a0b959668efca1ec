"""What contestants have in common: a steady rate, whatever the queue does."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Sequence

Push = Callable[[Sequence[float]], None]

DATABASE = os.environ.get("LONG_RUN_DATABASE", "")
WORKERS = int(os.environ.get("LONG_RUN_WORKERS", "10"))


def main(*, prepare: Callable[[], None], push: Push, work: Callable[[], None]) -> None:
    """Do what the command line says: ``prepare``, ``work``, or ``push RATE BATCH SECONDS``."""
    _, role, *numbers = sys.argv
    if role == "push":
        steadily(push, *map(float, numbers))
    else:
        {"prepare": prepare, "work": work}[role]()


def steadily(push: Push, rate: float, batch: float, seconds: float) -> None:
    """Push so many jobs a second, some at a time. One that comes late is due when it should have come.

    It prints what it pushed, also when it is told to stop.
    """
    ended: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: ended.append(number))
    began, pushed = time.time(), 0
    while not ended and pushed < rate * seconds:
        due = began + pushed / rate
        if (wait := due - time.time()) > 0:
            time.sleep(wait)
        push([due] * int(batch))
        pushed += int(batch)
    print(pushed, flush=True)
