"""Run Jobify for Django beside its peers: ``python -m benchmarks.peers --store sqlite|postgresql|memory``."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from benchmarks import harness
from benchmarks.peers import environments, markdown, match
from benchmarks.peers.roster import CONTESTANTS, ROWS

SERVER = "postgres://postgres@127.0.0.1:5432"


def main() -> int:
    """Install, run, print the tables; 0 unless Jobify itself failed somewhere or somebody is missing."""
    arguments = _arguments()
    if arguments.tables:
        _show(json.loads(arguments.tables.read_text()), arguments)
        return 0
    document = _play(arguments)
    _show(document, arguments)
    ours = [result for result in document["results"] if result["contestant"] == "jobify-django"]
    return 1 if document["missing"] or any(result["failures"] for result in ours) else 0


def _show(document: dict[str, Any], arguments: argparse.Namespace) -> None:
    text = markdown.tables(document)
    print(text)
    if arguments.markdown:
        arguments.markdown.write_text(text)
    if arguments.page:
        page = arguments.page.read_text()
        arguments.page.write_text(markdown.replaced(page, document["store"], text))


def _play(arguments: argparse.Namespace) -> dict[str, Any]:
    contestants = [
        each for each in CONTESTANTS[arguments.store] if each.name in arguments.only or not arguments.only
    ]
    rows = [row for row in ROWS[arguments.store] if row.name in arguments.rows or not arguments.rows]
    entries, versions, missing = match.entries_of(contestants, arguments.python)
    server, administrator, described = "", "", None
    if arguments.store == "postgresql":
        server = urlsplit(arguments.server)._replace(path="/postgres").geturl()
        administrator = environments.python_for("jobify-django", arguments.python)
        described = json.loads(match.administer(administrator, server, "describe"))
    if arguments.install:
        rows = []
    document: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        "store": arguments.store,
        "machine": f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}",
        "rounds": arguments.rounds,
        "scale": arguments.scale,
        "note": arguments.note,
        "tree": _tree(),
        "server": described,
        "versions": versions,
        "missing": missing,
        "rows": [row.name for row in rows],
        "results": [],
    }

    def keep(results: list[match.Result]) -> None:
        document["results"] = [asdict(result) for result in results]
        if arguments.json:
            arguments.json.write_text(json.dumps(document, indent=1) + "\n")

    match.Match(
        arguments.store, entries, rows, arguments.rounds, arguments.scale, server, administrator
    ).play(keep)
    return document


def _tree() -> str:
    """Return the commit of this tree, marked if it was changed since."""
    told = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=harness.ROOT, capture_output=True, text=True
    )
    return told.stdout.strip() or "this tree"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("--store", choices=sorted(CONTESTANTS), default="sqlite")
    parser.add_argument("--only", type=str.split, default=[], metavar="'A B'", help="these contestants only")
    parser.add_argument("--rows", type=str.split, default=[], metavar="'A B'", help="these rows only")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of the whole (default 3)")
    parser.add_argument("--scale", type=float, default=1.0, help="multiply jobs and seconds (default 1)")
    parser.add_argument(
        "--server",
        default=os.environ.get("DATABASE_URL") or SERVER,
        help="where databases are made for --store postgresql (default DATABASE_URL, else loopback)",
    )
    parser.add_argument(
        "--python", default=environments.interpreter(), help="the interpreter that contestants run with"
    )
    parser.add_argument("--install", action="store_true", help="build the environments and stop")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure to FILE as well")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables to FILE as well")
    parser.add_argument("--page", type=Path, metavar="FILE", help="put the tables into their place in FILE")
    parser.add_argument("--note", default="", help="a sentence for the head of the tables")
    parser.add_argument("--tables", type=Path, metavar="JSON", help="only print the tables of an earlier run")
    arguments = parser.parse_args()
    _check(parser, arguments.only, [each.name for each in CONTESTANTS[arguments.store]])
    _check(parser, arguments.rows, [row.name for row in ROWS[arguments.store]])
    return arguments


def _check(parser: argparse.ArgumentParser, chosen: Sequence[str], names: Sequence[str]) -> None:
    if unknown := set(chosen) - set(names):
        parser.error(f"no such name: {', '.join(sorted(unknown))}; choose from {', '.join(names)}")


if __name__ == "__main__":
    sys.exit(main())
