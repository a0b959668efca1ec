"""The quick part of the chaos campaign, so that it is known to work: real processes, small sizes."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.child import PATIENCE, Child
from tests.requirement import need_module

LONGEST = 4 * PATIENCE


def campaign(name: str, store: str, scale: float) -> Child:
    # Not in pytest's own directories: they are closed to the user that a server runs as.
    return Child(["-m", "chaos", name, f"--store={store}", "--seed=7", f"--scale={scale}"], dict(os.environ))


def assert_whole(name: str, store: str, scale: float) -> str:
    """Play a scenario, and return its line."""
    with campaign(name, store, scale) as child:
        code = child.end(patience=LONGEST)
        child.read_out()
        assert code == 0, child.output
        return child.wait_for("pushed ")


@pytest.mark.parametrize(
    ("name", "scale", "said"),
    [
        ("kills", 0.02, "kills 4"),
        ("pauses", 0.02, "pauses 2"),
        ("deploys", 0.06, "deploys 2"),
        ("bound", 0.005, "over the bound 0"),
    ],
)
def test_on_sqlite_nothing_is_lost_whatever_dies(name: str, scale: float, said: str) -> None:
    assert said in assert_whole(name, "sqlite", scale)


@pytest.mark.parametrize(
    ("name", "scale", "said"),
    [("kills", 0.01, "kills 2"), ("restarts", 0.02, "restarts 2")],
)
def test_on_postgresql_nothing_is_lost_whatever_breaks(name: str, scale: float, said: str) -> None:
    need_module("psycopg", "databases")
    assert said in assert_whole(name, "postgresql", scale)


def test_an_interrupted_campaign_leaves_no_process_behind() -> None:
    with campaign("kills", "sqlite", 1) as child:
        child.wait_for("1 kills")
        children = Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()
        assert len(children) > 4
        assert child.end(signal.SIGINT) == 130
    assert [pid for pid in children if Path(f"/proc/{pid}").exists()] == []
