"""One cell of the table, in a process and a directory of its own, with the contestant's interpreter.

``python -m benchmarks.peers.cell < arguments.json`` prints the figures as one JSON line. Rates are jobs a
second; moments are wall-clock, which all processes of a machine share.
"""

from __future__ import annotations

import importlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from benchmarks import harness
from benchmarks.peers import usage
from benchmarks.peers.counting import CountingRelay
from benchmarks.peers.sides.base import Side, Unsupported
from benchmarks.peers.tally import Tally

Figures = dict[str, float]
LOG = Path("worker.log")
PATIENCE = 75.0
"""Seconds that the jobs of a cell may take."""
SETTLING = 3.0
"""Seconds between the first job of an idle worker and the start of the measurement."""


class CellFailed(Exception):
    """The contestant did not do what it should; the message goes into the table's notes."""


def main() -> None:
    """Run the cell that standard input describes."""
    asked = json.loads(sys.stdin.read())
    module = importlib.import_module(f"benchmarks.peers.sides.{asked['side']}")
    options = {key: asked[key] for key in ("kind", "workers", "jobs", "fast")}
    try:
        figures = CELLS[asked["cell"]](module.Side(**options), asked)
    except Unsupported as missing:
        figures = {"unsupported": str(missing)}
    except CellFailed as failure:
        figures = {"failed": str(failure)}
    print("\n" + json.dumps(figures), flush=True)


def push(side: Side, asked: dict[str, Any]) -> Figures:
    """Push one by one while no worker runs."""
    return _pushed(side, asked["jobs"], side.one_by_one)


def push_many(side: Side, asked: dict[str, Any]) -> Figures:
    """Push all at once, while no worker runs."""
    return _pushed(side, asked["jobs"], side.bulk)


def _pushed(side: Side, jobs: int, way: Callable[[int], float | None]) -> Figures:
    side.prepare()
    side.one_by_one(10)
    server, began, used = Server(side), time.time(), _own_cpu()
    ended = way(jobs) or time.time()
    used = _own_cpu() - used
    if side.left() != jobs + 10:
        raise CellFailed(f"{side.left() - 10} of {jobs} jobs wait after the push")
    return {
        "rate": jobs / (ended - began),
        "cpu_us": used / jobs * 1e6,
        **server.figures(jobs),
    }


def drain(side: Side, asked: dict[str, Any]) -> Figures:
    """Start a worker over jobs that wait, and stop the clock when the last one is settled."""
    jobs = asked["jobs"]
    side.prepare()
    _fill(side, jobs)
    tally = Tally()
    spawned = time.time()
    with _worker(side) as process:
        _until(lambda: tally.count() >= 1, process, tally, jobs)
        server, used = Server(side), usage.cpu_seconds(process.pid)
        ended = _settled(side, process, tally, jobs)
        used = usage.cpu_seconds(process.pid) - used
        moments = tally.moments()
        began = min(moments)
        return {
            "rate": jobs / (ended - began),
            "begun_rate": (jobs - 1) / max(1e-6, max(moments) - began),
            "cpu_us": used / jobs * 1e6,
            "start_ms": (began - spawned) * 1e3,
            **server.figures(jobs),
        }


def both(side: Side, asked: dict[str, Any]) -> Figures:
    """Push one by one while a worker, known to be up, runs the jobs."""
    jobs = asked["jobs"]
    side.prepare()
    tally = Tally()
    with _worker(side) as process:
        side.one_by_one(1)
        _settled(side, process, tally, 1)
        server, used = Server(side), _own_cpu()
        began = time.time()
        pushed = side.one_by_one(jobs) or time.time()
        ended = _settled(side, process, tally, jobs + 1)
        used = _own_cpu() - used
        return {
            "rate": jobs / (ended - began),
            "push_rate": jobs / (pushed - began),
            "cpu_us": used / jobs * 1e6,
            **server.figures(jobs),
        }


def pickup(side: Side, asked: dict[str, Any]) -> Figures:
    """Push into an idle queue, with random gaps; from the push's return to the job's own first line."""
    side.prepare()
    tally, gaps = Tally(), random.Random(20)
    waits: list[float] = []
    with _worker(side) as process:
        side.one_by_one(1)
        _settled(side, process, tally, 1)
        deadline = time.monotonic() + asked["seconds"]
        while len(waits) < asked["jobs"] and (len(waits) < 20 or time.monotonic() < deadline):
            time.sleep(gaps.uniform(0.020, 0.060 + side.poll_seconds))
            pushed = side.one_by_one(1) or time.time()
            number = len(waits) + 2
            _until(_counted_to(tally, number), process, tally, number, pause=0.0005)
            waits.append(max(0.0, tally.moments(number - 1)[0] - pushed) * 1e3)
    return {
        "p50_ms": harness.percentile(waits, 50),
        "p95_ms": harness.percentile(waits, 95),
        "p99_ms": harness.percentile(waits, 99),
        "samples": len(waits),
    }


