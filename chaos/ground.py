"""The ground a scenario stands on: a database, producers, pools, a sampler; all of it gone afterwards."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from chaos import process
from chaos.database import Database
from chaos.fleet import Fleet, environment
from chaos.producer import Order
from chaos.verdict import Verdict
from jobify_django.job import JobRecord

ROOT = Path(__file__).resolve().parent.parent
EVERY_JOB = 10_000_000

UNENDED = """
    SELECT (SELECT count(*) FROM jobify_job WHERE queue = 'default' AND status = 'waiting')
         + (SELECT count(*) FROM jobify_job WHERE queue = 'default' AND status = 'delayed')
         + (SELECT count(*) FROM jobify_job WHERE queue = 'default' AND status = 'running')"""


class Ground:
    """Everything of one scenario.

    Args:
        database: the kind of database.
        directory: where all files go.
        seed: of every choice that is made.
        scale: a factor for sizes.
        jobify: ``settings.JOBIFY``.
    """

    def __init__(
        self,
        database: type[Database],
        directory: Path,
        *,
        seed: int,
        scale: float,
        jobify: Mapping[str, Any],
    ) -> None:
        self.seed = seed
        self.scale = scale
        self.jobify = dict(jobify)
        self.chance = random.Random(seed)
        self.verdict = Verdict()
        self.directory = directory
        (directory / "database").mkdir()
        directory.chmod(0o755)
        self.database = database(directory / "database")
        self.producers: list[subprocess.Popen[bytes]] = []
        self._stack = ExitStack()
        self._orders = 0

    @property
    def lease(self) -> float:
        """Seconds a pool may hold a job."""
        return float(self.jobify["LEASE"])

    def jobs(self, number: int, least: int = 1) -> int:
        """Return a size, scaled."""
        return max(least, round(number * self.scale))

    # Setting up

    def __enter__(self) -> Self:
        with self._stack:
            self._stack.callback(self.database.stop, "immediate")
            self.database.create()
            os.environ.update(self.environment())
            import django
            from django.core.management import call_command

            django.setup()
            call_command("migrate", verbosity=0)
            self.fleet = Fleet(self.directory, self.environment())
            self._stack.callback(self.fleet.end)
            self._sampler = self.spawn("-m", "chaos.sampler", log="sampler.log")
            self._ends = self._stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ends.close()

    def environment(self) -> dict[str, str]:
        """Return the environment of every process."""
        return environment(
            DJANGO_SETTINGS_MODULE="chaos.settings",
            DATABASE_URL=self.database.url(),
            CHAOS_JOBIFY=json.dumps(self.jobify),
            CHAOS_DIRECTORY=str(self.directory),
            PYTHONPATH=str(ROOT),
            PYTHONUNBUFFERED="1",
        )

    def spawn(self, *arguments: str, log: str, **environment: str) -> subprocess.Popen[bytes]:
        """Start a Python process of the campaign."""
        everything = {**self.environment(), **environment}
        started = process.start([sys.executable, *arguments], everything, self.directory / log)
        stack = getattr(self, "_ends", self._stack)
        stack.callback(process.end, started, 9)
        return started

    def produce(
        self,
        count: int,
        *,
        processes: int = 1,
        environment: Mapping[str, str] | None = None,
        **order: Any,
    ) -> None:
        """Start producers that push so many jobs together; for the rest of the order see ``Order``."""
        for number in range(processes):
            self._orders += 1
            many = count // processes + (number < count % processes)
            text = Order(f"p{self._orders}", many, seed=self.chance.getrandbits(32), **order).text()
            log = f"producer-{self._orders:03}.log"
            self.producers.append(self.spawn("-m", "chaos.producer", text, log=log, **(environment or {})))

    # While it goes on

    def say(self, text: str) -> None:
        """Tell whoever looks on."""
        print(f"  {text}", file=sys.stderr, flush=True)

    @property
    def producing(self) -> bool:
        """Whether a producer has something left to push."""
        return any(producer.poll() is None for producer in self.producers)

    def started(self) -> int:
        """Return about how many attempts were started: half the lines of the jobs' file."""
        path = self.directory / "jobs"
        # A line has about 65 bytes; this only paces what goes wrong.
        return path.stat().st_size // 130 if path.exists() else 0

    def unended(self) -> int:
        """Return how many jobs have not ended, or -1 if the database does not answer."""
        return self._ask(UNENDED)

    def begin(self, pools: int, **environment: str) -> None:
        """Start so many pools, and return once they claim."""
        pids = {pool.pid for pool in self.fleet.start(pools, **environment)}
        self.until(lambda: pids <= self._serving(), "the start of the pools")

    def _serving(self) -> set[int]:
        from jobify_django.models import Pool

        return set(Pool.objects.values_list("pid", flat=True))

    def until(self, happened: Callable[[], object], what: str, patience: float = 120.0) -> bool:
        """Wait until something is so; otherwise it is a broken promise."""
        deadline = time.monotonic() + patience
        while not happened():
            if time.monotonic() > deadline:
                self.verdict.broken.append(f"{what} did not happen within {patience:g} s")
                return False
            process.wait(0.05)
        return True

    def drain(self, patience: float = 90.0) -> None:
        """Return once every job has ended and no producer is left, or nothing has moved for so long."""
        moved, before = time.monotonic(), (-1, -1)
        while time.monotonic() - moved < patience:
            self.fleet.look()
            left = self.unended()
            if left == 0 and not self.producing and self.unended() == 0:
                return
            if (left, self.started()) != before:
                moved, before = time.monotonic(), (left, self.started())
            process.wait(0.25)
        self.say(f"nothing has moved for {patience:g} s: {before[0]} jobs have not ended")

    def _ask(self, statement: str) -> int:
        from django.db import Error, connection

        try:
            with connection.cursor() as cursor:
                cursor.execute(statement)
                return int(cursor.fetchone()[0])
        except Error:
            connection.close()
            return -1

    # Afterwards

    def finish(self) -> None:
        """End what still runs, in order."""
        failed = [producer.args for producer in self.producers if (producer.poll() or 0) > 0]
        self.verdict.none("producers failed", failed)
        for producer in self.producers:
            process.end(producer)
        self.fleet.stop()
        process.end(self._sampler)

    def records(self) -> tuple[dict[str, JobRecord], dict[str, str]]:
        """Return all jobs of the store by id, and their keys."""
        from jobify_django import queue
        from jobify_django.payload import decode_call
        from jobify_django.stores.value import JobQuery

        records = {record.id: record for record in queue().store.query(JobQuery(limit=EVERY_JOB))}
        keys = {record.id: decode_call(record.arguments)[0][0] for record in records.values()}
        return records, keys
