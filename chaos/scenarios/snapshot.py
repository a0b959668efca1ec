"""One session holds a snapshot open for ten minutes, so that nothing can be vacuumed, under load."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping

from chaos import ledger, process
from chaos.ground import Ground
from chaos.verdict import Pushes, Runs, percentile
from jobify_django.job import JobRecord

STORES = ("postgresql",)
SETTINGS = {"STORE": "chaos.app.store.TimedStore", "MAX_RUNNING": None, "WORKERS": 10}
SECONDS, RATE, PRODUCERS = 600, 200, 4
SLOWEST, P99 = 50, 100
WINDOW = 10
SUSPICIOUS = 70
"""Seconds after which the doctor must have noticed."""


def run(ground: Ground) -> None:
    """Hold the snapshot from before the first job until after the last."""
    seconds = ground.jobs(SECONDS, least=SUSPICIOUS)
    ground.begin(2)
    holder = ground.spawn("-m", "chaos.holder", log="holder.log")
    log = ground.directory / "holder.log"
    ground.until(lambda: "holding" in log.read_text(), "the snapshot")
    ground.produce(seconds * RATE, processes=PRODUCERS, rate=RATE / PRODUCERS, shortest=0, longest=0.004)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        process.wait(min(WINDOW, max(0.0, deadline - time.monotonic())))
        ground.say(f"{ground.started()} starts")
    doctor = subprocess.run(
        [sys.executable, "-m", "django", "jobs", "doctor"],
        env=ground.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    pid = log.read_text().split()[-1]
    if pid not in doctor.stdout:
        ground.verdict.broken.append(f"doctor does not name the session {pid}:\n{doctor.stdout}")
    # They may be behind.
    for producer in ground.producers:
        process.end(producer)
    ground.drain()
    process.end(holder)


def judge(ground: Ground, records: Mapping[str, JobRecord], pushes: Pushes, runs: Runs) -> None:
    """Claims stay fast."""
    times = runs.times
    windows = Counter(int((at - times[0]) // WINDOW) for at in times)
    whole = range(1, int((times[-1] - times[0]) // WINDOW))
    rates = [windows[window] / WINDOW for window in whole]
    slowest = min(rates, default=0.0)
    claims = [float(entry.fields[2]) * 1000 for entry in ledger.read("calls") if entry.what == "C"]
    last = claims[len(claims) // 2 :]
    ground.verdict.hold("starts a second, first", rates[0] if rates else 0.0)
    ground.verdict.hold(f"starts a second, slowest {WINDOW} s", slowest, at_least=SLOWEST)
    ground.verdict.hold("claim p50 ms", percentile(claims, 50))
    ground.verdict.hold("claim p99 ms", percentile(claims, 99), at_most=P99)
    ground.verdict.hold("claim p99 ms, second half", percentile(last, 99), at_most=P99)
