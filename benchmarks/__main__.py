"""Run the benchmarks: ``python -m benchmarks [NAME ...] [--json FILE]``."""

from __future__ import annotations

import argparse
import importlib
import json
import platform
import sqlite3
import sys
from pathlib import Path

import django

from benchmarks import harness

NAMES = ("memory", "push", "drain", "together", "pickup", "contention", "admission")


def main() -> int:
    """Run the chosen benchmarks, print the table, and return 0 when every target was met, else 1."""
    arguments = _arguments()
    options = harness.Options(repeats=arguments.repeats, scale=arguments.scale, seconds=arguments.seconds)
    targets: list[harness.Target] = []
    for name in arguments.names or NAMES:
        benchmark = importlib.import_module(f"benchmarks.{name}")
        harness.say(f"{name}: {(benchmark.__doc__ or '').splitlines()[0]}")
        targets += benchmark.measure(options)
    print(harness.table(targets))
    if arguments.json:
        arguments.json.write_text(json.dumps(_document(options, targets), indent=2) + "\n")
    return 0 if all(target.met for target in targets) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"one of {', '.join(NAMES)}; all without any"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE as well")
    parser.add_argument("--repeats", type=int, default=3, help="rounds per comparison (default 3)")
    parser.add_argument("--scale", type=float, default=1.0, help="multiply the number of jobs (default 1)")
    parser.add_argument(
        "--seconds", type=float, default=60.0, help="length of the contention run (default 60)"
    )
    arguments = parser.parse_args()
    unknown = set(arguments.names) - set(NAMES)
    if unknown:
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}; choose from {', '.join(NAMES)}")
    return arguments


def _document(options: harness.Options, targets: list[harness.Target]) -> dict[str, object]:
    return {
        "python": platform.python_version(),
        "django": django.get_version(),
        "sqlite": sqlite3.sqlite_version,
        "machine": platform.platform(),
        "options": vars(options),
        "targets": [target.as_dict() for target in targets],
    }


if __name__ == "__main__":
    sys.exit(main())
