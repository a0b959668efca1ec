"""The door of a contestant's process: ``python -m benchmarks.contestant BENCHMARK NAME < arguments.json``."""

from __future__ import annotations

import importlib
import json
import sys


def main() -> None:
    """Run one contestant with the arguments on standard input and print its figures as one JSON line."""
    _, benchmark, name = sys.argv
    contestant = importlib.import_module(f"benchmarks.{benchmark}").CONTESTANTS[name]
    arguments = json.loads(sys.stdin.read() or "{}")
    print(json.dumps(contestant(**arguments)), flush=True)


if __name__ == "__main__":
    main()
