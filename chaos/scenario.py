"""A scenario: its settings, what goes wrong in it, and how it is judged."""

from __future__ import annotations

import importlib
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from chaos import verdict
from chaos.database import KINDS
from chaos.ground import Ground
from chaos.verdict import Verdict

NAMES = (
    "kills", "restarts", "pauses", "network", "deploys", "poison", "bound", "ghosts", "clock", "snapshot",
    "crowd", "soak",
)  # fmt: skip

SETTINGS: Mapping[str, Any] = {
    "WORKERS": 4,
    "MAXSIZE": 200,
    "MAX_RUNNING": 14,
    "LEASE": 5,
    "GRACE": 20,
    "PUSH_TIMEOUT": 60,
}
"""``settings.JOBIFY`` where a scenario says nothing else. A short lease makes campaigns short."""


def load(name: str) -> ModuleType:
    """Return the scenario's module: ``run``, perhaps ``SETTINGS``, ``STORES``, ``judge``."""
    return importlib.import_module(f"chaos.scenarios.{name}")


def stores(name: str) -> tuple[str, ...]:
    """Return the kinds of database it makes sense on."""
    return getattr(load(name), "STORES", tuple(KINDS))


def play(name: str, store: str, *, seed: int, scale: float, keep: Path | None) -> Verdict:
    """Run a scenario from an empty database to its verdict."""
    scenario = load(name)
    settings = {**SETTINGS, **getattr(scenario, "SETTINGS", {})}
    if keep is not None:
        Path(keep).mkdir(parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix=f"chaos-{name}-", dir=keep))
    began = time.monotonic()
    try:
        with Ground(KINDS[store], directory, seed=seed, scale=scale, jobify=settings) as ground:
            scenario.run(ground)
            ground.finish()
            records, keys = ground.records()
            bound = getattr(scenario, "BOUND", settings["MAXSIZE"])
            pushes, runs = verdict.examine(
                ground.verdict, records, keys, ground.fleet, bound, settings["MAX_RUNNING"]
            )
            _no_failures(ground, records, getattr(scenario, "MAY_FAIL", ()))
            if hasattr(scenario, "judge"):
                scenario.judge(ground, records, pushes, runs)
            ground.verdict.hold("seconds", time.monotonic() - began)
            return ground.verdict
    finally:
        if keep is None:
            shutil.rmtree(directory, ignore_errors=True)


def _no_failures(ground: Ground, records: Mapping[str, Any], may_fail: tuple[str, ...]) -> None:
    """No job raises, so one that failed was failed by what runs it, after three crashes."""
    failed = [record for record in records.values() if record.status == "failed"]
    unlucky = [r for r in failed if r.crashes >= 3 and r.error.type == "jobify_django.Crashed"]
    ground.verdict.count("failed after three crashes", len(unlucky))
    wrong = [f"{r.id} {r.error.message}" for r in failed if r not in unlucky and r.task not in may_fail]
    ground.verdict.none("failed for nothing", wrong)
