"""One contestant's whole run: its database, its processes, and what was seen of them."""

from __future__ import annotations

import contextlib
import json
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from benchmarks import harness
from benchmarks.peers import environments

ENVIRONMENTS = {"jobify": "jobify-django", "procrastinate": "procrastinate", "awa": "awa"}
"""The contestants, and the environment of each."""

SQL = "import sys, psycopg; psycopg.connect(sys.argv[1], autocommit=True).execute(sys.argv[2])"


@dataclass(frozen=True)
class Plan:
    """What is done to each contestant.

    Attributes:
        server: where PostgreSQL is; each contestant has a database there for the time of its run.
        rate: jobs a second.
        depth: how many jobs wait all the time; 0 is a steady rate instead.
        work_ms: milliseconds that a job takes.
        batch: jobs in one push.
        workers: jobs at once.
        seconds: how long.
        every: seconds between two looks.
        snapshot_from: when a snapshot is taken, in seconds from the start.
        held: seconds for which it is held.
    """

    server: str = "postgresql://postgres@127.0.0.1:5432/postgres"
    rate: float = 500.0
    depth: int = 0
    work_ms: float = 0.0
    batch: int = 5
    workers: int = 10
    seconds: float = 3600.0
    every: float = 10.0
    snapshot_from: float = 1200.0
    held: float = 1200.0


def run(name: str, plan: Plan, note: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Run one contestant; give ``note`` each sample as it comes. Return versions, samples and what was lost.

    Raises ContestantFailed when one of its processes ends before its time.
    """
    interpreter = environments.interpreter()
    python = environments.python_for(ENVIRONMENTS[name], interpreter)
    looker = environments.python_for(ENVIRONMENTS["jobify"], interpreter)
    with (
        _database(f"jobify_long_run_{name}", plan, looker) as database,
        tempfile.TemporaryDirectory() as place,
    ):
        started = Path(place) / "started"
        started.touch()
        environment = {
            "LONG_RUN_DATABASE": database,
            "LONG_RUN_WORKERS": str(plan.workers),
            "LONG_RUN_STARTED": str(started),
            "LONG_RUN_WORK_MS": str(plan.work_ms),
            "DJANGO_SETTINGS_MODULE": "benchmarks.long_run.settings",
        }
        side = [python, "-m", f"benchmarks.long_run.sides.{name}"]
        prepared = harness.running([*side, "prepare"], env=environment, cwd=place)
        with prepared as process:
            if process.wait(60):
                raise harness.ContestantFailed(f"{name} could not make its tables")
        times = map(str, (plan.seconds, plan.every, plan.snapshot_from, plan.held))
        look = [looker, "-m", "benchmarks.long_run.sampler", *times]
        pace = ("fill", str(plan.depth)) if plan.depth else ("push", str(plan.rate))
        push = [*side, *pace, str(plan.batch), str(plan.seconds)]
        pipe = {"stdout": subprocess.PIPE, "text": True, "env": environment, "cwd": place}
        with (
            harness.running([*side, "work"], env=environment, cwd=place) as worker,
            harness.running(push, **pipe) as producer,
            harness.running(look, **pipe) as sampler,
        ):
            samples = []
            for line in sampler.stdout or ():
                samples.append(json.loads(line))
                note(samples[-1])
                if worker.poll() is not None or producer.poll():
                    raise harness.ContestantFailed(f"a process of {name} ended with {worker.poll()}")
            producer.terminate()
            pushed = int((producer.communicate(timeout=30)[0] or "0").strip() or 0)
    return {
        "versions": environments.versions(python, ""),
        "pushed": pushed,
        "samples": samples,
    }


@contextmanager
def _database(name: str, plan: Plan, python: str) -> Iterator[str]:
    def say(statement: str) -> None:
        subprocess.run([python, "-c", SQL, plan.server, statement], check=True)

    say(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
    say(f"CREATE DATABASE {name}")
    try:
        yield urlunsplit(urlsplit(plan.server)._replace(path=f"/{name}"))
    finally:
        with contextlib.suppress(subprocess.CalledProcessError):
            say(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
