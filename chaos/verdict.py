"""What became of every job: the producers' ledger and the jobs' own held against the store and the logs."""

from __future__ import annotations

import re
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from chaos import ledger
from chaos.fleet import Fleet
from jobify_django.job import JobRecord, JobStatus

STORED = re.compile(r"event=(done|failed|cancelled|refused) id=(\S+) .*?attempt=(\d+)")
EXAMPLES = 3


class Start(NamedTuple):
    """One start of an attempt, as the job itself took it down."""

    key: str
    attempt: int
    pid: int
    at: float


@dataclass
class Verdict:
    """The counts of a campaign, and what of it breaks a promise."""

    counts: dict[str, int] = field(default_factory=dict)
    figures: dict[str, str] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)

    def count(self, name: str, number: int) -> None:
        """Take down a number."""
        self.counts[name] = number

    def none(self, name: str, found: Iterable[object]) -> None:
        """Take down how many there are of what must not be."""
        cases = [str(one) for one in found]
        self.counts[name] = len(cases)
        if cases:
            more = "" if len(cases) <= EXAMPLES else ", ..."
            self.broken.append(f"{len(cases)} {name}: {', '.join(cases[:EXAMPLES])}{more}")

    def hold(
        self, name: str, value: float, *, at_most: float | None = None, at_least: float | None = None
    ) -> None:
        """Take down a measured figure, and hold it against its limit."""
        limit = ""
        if at_most is not None:
            limit = f" (at most {at_most:g})"
        elif at_least is not None:
            limit = f" (at least {at_least:g})"
        self.figures[name] = f"{value:.4g}{limit}"
        if (at_most is not None and value > at_most) or (at_least is not None and value < at_least):
            self.broken.append(f"{name} {value:.4g}{limit}")

    def line(self) -> str:
        """Return it as one line."""
        parts = [f"{name} {number}" for name, number in self.counts.items()]
        parts += [f"{name} {text}" for name, text in self.figures.items()]
        return ", ".join(parts) + (": BROKEN" if self.broken else ": ok")


class Pushes:
    """The ledger of the producers, by key: when each was tried, and what the producer was told."""

    def __init__(self) -> None:
        self.tried: dict[str, float] = {}
        self.acknowledged: dict[str, str] = {}
        self.refused: set[str] = set()
        self.unknown: set[str] = set()
        self.cancelled: set[str] = set()
        self.seconds: list[float] = []
        """What each acknowledged push took."""
        told = {"R": self.refused, "K": self.unknown, "X": self.cancelled}
        for entry in ledger.read("pushes"):
            if entry.what == "A":
                key, id, took = entry.fields
                self.acknowledged[key] = id
                self.seconds.append(float(took))
            elif entry.what == "T":
                self.tried[entry.fields[0]] = entry.at
            else:
                told[entry.what].add(entry.fields[0])


class Runs:
    """The jobs' file, by id."""

    def __init__(self) -> None:
        self.starts: dict[str, list[Start]] = defaultdict(list)
        self.ends: dict[str, set[int]] = defaultdict(set)
        for entry in ledger.read("jobs"):
            key, id, attempt, pid = entry.fields
            if entry.what == "S":
                self.starts[id].append(Start(key, int(attempt), int(pid), entry.at))
            else:
                self.ends[id].add(int(attempt))

    @property
    def times(self) -> list[float]:
        """Return when jobs were started, in order."""
        return sorted(start.at for starts in self.starts.values() for start in starts)


def examine(
    verdict: Verdict,
    records: Mapping[str, JobRecord],
    keys: Mapping[str, str],
    fleet: Fleet,
    bound: int,
    cap: int | None,
) -> tuple[Pushes, Runs]:
    """Hold everything against everything.

    Args:
        verdict: where it is taken down.
        records: all jobs of the store, by id.
        keys: their keys, by id.
        fleet: the pools.
        bound: the most jobs that may ever have waited before their first start.
        cap: the most jobs that may ever have run at once.
    """
    pushes, runs = Pushes(), Runs()
    verdict.count("pushed", len(pushes.tried))
    verdict.count("acknowledged", len(pushes.acknowledged))
    verdict.count("refused", len(pushes.refused))
    verdict.count("unknown", len(pushes.unknown))
    verdict.count("ended", sum(record.status.ended for record in records.values()))
    _nothing_lost(verdict, pushes, runs, records, keys)
    _every_start_has_its_reason(verdict, runs, records)
    _nothing_stale(verdict, runs, records, fleet.logs)
    _within_bounds(verdict, bound, cap)
    verdict.none("surprising exits", fleet.surprises)
    return pushes, runs


