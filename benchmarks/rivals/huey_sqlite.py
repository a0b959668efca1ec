"""Huey on SQLite without fsync, and its consumer with 10 thread workers.

Run as a module it is the consumer's process: it runs the number of jobs given on its command line, prints
when the first began and the last ended (epoch seconds) as JSON, and ends.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time

from huey import SqliteHuey
from huey.consumer import Consumer

huey = SqliteHuey("bench", filename=os.path.abspath("huey.sqlite3"), fsync=False)
times: list[float] = []
expected = 0
all_ended = threading.Event()


@huey.task()
def noop() -> None:
    """Do nothing but note the time."""
    times.append(time.time())
    if len(times) >= expected:
        all_ended.set()


@huey.task()
def hello() -> str:
    """Tell a producer that the consumer runs."""
    return "hello"


def consume(jobs: int, seconds: float = 300.0) -> tuple[float, float]:
    """Run ``jobs`` jobs with 10 thread workers; return when the first began and the last ended."""
    global expected
    expected = jobs
    consumer = Consumer(huey, workers=10, worker_type="thread", periodic=False)
    consumer.start()
    if not all_ended.wait(seconds):
        raise TimeoutError(f"{len(times)} of {jobs} jobs had ended after {seconds:g} s")
    consumer.stop(graceful=True)
    return min(times), max(times)


def main() -> None:
    """Run the consumer's process."""
    print(json.dumps(consume(int(sys.argv[1]))), flush=True)


if __name__ == "__main__":
    # The jobs name their task by this module's own name, not by ``__main__``.
    from benchmarks.rivals import huey_sqlite

    huey_sqlite.main()
