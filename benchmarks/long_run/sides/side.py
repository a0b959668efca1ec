"""What contestants have in common: who pushes when."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.long_run.started import RECORD

Push = Callable[[Sequence[float]], None]

DATABASE = os.environ.get("LONG_RUN_DATABASE", "")
WORKERS = int(os.environ.get("LONG_RUN_WORKERS", "10"))


def main(*, prepare: Callable[[], None], push: Push, work: Callable[[], None]) -> None:
    """Do what the command line says: prepare, work, push RATE BATCH SECONDS, or fill DEPTH BATCH SECONDS."""
    _, role, *numbers = sys.argv
    if role in ("push", "fill"):
        {"push": steadily, "fill": keep_full}[role](push, *map(float, numbers))
    else:
        {"prepare": prepare, "work": work}[role]()


def steadily(push: Push, rate: float, batch: float, seconds: float) -> None:
    """Push so many jobs a second, some at a time. One that comes late is due when it should have come.

    It prints what it pushed, also when it is told to stop.
    """
    ended = _told_to_stop()
    began, pushed = time.time(), 0
    while not ended and pushed < rate * seconds:
        due = began + pushed / rate
        if (wait := due - time.time()) > 0:
            time.sleep(wait)
        push([due] * int(batch))
        pushed += int(batch)
    print(pushed, flush=True)


def keep_full(push: Push, depth: float, batch: float, seconds: float) -> None:
    """Push whenever fewer jobs than ``depth`` have not begun yet, as many at a time as fit.

    How many began is read from the records of the jobs, so nobody's table is asked. It prints what it pushed.
    """
    ended = _told_to_stop()
    started = Path(os.environ["LONG_RUN_STARTED"])
    until, pushed = time.monotonic() + seconds, 0
    while not ended and time.monotonic() < until:
        room = int(depth) - pushed + started.stat().st_size // RECORD.size
        if room < min(batch, depth / 2):
            time.sleep(0.001)
            continue
        some = min(room, int(batch))
        push([time.time()] * some)
        pushed += some
    print(pushed, flush=True)


def _told_to_stop() -> list[int]:
    """Return a list that has something in it as soon as the process is told to end."""
    told: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: told.append(number))
    return told
