"""Run the chaos campaign: ``python -m chaos [SCENARIO ...] [--store S] [--seed 7] [--scale 0.1]``."""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
from pathlib import Path

from chaos.database import KINDS
from chaos.scenario import NAMES, play, stores


def main() -> int:
    """Run the chosen scenarios, print a line for each, and return 1 when a promise was broken, else 0."""
    # A campaign that is ended tidies up as one that is interrupted.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    arguments = _arguments()
    names = [name for name in arguments.names or NAMES if arguments.names or arguments.store in stores(name)]
    if len(names) > 1:
        return _each_in_its_own_process(names, arguments)
    (name,) = names
    print(f"chaos {name} store={arguments.store} seed={arguments.seed} scale={arguments.scale:g}", flush=True)
    verdict = play(name, arguments.store, seed=arguments.seed, scale=arguments.scale, keep=arguments.keep)
    print(f"  {verdict.line()}")
    for broken in verdict.broken:
        print(f"  BROKEN: {broken}")
    return 1 if verdict.broken else 0


def _each_in_its_own_process(names: list[str], arguments: argparse.Namespace) -> int:
    # Django can be set up for one database only.
    options = [f"--store={arguments.store}", f"--seed={arguments.seed}", f"--scale={arguments.scale}"]
    if arguments.keep is not None:
        options.append(f"--keep={arguments.keep}")
    codes = []
    for name in names:
        child = subprocess.Popen([sys.executable, "-m", "chaos", name, *options])
        try:
            codes.append(child.wait())
        except KeyboardInterrupt:
            child.terminate()
            child.wait()
            raise
    return 1 if any(codes) else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m chaos", description=__doc__)
    parser.add_argument(
        "names",
        nargs="*",
        metavar="SCENARIO",
        help=f"of {', '.join(NAMES)}; without any all that fit the store",
    )
    parser.add_argument("--store", choices=KINDS, default="sqlite", help="the database (default sqlite)")
    parser.add_argument("--seed", type=int, default=random.randrange(10_000), help="of every choice")
    parser.add_argument("--scale", type=float, default=1.0, help="multiply the sizes (default 1)")
    parser.add_argument("--keep", type=Path, metavar="DIRECTORY", help="keep all files under DIRECTORY")
    arguments = parser.parse_args()
    for name in arguments.names:
        if name not in NAMES:
            parser.error(f"no such scenario: {name}; choose from {', '.join(NAMES)}")
        if arguments.store not in stores(name):
            parser.error(f"{name} is for {', '.join(stores(name))}")
    return arguments


if __name__ == "__main__":
    try:
        code = main()
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)