def idle(side: Side, asked: dict[str, Any]) -> Figures:
    """Start a worker with one job to do; then look at what it costs to have nothing to do."""
    side.prepare()
    side.one_by_one(1)
    tally = Tally()
    with _counted(side) as (environment, statements):
        spawned = time.time()
        with _worker(side, environment) as process:
            _settled(side, process, tally, 1)
            time.sleep(SETTLING)
            server = Server(side)
            used, sent, began = usage.cpu_seconds(process.pid), statements(), time.monotonic()
            time.sleep(asked["seconds"])
            seconds = time.monotonic() - began
            used = usage.cpu_seconds(process.pid) - used
            figures = {
                "start_ms": (tally.moments()[0] - spawned) * 1e3,
                "memory_mb": usage.resident_bytes(process.pid) / 1e6,
                "idle_percent": used / seconds * 100,
            }
            if not side.on_sqlite:
                figures["idle_statements"] = (statements() - sent) / seconds
            return {**figures, **server.figures(1, "idle_server_percent", seconds)}


def memory(side: Any, asked: dict[str, Any]) -> Figures:
    """Push and await in one process: one by one, so many at once, or all of them first."""
    side.prepare()
    side.run(min(200, asked["jobs"]), asked["together"])
    done, used, began = side.done(), time.process_time(), time.perf_counter()
    side.run(asked["jobs"], asked["together"])
    seconds, used = time.perf_counter() - began, time.process_time() - used
    if side.done() - done != asked["jobs"]:
        raise CellFailed(f"{side.done() - done} of {asked['jobs']} jobs ran")
    return {
        "rate": asked["jobs"] / seconds,
        "cpu_us": used / asked["jobs"] * 1e6,
        "memory_mb": usage.resident_bytes(os.getpid()) / 1e6,
    }


class Server:
    """The processor time of the PostgreSQL server since this was made, if it runs on this machine."""

    def __init__(self, side: Side) -> None:
        self._postmaster = None
        if not side.on_sqlite:
            import psycopg

            with psycopg.connect(side.dsn) as connection:
                self._postmaster = usage.postmaster(connection.info.backend_pid)
        self._used = self._seconds()

    def figures(self, jobs: int, name: str = "server_us", per_seconds: float | None = None) -> Figures:
        """Return the time a job took of the server, or per cent of a core."""
        if self._postmaster is None:
            return {}
        used = self._seconds() - self._used
        return {name: used / per_seconds * 100 if per_seconds else used / jobs * 1e6}

    def _seconds(self) -> float:
        return usage.cpu_seconds(self._postmaster) if self._postmaster else 0.0


def _counted_to(tally: Tally, number: int) -> Callable[[], bool]:
    return lambda: tally.count() >= number


def _fill(side: Side, jobs: int) -> None:
    try:
        side.bulk(jobs)
    except Unsupported:
        side.one_by_one(jobs)


def _settled(side: Side, process: subprocess.Popen[bytes], tally: Tally, jobs: int) -> float:
    """Wait until ``jobs`` jobs have run and none is left; return when that was."""
    _until(lambda: tally.count() >= jobs, process, tally, jobs)
    _until(lambda: side.left() == 0, process, tally, jobs)
    if tally.count() != jobs:
        raise CellFailed(f"{tally.count()} runs of {jobs} jobs")
    return time.time()


def _until(
    reached: Callable[[], bool],
    process: subprocess.Popen[bytes],
    tally: Tally,
    jobs: int,
    *,
    pause: float = 0.003,
) -> None:
    deadline = time.monotonic() + PATIENCE
    while not reached():
        if process.poll() is not None:
            raise CellFailed(f"its worker ended with {process.returncode}: {_last_words()}")
        if time.monotonic() > deadline:
            raise CellFailed(
                f"{tally.count()} of {jobs} jobs had run after {PATIENCE:.0f} s: {_last_words()}"
            )
        time.sleep(pause)


def _last_words() -> str:
    lines = LOG.read_text(errors="replace").strip().splitlines()
    return lines[-1][-300:] if lines else "it said nothing"


@contextmanager
def _worker(side: Side, environment: dict[str, str] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """Run the worker's process; nothing of its tree is left at the end."""
    with LOG.open("wb") as log:
        process = subprocess.Popen(
            side.worker(),
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            yield process
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask the worker to stop, and five seconds later end what is left of its tree."""
    family = usage.tree(process.pid)
    if process.poll() is None:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(5)
    for pid in family[1:]:
        if usage.group(pid) == os.getpgrp():  # a child of its own that it left behind
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    if process.poll() is None:
        process.kill()
        process.wait()


@contextmanager
def _counted(side: Side) -> Iterator[tuple[dict[str, str], Callable[[], int]]]:
    """Give a worker on PostgreSQL a way to the server that counts its statements."""
    if side.on_sqlite:
        yield {}, lambda: 0
        return
    url = urlsplit(side.dsn)
    with CountingRelay(url.hostname or "127.0.0.1", url.port or 5432) as relay:
        login = url.netloc.rpartition("@")[0]
        netloc = f"{login}@127.0.0.1:{relay.port}" if login else f"127.0.0.1:{relay.port}"
        yield {"PEERS_DSN": url._replace(netloc=netloc).geturl()}, lambda: relay.statements


def _own_cpu() -> float:
    """Return the processor time of this process and of all that it started."""
    return usage.cpu_seconds(os.getpid())


CELLS: dict[str, Callable[[Any, dict[str, Any]], dict[str, Any]]] = {
    "push": push,
    "push_many": push_many,
    "drain": drain,
    "both": both,
    "pickup": pickup,
    "idle": idle,
    "memory": memory,
}

if __name__ == "__main__":
    main()