def _nothing_lost(
    verdict: Verdict, pushes: Pushes, runs: Runs, records: Mapping[str, JobRecord], keys: Mapping[str, str]
) -> None:
    verdict.none(
        "lost",
        (key for key, id in pushes.acknowledged.items() if id not in records or not records[id].status.ended),
    )
    verdict.none("stuck", (f"{id} {r.status}" for id, r in records.items() if not r.status.ended))
    started = {start.key: id for id, starts in runs.starts.items() for start in starts}
    invented = {key for key in started if key not in pushes.tried or key in pushes.refused}
    invented |= {id for id in runs.starts if id not in records}
    verdict.none("invented", sorted(invented))
    twice = [key for key, many in Counter(keys.values()).items() if many > 1]
    verdict.none("pushed once and stored twice", twice)
    hollow = [
        id for id, r in records.items() if r.status is JobStatus.SUCCESSFUL and r.attempt not in runs.ends[id]
    ]
    verdict.none("ended without running", hollow)


def _every_start_has_its_reason(verdict: Verdict, runs: Runs, records: Mapping[str, JobRecord]) -> None:
    again, unexplained = [], []
    for id, record in records.items():
        starts = runs.starts.get(id, [])
        attempts = {start.attempt for start in starts}
        explained = {interruption.attempt for interruption in record.history}
        if len(starts) > 1:
            again.append(id)
        if (
            len(attempts) < len(starts)
            or max(attempts, default=0) > record.attempt
            or not explained >= set(range(1, record.attempt))
        ):
            unexplained.append(id)
    verdict.count("started again with a recorded reason", len(set(again) - set(unexplained)))
    verdict.none("started again without one", unexplained)


def _nothing_stale(
    verdict: Verdict, runs: Runs, records: Mapping[str, JobRecord], logs: Iterable[Path]
) -> None:
    accepted: dict[str, list[int]] = defaultdict(list)
    refused = 0
    for log in logs:
        with log.open(errors="replace") as lines:
            for line in lines:
                found = STORED.search(line) if "event=" in line else None
                if found and found[1] == "refused":
                    refused += 1
                elif found:
                    accepted[found[2]].append(int(found[3]))
    stale = {id for id, attempts in accepted.items() if id in records and attempts != [records[id].attempt]}
    stale |= {
        id
        for id, record in records.items()
        if record.status is JobStatus.SUCCESSFUL and record.result != str(record.attempt)
    }
    verdict.none("stale writes accepted", sorted(stale))
    verdict.count("stale writes refused", refused)


def _within_bounds(verdict: Verdict, bound: int, cap: int | None) -> None:
    samples = 0
    over, busy = [], []
    deepest = most = 0
    for entry in ledger.read("samples"):
        many, _, fresh, running = map(int, entry.fields)
        samples += many
        deepest, most = max(deepest, fresh), max(most, running)
        if fresh > bound:
            over.append(fresh)
        if cap is not None and running > cap:
            busy.append(running)
    verdict.count("samples", samples)
    verdict.count(f"deepest of {bound}", deepest)
    verdict.none("over the bound", over)
    if cap is not None:
        verdict.count(f"most running of {cap}", most)
        verdict.none("over MAX_RUNNING", busy)


def rescue_delays(fleet: Fleet, runs: Runs, records: Mapping[str, JobRecord]) -> list[float]:
    """Return how long after the death of their pool jobs were taken from it."""
    epoch = time.time() - time.monotonic()
    deaths = {death.pid: death.at for death in fleet.deaths}
    delays = []
    for id, record in records.items():
        pids = {start.attempt: start.pid for start in runs.starts.get(id, [])}
        for interruption in record.history:
            pid = pids.get(interruption.attempt)
            if interruption.charged and pid in deaths:
                delays.append(interruption.at - epoch - deaths[pid])
    return delays


def percentile(values: Iterable[float], percent: float) -> float:
    """Return the value that so many per cent don't exceed; 0 without any."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] if ordered else 0.0
