"""Eight producers at a queue with hardly any room: how evenly they get it, and how long each waits."""

from __future__ import annotations

import json
import os
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks import harness
from benchmarks.growth.curve import Chart, Curve
from benchmarks.growth.site import pools, site

PRODUCERS = 8
TIMEOUT = 10.0
GO = Path("go")


def point(x: int, server: str, scale: float) -> dict[str, Any]:
    """Let eight processes push into a queue of at most ``x``, beside a pool of 10 workers."""
    seconds = max(3.0, 20 * scale)
    with site(server, WORKERS=10, MAXSIZE=x, PUSH_TIMEOUT=TIMEOUT), pools(1), ExitStack() as stack:
        name = "growth.fairness"
        started = [
            stack.enter_context(harness.start(name, "producer", os.getcwd())) for _ in range(PRODUCERS)
        ]
        for number, process in enumerate(started):
            assert process.stdin is not None
            process.stdin.write(json.dumps({"number": number, "seconds": seconds}))
            process.stdin.close()
            process.stdin = None  # communicate() would flush it
        _wait_for(*[_ready(number) for number in range(PRODUCERS)])
        GO.touch()
        found = [
            harness.figures("producer", process.returncode, *output)
            for process in started
            for output in [process.communicate(timeout=seconds + 90)]
        ]
    if not any(one["waits_ms"] for one in found):
        raise harness.ContestantFailed("nobody could push")
    waits = [wait for one in found for wait in one["waits_ms"]]
    shares = sorted(len(one["waits_ms"]) for one in found)
    return {
        "pushes_per_s": len(waits) / seconds,
        "wait_p50_ms": harness.percentile(waits, 50),
        "wait_p99_ms": harness.percentile(waits, 99),
        "wait_max_ms": max(waits),
        "fewest_pushes": shares[0],
        "most_pushes": shares[-1],
        "refused": sum(one["refused"] for one in found),
    }


def producer(number: int, seconds: float) -> dict[str, Any]:
    """Push so long, once all are there; return what each push took, and how many were refused."""
    import django

    django.setup()
    from benchmarks.growth.app.tasks import noop
    from jobify_django import QueueFull

    waits, refused = [], 0
    _ready(number).touch()
    _wait_for(GO)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        began = time.perf_counter()
        try:
            noop.push()
        except QueueFull:
            refused += 1
        else:
            waits.append((time.perf_counter() - began) * 1000)
    return {"waits_ms": waits, "refused": refused}


def _ready(number: int) -> Path:
    return Path(f"ready-{number}")


def _wait_for(*files: Path) -> None:
    deadline = time.monotonic() + 60
    while not all(file.exists() for file in files):
        if time.monotonic() > deadline:
            raise harness.ContestantFailed(f"{', '.join(map(str, files))} did not come about")
        time.sleep(0.01)


CONTESTANTS = {"point": point, "producer": producer}
CURVES = {
    "fairness": Curve(
        point,
        (1, 5, 20, 100),
        [
            Chart(
                "fairness",
                "Eight producers at a full queue: waits",
                "maxsize",
                "milliseconds",
                {"wait_p50_ms": "p50", "wait_p99_ms": "p99", "wait_max_ms": "longest"},
                log_y=True,
            ),
            Chart(
                "fairness-share",
                "Eight producers at a full queue: pushes of each",
                "maxsize",
                "pushes",
                {"fewest_pushes": "who pushed least", "most_pushes": "who pushed most"},
            ),
        ],
    )
}
