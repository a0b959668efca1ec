"""Run the contestants for long: ``python -m benchmarks.long_run [NAME ...]`` (an hour each by default)."""

from __future__ import annotations

import argparse
import json
import platform
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict, fields
from datetime import date
from pathlib import Path
from typing import Any

from benchmarks import harness
from benchmarks.long_run import course, report


def main() -> int:
    """Run them one after the other or at the same time; write the figures; return 0 when all went through."""
    arguments = _arguments()
    plan = course.Plan(**{field.name: getattr(arguments, field.name) for field in fields(course.Plan)})
    document: dict[str, Any] = {
        "date": date.today().isoformat(),
        "machine": f"{platform.platform()}, {platform.machine()}",
        "plan": {**asdict(plan), "server": ""},
        "together": arguments.together,
        "contestants": {},
    }
    names = arguments.names or list(course.ENVIRONMENTS)
    threads = [threading.Thread(target=_run, args=(name, plan, document)) for name in names]
    for thread in threads:
        thread.start()
        if not arguments.together:
            thread.join()
    for thread in threads:
        thread.join()
    table = report.markdown(document)
    print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps(document, indent=1) + "\n")
    if arguments.markdown:
        arguments.markdown.write_text(table)
    return int(any("failed" in one for one in document["contestants"].values()))


def _run(name: str, plan: course.Plan, document: dict[str, Any]) -> None:
    try:
        document["contestants"][name] = course.run(name, plan, _teller(name))
    except Exception as error:  # the others go on
        harness.say(f"{name}: {error!r}")
        document["contestants"][name] = {"failed": f"{type(error).__name__}: {error}"}


def _teller(name: str) -> Callable[[dict[str, Any]], None]:
    return lambda sample: harness.say(f"  {name} {harness.describe(sample)}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.long_run", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(course.ENVIRONMENTS)}")
    plan = course.Plan()
    parser.add_argument("--server", default=plan.server, help=f"PostgreSQL (default {plan.server})")
    parser.add_argument("--rate", type=float, default=plan.rate, help="jobs a second (default 500)")
    parser.add_argument("--depth", type=int, default=0, help="keep so many waiting instead of a rate")
    parser.add_argument("--work-ms", type=float, default=0.0, help="how long a job takes (default 0)")
    parser.add_argument("--batch", type=int, default=plan.batch, help="jobs in one push (default 5)")
    parser.add_argument("--workers", type=int, default=plan.workers, help="jobs at once (default 10)")
    parser.add_argument("--seconds", type=float, default=plan.seconds, help="length (default 3600)")
    parser.add_argument("--every", type=float, default=plan.every, help="seconds a sample (default 10)")
    parser.add_argument("--held", type=float, help="seconds a snapshot is held (default: a third)")
    parser.add_argument("--snapshot-from", type=float, help="when it is taken (default: after a third)")
    parser.add_argument("--together", action="store_true", help="all at the same time; WAL is then of all")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the samples")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(course.ENVIRONMENTS):
        parser.error(f"no such contestant: {', '.join(sorted(unknown))}")
    if arguments.seconds < 3 * arguments.every:
        parser.error(
            f"--seconds {arguments.seconds:g} is too short for a sample every {arguments.every:g} s: give "
            "--every too, of a third of it at most"
        )
    for name in ("held", "snapshot_from"):
        if getattr(arguments, name) is None:
            setattr(arguments, name, arguments.seconds / 3)
    return arguments


if __name__ == "__main__":
    sys.exit(main())
