"""The pools of a campaign: ``manage.py runjobs`` processes that are killed, frozen, replaced and counted."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from chaos import process


class Death(NamedTuple):
    """A pool that was killed, or died."""

    pid: int
    at: float


@dataclass
class Pool:
    """A ``runjobs`` process."""

    process: subprocess.Popen[bytes]
    log: Path
    environment: Mapping[str, str] = field(repr=False)

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    @property
    def ready(self) -> bool:
        """Whether it has begun to claim."""
        return "ready" in self.log.read_text()


class Fleet:
    """All pools, those that are gone too.

    Args:
        directory: where their logs go.
        environment: of every pool.
    """

    def __init__(self, directory: Path, environment: Mapping[str, str]) -> None:
        self._directory = directory
        self._environment = environment
        self._count = 0
        self.verbosity = 1
        self.pools: list[Pool] = []
        self.deaths: list[Death] = []
        self.surprises: list[str] = []
        """Exits that nobody asked for."""

    def start(self, number: int = 1, **environment: str) -> list[Pool]:
        """Start so many pools."""
        started = [self._start({**self._environment, **environment}) for _ in range(number)]
        self.pools += started
        return started

    def _start(self, environment: Mapping[str, str]) -> Pool:
        self._count += 1
        log = self._directory / f"pool-{self._count:03}.log"
        started = process.start(
            [sys.executable, "-m", "django", "runjobs", "-v", str(self.verbosity)], environment, log
        )
        return Pool(started, log, environment)

    def choose(self, chance: random.Random) -> Pool:
        """Return one of the pools."""
        return chance.choice(self.pools)

    def kill(self, pool: Pool) -> None:
        """Kill a pool, and start another in its place."""
        self.deaths.append(Death(pool.pid, time.monotonic()))
        process.end(pool.process, signal.SIGKILL)
        self.pools[self.pools.index(pool)] = self._start(pool.environment)

    def replace(self, pool: Pool, **environment: str) -> Pool:
        """Start another pool in the place of one that is told to stop, as a deploy does."""
        newer = self._start({**self._environment, **environment})
        self._ask_to_stop(pool)
        self.pools[self.pools.index(pool)] = newer
        return newer

    def revive(self) -> int:
        """Start another pool in the place of each that has died; return how many had."""
        dead = [pool for pool in self.pools if not pool.alive]
        for pool in dead:
            self.deaths.append(Death(pool.pid, time.monotonic()))
            self.pools[self.pools.index(pool)] = self._start(pool.environment)
        return len(dead)

    def look(self) -> None:
        """Note the pools that ended although nobody asked them to."""
        for pool in list(self.pools):
            if not pool.alive:
                self.surprises.append(f"{pool.log.name} exited with {pool.process.returncode}")
                self.pools.remove(pool)

    def stop(self) -> None:
        """Tell all pools to stop."""
        self.look()
        for pool in self.pools:
            pool.process.send_signal(signal.SIGTERM)
        for pool in self.pools:
            self._ask_to_stop(pool)
        self.pools = []

    def _ask_to_stop(self, pool: Pool) -> None:
        ready = pool.ready
        code = process.end(pool.process)
        # Python itself ends by the signal until runjobs has begun.
        if code and (ready or code != -signal.SIGTERM):
            self.surprises.append(f"{pool.log.name} exited with {code} after TERM")

    def end(self) -> None:
        """Kill what is left, in any case."""
        for pool in self.pools:
            process.end(pool.process, signal.SIGKILL)

    @property
    def logs(self) -> list[Path]:
        """Return the logs of all pools."""
        return sorted(self._directory.glob("pool-*.log"))


def environment(**changes: str) -> dict[str, str]:
    """Return the environment of this process, changed."""
    return {**os.environ, **changes}
