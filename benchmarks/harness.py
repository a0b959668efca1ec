"""What every benchmark shares: run contestants in processes of their own, and judge their figures.

A *contestant* is a function of a benchmark module listed in its ``CONTESTANTS``. It runs in a fresh
interpreter whose working directory is an empty temporary one, takes JSON-able keyword arguments, and returns
a JSON-able dict.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parent.parent

Figures = dict[str, Any]


class ContestantFailed(Exception):
    """A contestant ended with an error or printed no figures; the message holds the end of what it said."""


@dataclass(frozen=True)
class Options:
    """What the command line chose.

    ``scale`` multiplies the number of jobs, ``repeats`` is how often each contestant runs, ``seconds`` is how
    long the contention benchmark and the idle measurement last at most.
    """

    repeats: int = 3
    scale: float = 1.0
    seconds: float = 60.0

    def jobs(self, number: int) -> int:
        """Return ``number`` scaled, at least 50."""
        return max(50, round(number * self.scale))


@dataclass(frozen=True)
class Target:
    """One line of the table: a figure, what it is held against, and whether it is met."""

    name: str
    measured: float
    unit: str
    goal: str
    met: bool
    against: str = ""
    reference: float | None = None
    ratio: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the line as a plain dict, for JSON."""
        return asdict(self)


def compare(
    name: str, ours: Sequence[float], theirs: Sequence[float], *, against: str, unit: str, at_least: float
) -> Target:
    """Hold our rates (higher is better) against the rates of a rival or a bare bound from the same rounds.

    The ratio is the median of the rounds' own ratios, so that a slow minute of the machine slows both sides.
    """
    ratios = [mine / other for mine, other in zip(ours, theirs, strict=True)]
    ratio = median(ratios)
    return Target(
        name=name,
        measured=median(ours),
        unit=unit,
        goal=f">= {at_least:g} x",
        met=ratio >= at_least,
        against=against,
        reference=median(theirs),
        ratio=ratio,
        ratio_low=min(ratios),
        ratio_high=max(ratios),
    )


def limit(name: str, value: float, *, unit: str, below: float) -> Target:
    """Hold one figure (lower is better) against a fixed limit."""
    return Target(name=name, measured=value, unit=unit, goal=f"< {below:g} {unit}", met=value < below)


def interleave(
    benchmark: str, contestants: dict[str, dict[str, Any]], repeats: int
) -> dict[str, list[Figures]]:
    """Run the contestants in turn, ``repeats`` rounds of A B C, and return each one's runs by name."""
    runs: dict[str, list[Figures]] = {name: [] for name in contestants}
    for round_number in range(repeats):
        for name, arguments in contestants.items():
            runs[name].append(run(benchmark, name, **arguments))
            say(f"  {benchmark} {name} round {round_number + 1}/{repeats}: {describe(runs[name][-1])}")
    return runs


def run(benchmark: str, contestant: str, *, deadline: float = 600.0, **arguments: Any) -> Figures:
    """Run one contestant in its own interpreter and temporary directory; return the figures it printed.

    Raises ContestantFailed when it fails, prints no figures, or takes longer than ``deadline`` seconds.
    """
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as directory,
        start(benchmark, contestant, directory) as process,
    ):
        try:
            output, errors = process.communicate(json.dumps(arguments), timeout=deadline)
        except subprocess.TimeoutExpired:
            raise ContestantFailed(f"{benchmark} {contestant} took longer than {deadline:g} s") from None
    return figures(f"{benchmark} {contestant}", process.returncode, output, errors)


def start(
    benchmark: str, contestant: str, directory: str | Path
) -> AbstractContextManager[subprocess.Popen[str]]:
    """Start one contestant in ``directory``; it reads its arguments from standard input."""
    return running(
        [sys.executable, "-m", "benchmarks.contestant", benchmark, contestant],
        cwd=directory,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def figures(name: str, code: int, output: str, errors: str) -> Figures:
    """Return the JSON object on the last line of ``output``; raise ContestantFailed when there is none."""
    lines = output.strip().splitlines()
    if code != 0 or not lines:
        raise ContestantFailed(f"{name} ended with {code}:\n{errors[-3000:]}")
    return json.loads(lines[-1])


@contextmanager
def running(command: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[str]]:
    """Start a process that can import this repository, and see that it is gone at the end of the block.

    One that still runs then is asked to stop (TERM) and, 15 seconds later, killed.
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **options.pop("env", {})}
    process = subprocess.Popen(list(command), env=environment, **options)
    try:
        yield process
    finally:
        stop(process)


def stop(process: subprocess.Popen[str]) -> None:
    """End a process: TERM, then KILL after 15 seconds."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest value that at least ``percent`` per cent of ``values`` don't exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def describe(one_run: Figures) -> str:
    """Return the numbers of a run on one line."""
    return ", ".join(
        f"{key} {value:,.4g}" if isinstance(value, float) else f"{key} {value}"
        for key, value in one_run.items()
        if isinstance(value, int | float)
    )


def say(line: str) -> None:
    """Print progress, apart from the results."""
    print(line, file=sys.stderr, flush=True)


def table(targets: Sequence[Target]) -> str:
    """Lay the targets out as a table for people."""
    header = ("target", "measured", "against", "its figure", "ratio (range)", "goal", "met")
    rows = [header, *(_row(target) for target in targets)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def _row(target: Target) -> tuple[str, ...]:
    ratio = ""
    if target.ratio is not None:
        ratio = f"{target.ratio:.2f} ({target.ratio_low:.2f}-{target.ratio_high:.2f})"
    return (
        target.name,
        f"{_number(target.measured)} {target.unit}",
        target.against,
        "" if target.reference is None else f"{_number(target.reference)} {target.unit}",
        ratio,
        target.goal,
        "yes" if target.met else "NO",
    )


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.2f}"
