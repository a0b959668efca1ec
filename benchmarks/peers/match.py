"""Lets the contestants run in turn: all of a row, row after row, round after round."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from benchmarks import harness
from benchmarks.peers import environments
from benchmarks.peers.roster import Contestant, Row

DEADLINE = 180.0
"""Seconds after which a cell is ended, whatever it does."""


@dataclass(frozen=True)
class Entry:
    """A contestant in one set-up, with the environment it runs in."""

    contestant: Contestant
    setup: str
    python: str
    node: str = ""

    @property
    def name(self) -> str:
        """Return how progress and results call it."""
        return f"{self.contestant.name} ({self.setup})"


@dataclass
class Result:
    """What one entry did in one row: the figures of each round, or why there are none."""

    row: str
    contestant: str
    setup: str
    runs: list[dict[str, float]] = field(default_factory=list)
    unsupported: str = ""
    failures: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Match:
    """What the command line chose. ``server`` is the address of a PostgreSQL server, for that store only."""

    store: str
    entries: Sequence[Entry]
    rows: Sequence[Row]
    rounds: int
    scale: float
    server: str
    administrator: str

    def play(self, keep: Callable[[list[Result]], None]) -> list[Result]:
        """Run everything; return a result for each row and entry. After each row, hand on what there is."""
        results = {
            (row.name, entry.name): Result(row.name, entry.contestant.name, entry.setup)
            for row in self.rows
            for entry in self.entries
        }
        for number in range(1, self.rounds + 1):
            for row in self.rows:
                for entry in self.entries:
                    self._turn(number, row, entry, results[row.name, entry.name])
                keep(list(results.values()))
        return list(results.values())

    def _turn(self, number: int, row: Row, entry: Entry, result: Result) -> None:
        if result.unsupported or (result.failures and not result.runs):
            return  # it failed in the first round: it would cost its patience again in each
        figures = self._cell(row, entry)
        if "unsupported" in figures:
            result.unsupported = figures["unsupported"]
        elif "failed" in figures:
            result.failures.append(figures["failed"])
        else:
            result.runs.append(figures)
        said = figures.get("failed") or figures.get("unsupported") or harness.describe(figures)
        harness.say(f"round {number}/{self.rounds} {row.name} {entry.name}: {said}")

    def _cell(self, row: Row, entry: Entry) -> dict[str, Any]:
        jobs = max(50, round(row.jobs * self.scale * entry.contestant.pace.get(entry.setup, 1.0)))
        jobs -= jobs % row.together if row.together > 1 and jobs > row.together else 0
        asked = {
            "side": entry.contestant.side,
            "cell": row.cell,
            "kind": row.kind,
            "workers": row.workers,
            "fast": entry.setup == "fastest",
            "jobs": max(jobs, row.together),
            "seconds": max(3.0, row.seconds * self.scale),
            "together": row.together,
        }
        with tempfile.TemporaryDirectory(prefix="peers-") as directory, self._database(directory) as dsn:
            return _run(entry, asked, directory, dsn)

    @contextmanager
    def _database(self, directory: str) -> Iterator[str]:
        if self.store != "postgresql":
            yield f"sqlite://{directory}/peers.sqlite3"
            return
        name = f"jobify_peers_{uuid.uuid4().hex[:12]}"
        administer(self.administrator, self.server, "create", name)
        try:
            yield urlsplit(self.server)._replace(path=f"/{name}").geturl()
        finally:
            administer(self.administrator, self.server, "drop", name)


def administer(python: str, server: str, *arguments: str) -> str:
    """Run ``benchmarks.peers.database``; return what it printed. Raises ContestantFailed."""
    command = [python, "-m", "benchmarks.peers.database", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(harness.ROOT), "PEERS_SERVER": server}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    if done.returncode:
        raise harness.ContestantFailed(f"the PostgreSQL server at {server}: {done.stderr[-500:]}")
    return done.stdout


def _run(entry: Entry, asked: dict[str, Any], directory: str, dsn: str) -> dict[str, Any]:
    """Run one cell in a process group of its own, of which nothing is left afterwards."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(harness.ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PEERS_DSN": dsn,
        "PEERS_TALLY": str(Path(directory) / "tally"),
        "PEERS_NODE": entry.node,
    }
    environment.pop("DJANGO_SETTINGS_MODULE", None)
    process = subprocess.Popen(
        [entry.python, "-m", "benchmarks.peers.cell"],
        cwd=directory,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        output, errors = process.communicate(json.dumps(asked), timeout=DEADLINE)
    except subprocess.TimeoutExpired:
        return {"failed": f"not done after {DEADLINE:.0f} s"}
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    lines = output.strip().splitlines()
    if process.returncode or not lines:
        last = errors.strip().splitlines()[-1:] or ["it said nothing"]
        return {"failed": f"ended with {process.returncode}: {last[0][-300:]}"}
    figures: dict[str, Any] = json.loads(lines[-1])
    return figures


def entries_of(
    contestants: Sequence[Contestant], python: str
) -> tuple[list[Entry], dict[str, dict[str, str]], dict[str, str]]:
    """Install the contestants; return who can play, everybody's versions, and why others cannot."""
    entries, versions, missing = [], {}, {}
    for contestant in contestants:
        try:
            own = environments.python_for(contestant.environment, python)
            node = environments.node_modules(contestant.node) if contestant.node else ""
        except environments.NotInstalled as reason:
            missing[contestant.name] = str(reason)
            harness.say(f"\n!!! {contestant.title} IS LEFT OUT: {reason}\n")
            continue
        versions[contestant.name] = environments.versions(own, node)
        entries += [Entry(contestant, setup, own, node) for setup in contestant.setups]
    return entries, versions, missing
