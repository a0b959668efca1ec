"""Measure growth: ``python -m benchmarks.growth [CURVE ...] [--server URL] [--images docs/images]``."""

from __future__ import annotations

import argparse
import importlib
import json
import platform
import sys
from datetime import date
from pathlib import Path
from typing import Any

import django

from benchmarks import harness
from benchmarks.growth import svg
from benchmarks.growth.curve import Curve

MODULES = ("rows", "rates", "fairness")


def main() -> int:
    """Measure the chosen curves; write the figures and the pictures; return 0 when every point came about."""
    known = {
        name: (module, curve)
        for module in MODULES
        for name, curve in importlib.import_module(f"benchmarks.growth.{module}").CURVES.items()
    }
    arguments = _arguments(list(known))
    store = "postgresql" if arguments.server else "sqlite"
    document: dict[str, Any] = {
        "date": date.today().isoformat(),
        "machine": platform.platform(),
        "python": platform.python_version(),
        "django": django.get_version(),
        "store": store,
        "scale": arguments.scale,
        "curves": {},
    }
    if arguments.draw:
        document = json.loads(arguments.draw.read_text())
    else:
        for name in arguments.names or list(known):
            module, curve = known[name]
            document["curves"][name] = _measure(name, module, curve, arguments)
            if arguments.json:  # after each: the next may take long
                arguments.json.write_text(json.dumps(document, indent=1) + "\n")
    if arguments.images:
        for name, points in document["curves"].items():
            _draw(known[name][1], points, document, arguments.images)
    if not arguments.json and not arguments.draw:
        print(json.dumps(document, indent=1))
    return int(any(not points for points in document["curves"].values()))


def _measure(name: str, module: str, curve: Curve, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the points of a curve that could be measured, with x."""
    points = []
    for x in curve.xs:
        if arguments.most and x > arguments.most:
            continue
        try:
            found = harness.run(
                f"growth.{module}",
                curve.point.__name__,
                x=x,
                server=arguments.server,
                scale=arguments.scale,
                deadline=1800.0,
            )
        except harness.ContestantFailed as failed:
            harness.say(f"  {name} {x}: {failed}")
            continue
        harness.say(f"  {name} {x}: {harness.describe(found)}")
        points.append({"x": x, **found})
    return points


def _draw(curve: Curve, points: list[dict[str, Any]], document: dict[str, Any], images: Path) -> None:
    for chart in curve.charts:
        lines = {label: [(one["x"], one[key]) for one in points] for key, label in chart.series.items()}
        if not points:
            continue
        kinds = {"postgresql": "PostgreSQL", "sqlite": "SQLite"}
        note = f"{kinds[document['store']]}, Python {document['python']}, Django {document['django']}, "
        picture = svg.chart(
            chart.title, chart.x, chart.y, lines, log_y=chart.log_y, note=note + document["date"]
        )
        file = images / f"growth-{chart.name}-{document['store']}.svg"
        file.write_text(picture)
        harness.say(f"  {file}")


def _arguments(known: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="CURVE", help=f"of {', '.join(known)}; all without any")
    parser.add_argument("--server", default="", metavar="URL", help="a PostgreSQL server; SQLite without one")
    parser.add_argument("--scale", type=float, default=1.0, help="multiply jobs and seconds (default 1)")
    parser.add_argument("--most", type=int, default=0, metavar="X", help="leave out points beyond this")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures, after each curve")
    parser.add_argument("--images", type=Path, metavar="DIRECTORY", help="draw the curves into it")
    parser.add_argument("--draw", type=Path, metavar="FILE", help="measure nothing, draw these figures")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(known):
        parser.error(f"no such curve: {', '.join(sorted(unknown))}; choose from {', '.join(known)}")
    return arguments


if __name__ == "__main__":
    sys.exit(main())
