"""Huey on PostgreSQL and SQLite: threads that take one job each. It deletes a job when it takes it.

Its fastest: no fsync on SQLite, a first look after 1 ms, and no results on either.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from benchmarks.peers.sides.base import Side as Base
from benchmarks.peers.sides.base import Unsupported


class Side(Base):
    """``huey_consumer`` with threads."""

    def prepare(self) -> None:
        if self.kind == "async":
            raise Unsupported("no async def tasks")
        self.poll_seconds = (0.001 if self.fast else 0.1) if self.on_sqlite else 0.0
        options: dict[str, Any] = {"results": False} if self.fast else {}
        if self.fast and self.on_sqlite:
            options["fsync"] = False
        os.environ["PEERS_HUEY"] = json.dumps(options)
        from benchmarks.peers.jobs import huey

        self._huey, self._task = huey.huey, huey.job

    def one_by_one(self, number: int) -> None:
        for _ in range(number):
            self._task()

    def worker(self) -> list[str]:
        consumer = "from huey.bin.huey_consumer import consumer_main; consumer_main()"
        command = [sys.executable, "-c", consumer, "benchmarks.peers.jobs.huey.huey", "-q"]
        command += ["-k", "thread", "-w", str(self.workers)]
        return [*command, "-d", "0.001"] if self.fast else command

    def left(self) -> int:
        return len(self._huey)
