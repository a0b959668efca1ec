"""graphile-worker on Node: a plain function stands for ``def``, an async one for ``async def``.

Its fastest, from its own page on performance: a local queue of 500 and outcomes stored in batches. The local
queue holds more jobs than run, and gives up the exact order of priorities.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from benchmarks.peers.sides.base import PostgresSide

SCRIPT = Path(__file__).resolve().parent.parent / "jobs" / "graphile.cjs"


class Side(PostgresSide):
    """Its runner; the pushes come from a Node process, too."""

    left_sql = "SELECT count(*) FROM graphile_worker.jobs"

    def prepare(self) -> None:
        task = "job" if self.kind == "def" else "async_job"
        self._producer = subprocess.Popen(
            [*self._node("push"), task], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._answer()

    def one_by_one(self, number: int) -> float:
        return self._ask(f"one {number}")

    def bulk(self, number: int) -> None:
        self._ask(f"many {number}")

    def worker(self) -> list[str]:
        return [*self._node("work"), str(self.workers), "fastest" if self.fast else "recommended"]

    def _node(self, verb: str) -> list[str]:
        return [os.environ.get("NODE", "node"), str(SCRIPT), verb]

    def _ask(self, line: str) -> float:
        assert self._producer.stdin is not None
        print(line, file=self._producer.stdin, flush=True)
        return float(self._answer())

    def _answer(self) -> str:
        assert self._producer.stdout is not None
        line = self._producer.stdout.readline()
        if not line:
            raise RuntimeError("the Node producer ended")
        return line
