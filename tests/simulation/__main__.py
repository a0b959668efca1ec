"""Hunt for seeds that break an invariant, or replay one."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Iterator

from tests.simulation.options import PROFILES, STORES


def main() -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="replay one seed, and print all of its trace")
    parser.add_argument("--seeds", default="0:", help="hunt from A up to B, as A:B")
    parser.add_argument("--seconds", type=float, default=10.0, help="hunt for so long, where B is not given")
    parser.add_argument("--store", choices=STORES, help="this one instead of the one drawn")
    parser.add_argument("--profile", choices=PROFILES, help="this one instead of the one drawn")
    parser.add_argument("--keep-going", action="store_true", help="go on after a seed that breaks")
    given = parser.parse_args()
    with _database():
        return _hunt(given) if given.seed is None else _replay(given)


@contextlib.contextmanager
def _database() -> Iterator[None]:
    """Make a database of our own."""
    os.environ.pop("JOBIFY_TEST_DIRECTORY", None)
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
    import django

    django.setup()
    from django.db import connection

    connection.creation.create_test_db(verbosity=0, autoclobber=True)
    try:
        yield
    finally:
        connection.creation.destroy_test_db("", verbosity=0)


def _replay(given: argparse.Namespace) -> int:
    from tests.simulation.simulation import Simulation
    from tests.simulation.world import Violation

    simulation = Simulation(given.seed, store=given.store, profile=given.profile)
    print(simulation.options)
    try:
        simulation.run()
    except Violation as violation:
        broken = violation
    else:
        broken = None
    print("\n".join(simulation.world.trace))
    print(f"seed {given.seed} holds" if broken is None else f"seed {given.seed} breaks: {broken}")
    return int(broken is not None)


def _hunt(given: argparse.Namespace) -> int:
    from tests.simulation.simulation import Simulation
    from tests.simulation.story import about
    from tests.simulation.world import Violation

    first, _, last = given.seeds.partition(":")
    seed, end = int(first or 0), int(last) if last else None
    began = time.perf_counter()
    played = calls = turns = broken = 0
    simulated = 0.0
    while seed < end if end is not None else time.perf_counter() - began < given.seconds:
        simulation = Simulation(seed, store=given.store, profile=given.profile)
        start = simulation.world.now
        try:
            simulation.run()
        except Violation as violation:
            broken += 1
            if not given.keep_going:
                print("\n".join(about(simulation.world.trace, str(violation))))
            drawn = f"{simulation.options.store}, {simulation.options.profile}"
            print(f"seed {seed} ({drawn}) breaks: {violation}")
        played += 1
        simulated += simulation.world.now - start
        calls += simulation.shared.calls
        turns += simulation.world.turns
        seed += 1
        if broken and not given.keep_going:
            break
    print(
        f"{played} seeds, {broken} broken: {simulated / 3600:.2f} simulated hours, {calls} store calls and "
        f"{turns} turns in {time.perf_counter() - began:.1f} s"
    )
    return int(broken > 0)


if __name__ == "__main__":
    sys.exit(main())
