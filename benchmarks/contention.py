"""Eight processes push to one SQLite file while two pools claim from it and a sampler watches the bound."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections import Counter
from contextlib import ExitStack
from typing import Any

from benchmarks import harness, project

PUSHERS = 8
POOLS = 2
MAXSIZE = 100
START_UP_SECONDS = 8.0


def measure(options: harness.Options) -> list[harness.Target]:
    """Run the crowd once and judge errors, the bound, lost jobs, and the pushes' latency."""
    figures = harness.run("contention", "ours", seconds=options.seconds, deadline=options.seconds + 300)
    harness.say(f"  contention: {harness.describe(figures)}")
    for error, count in figures["messages"].items():
        harness.say(f"    {count} x {error}")
    return [
        harness.limit("C errors that reached a caller", figures["errors"], unit="errors", below=1),
        harness.limit("C samples over the bound", figures["samples_over"], unit="samples", below=1),
        harness.limit("C accepted jobs without a row", figures["lost"], unit="jobs", below=1),
        harness.limit("C push latency p99", figures["push_p99_ms"], unit="ms", below=250),
    ]


def ours(seconds: float) -> dict[str, Any]:
    """Start the pools, the sampler and the pushers, all of which agree on when to begin and end."""
    project.set_up(STORE="database", WORKERS=10, MAXSIZE=MAXSIZE, PUSH_TIMEOUT=30)
    begin = time.time() + START_UP_SECONDS
    crowd = {"begin": begin, "end": begin + seconds}
    with ExitStack() as stack:
        pools = [stack.enter_context(project.command("runjobs", "--verbosity=0")) for _ in range(POOLS)]
        names = ["sampler", *["pusher"] * PUSHERS]
        processes = [stack.enter_context(harness.start("contention", name, os.getcwd())) for name in names]
        for process in processes:
            process.stdin.write(json.dumps(crowd))
            process.stdin.close()
            process.stdin = None  # communicate() below would flush the closed pipe otherwise
        results = [
            harness.figures(name, process.returncode, *output)
            for name, process in zip(names, processes, strict=True)
            for output in [process.communicate(timeout=seconds + 120)]
        ]
        if any(pool.poll() is not None for pool in pools):
            raise harness.ContestantFailed("a pool ended before the pushers did")
    sampled, pushed = results[0], results[1:]
    latencies = [wait for result in pushed for wait in result["latencies_ms"]]
    messages = sum((Counter(result["errors"]) for result in pushed), Counter(sampled["errors"]))
    accepted = sum(result["accepted"] for result in pushed)
    (rows,) = project.query("SELECT count(*) FROM jobify_job")
    return {
        "pushes_per_s": accepted / seconds,
        "push_p50_ms": harness.percentile(latencies, 50),
        "push_p99_ms": harness.percentile(latencies, 99),
        "push_max_ms": max(latencies),
        "queue_full": sum(result["queue_full"] for result in pushed),
        "max_depth": sampled["max_depth"],
        "maxsize": MAXSIZE,
        "samples": sampled["samples"],
        "samples_over": sampled["samples_over"],
        "lost": accepted - rows,
        "errors": messages.total(),
        "messages": dict(messages.most_common(5)),
    }


def pusher(begin: float, end: float) -> dict[str, Any]:
    """Push as fast as the queue lets it; note what each push took, refused ones too, and what it raised."""
    project.enter()
    from benchmarks.tasks.tasks import noop
    from jobify_django import QueueFull

    latencies: list[float] = []
    errors: Counter[str] = Counter()
    accepted = full = 0
    _wait_until(begin)
    while time.time() < end:
        pushed = time.perf_counter()
        try:
            noop.push()
            accepted += 1
        except QueueFull:
            full += 1
        except Exception as error:
            errors[f"{type(error).__name__}: {error}"] += 1
        latencies.append((time.perf_counter() - pushed) * 1e3)
    return {"latencies_ms": latencies, "accepted": accepted, "queue_full": full, "errors": errors}


def sampler(begin: float, end: float) -> dict[str, Any]:
    """Count the waiting jobs again and again on a connection that only reads."""
    database = sqlite3.connect(f"file:{project.DATABASE}?mode=ro", uri=True, isolation_level=None)
    errors: Counter[str] = Counter()
    samples = over = deepest = 0
    _wait_until(begin)
    while time.time() < end:
        try:
            (depth,) = database.execute("SELECT count(*) FROM jobify_job WHERE status = 'waiting'").fetchone()
        except sqlite3.Error as error:
            errors[f"sampler: {type(error).__name__}: {error}"] += 1
            continue
        samples += 1
        over += depth > MAXSIZE
        deepest = max(deepest, depth)
        time.sleep(0.002)
    database.close()
    return {"samples": samples, "samples_over": over, "max_depth": deepest, "errors": errors}


def _wait_until(begin: float) -> None:
    time.sleep(max(0.0, begin - time.time()))


CONTESTANTS = {"ours": ours, "pusher": pusher, "sampler": sampler}
