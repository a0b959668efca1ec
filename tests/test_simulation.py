"""The pools' own code in simulated processes, under virtual time, while things go wrong."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.db import connection

from jobify_django.outcome import Outcome
from jobify_django.pool.completer import Completer
from tests.simulation.luck import Luck
from tests.simulation.mutants import BLIND_SPOTS, MUTANTS
from tests.simulation.options import STORES
from tests.simulation.planting import PACKAGE, misfits, planted
from tests.simulation.simulation import Simulation
from tests.simulation.story import about
from tests.simulation.view import Fault
from tests.simulation.world import Violation

ROOT = Path(__file__).parent.parent
A_TEST = 20
SEEDS = 200

ONCE_BROKEN: list[tuple[str, int, dict[str, str]]] = [
    ("a paused queue with a due job let pools turn in a circle", 38, {}),
    ("a job that had ended was reported lost", 7, {}),
    ("a job that a stopping pool handed back was reported lost", 0, {"profile": "crowded"}),
    ("a pool backed off for longer than its leases", 957, {"store": "database", "profile": "everything"}),
]
"""What was wrong, and a seed that shows it. All but the last are mutants too, whatever becomes of these."""

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(
        connection.vendor != "sqlite", reason="plays on memory and SQLite, also in processes of its own"
    ),
]


def play(seed: int, **options: Any) -> Simulation:
    """Play one seed, and show its trace where an invariant breaks."""
    simulation = Simulation(seed, **options)
    try:
        return simulation.run()
    except Violation as violation:
        trace = "\n".join(about(simulation.world.trace, str(violation)))
        pytest.fail(
            f"{trace}\n\nseed {seed} breaks: {violation}\n"
            f"All of it: python -m tests.simulation --seed {seed}",
            pytrace=False,
        )


@pytest.mark.parametrize("first", range(0, SEEDS, A_TEST))
def test_whatever_goes_wrong_every_invariant_holds(first: int) -> None:
    for seed in range(first, first + A_TEST):
        play(seed)


@pytest.mark.parametrize(("seed", "options"), [pytest.param(*kept, id=was) for was, *kept in ONCE_BROKEN])
def test_what_once_broke_an_invariant_holds(seed: int, options: dict[str, str]) -> None:
    play(seed, **options)


@pytest.mark.parametrize("store", STORES)
def test_a_seed_is_the_same_story_each_time(store: str) -> None:
    stories = [play(17, store=store, profile="everything").world.trace for _ in range(2)]

    assert stories[0] == stories[1]
    assert len(stories[0]) > 50


def test_a_seed_is_the_same_story_in_every_process() -> None:
    command = [sys.executable, "-m", "tests.simulation", "--seed", "17", "--profile", "everything"]
    stories = [
        subprocess.run(
            command,
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    ]

    assert "seed 17 holds" in stories[0]
    assert stories[0] == stories[1]


def test_every_mutant_can_be_planted() -> None:
    assert misfits(MUTANTS, ROOT) == []


def test_what_every_mutant_is_planted_in_compiles_and_is_another_program() -> None:
    for mutant in MUTANTS:
        file, text = planted(mutant, ROOT)

        compile(text, file, "exec")
        assert ast.dump(ast.parse(text)) != ast.dump(ast.parse(file.read_text())), mutant.name


def test_every_mutant_can_be_planted_however_the_code_is_written(tmp_path: Path) -> None:
    for file in (ROOT / PACKAGE).rglob("*.py"):
        copy = tmp_path / file.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(_written_otherwise(file.read_text()))

    assert misfits(MUTANTS, tmp_path) == []
    for mutant in MUTANTS:
        here, there = (planted(mutant, house)[1] for house in (ROOT, tmp_path))
        assert _written_otherwise(here) == _written_otherwise(there), mutant.name


def _written_otherwise(source: str) -> str:
    """Return the same program without its comments, with other quotes and line breaks, also in its SQL."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and re.search("UPDATE|SELECT", node.value)
        ):
            node.value = re.sub(r"\s+(?=\S)", "\n\t", node.value)
    return ast.unparse(tree)


def test_the_tests_that_look_for_mutants_are_there() -> None:
    for named in BLIND_SPOTS:
        file, _, test = named.partition("::")
        assert f"def {test}" in (ROOT / file).read_text()


def test_a_planted_bug_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    # Outcomes are dropped where the store fails; tests/simulation/mutants.py plants the others.
    monkeypatch.setattr(Completer, "put_back", lambda self, outcomes: None)

    def hunt() -> None:
        for seed in range(20):
            Simulation(seed, profile="flaky").run()

    with pytest.raises(Violation):
        hunt()


@pytest.mark.parametrize("store", ["memory on threads", "database"])
def test_no_outcome_waits_longer_than_5_ms_for_others(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Where no call takes time, what passes between a job's end and the turn that stores it is only a wait for
    # others: they share a commit, and nobody may pay more for it.
    monkeypatch.setattr(Luck, "fault", lambda self, process, verb: Fault())
    add, take = Completer.add, Completer.take
    ended: dict[int, float] = {}
    waited: list[float] = []

    def noting(self: Completer, outcome: Outcome) -> None:
        ended[id(outcome)] = world.now
        add(self, outcome)

    def noted(self: Completer) -> list[Outcome]:
        taken = take(self)
        waited.extend(world.now - ended.pop(id(outcome)) for outcome in taken)
        return taken

    monkeypatch.setattr(Completer, "add", noting)
    monkeypatch.setattr(Completer, "take", noted)
    for seed in range(10):
        simulation = Simulation(seed, store=store, profile="calm")
        world = simulation.world
        simulation.run()
    assert len(waited) > 100
    assert 0 < max(waited) <= 0.005
