"""One million pushes from 8 processes, one by one and up to 20 at once, into a queue of 50."""

from __future__ import annotations

from chaos.ground import Ground

SETTINGS = {"MAXSIZE": 50, "MAX_RUNNING": None, "WORKERS": 20}
JOBS, PRODUCERS = 1_000_000, 8


def run(ground: Ground) -> None:
    """Push as fast as there is room; a quarter of the producers does not wait for it, and is refused."""
    ground.fleet.verbosity = 0  # a line a job is a million lines
    ground.begin(2)
    pushes = ground.jobs(JOBS) // 2
    order = {"processes": PRODUCERS // 4, "shortest": 0, "longest": 0, "tasks": ("awork",)}
    ground.produce(pushes // 4, **order)
    ground.produce(pushes // 4, most=20, **order)
    ground.produce(pushes // 2, most=20, patience=0, **order)
    ground.produce(pushes, patience=0, **order)
    ground.drain()
