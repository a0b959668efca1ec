"""Whether a pool's loops turn: its claim loop, and the event loop that ``async def`` jobs run on."""

from __future__ import annotations

from asyncio import AbstractEventLoop
from collections.abc import Mapping

from jobify_django.log import get_log, listed, quoted
from jobify_django.pool.loop import call_on_loop
from jobify_django.pool.slots import Slots
from jobify_django.repeated_failure import RepeatedFailure
from jobify_django.runtime import Runtime

logger = get_log("jobify.worker")

LAG_WORTH_A_WARNING = 1.0
LAG_WARNING_EVERY = 60.0
"""Seconds between two warnings of one that lasts, at most."""

STUCK_AFTER = 10.0
"""Seconds without a turn of the claim loop after which a pool is no longer reported alive."""


class TurnMonitor:
    """Checks whether a claim loop still makes turns, and logs it when it does not.

    Args:
        pool: the pool's id.
        store: the name of its store.
        every: seconds between two checks.
        runtime: the machine it runs on.
    """

    def __init__(self, pool: str, store: str, every: float, runtime: Runtime) -> None:
        self._monotonic = runtime.monotonic
        self._pool = pool
        self._store = store
        self._every = every
        self._turns = -1
        self._still = 0.0
        self._looked_at = 0.0

    def check(self, turns: int) -> bool:
        """Return whether it has turned lately; ``turns`` is how often it has by now."""
        now = self._monotonic()
        # A process that was stopped meanwhile, by SIGSTOP say, gave its claim loop no time either.
        passed, self._looked_at = min(now - self._looked_at, self._every), now
        was_stuck = self._still >= STUCK_AFTER
        if self._turns != turns:
            self._turns, self._still = turns, 0.0
            if was_stuck:
                logger.info("event=pool-turns pool=%s: it is reported alive again", self._pool)
            return True
        self._still += passed
        stuck = self._still >= STUCK_AFTER
        if stuck and not was_stuck:
            logger.error(
                "event=pool-stuck pool=%s store=%s seconds=%.1f: its claim loop does not turn, so it "
                "starts no job, and is no longer reported alive",
                self._pool,
                quoted(self._store),
                self._still,
            )
        return not stuck


class LoopLagMonitor:
    """Logs it when an event loop was blocked: then no ``async def`` job and no request went on.

    Args:
        loop: the event loop.
        slots: the pool's, to name the jobs on it.
        every: seconds between two checks.
        runtime: the machine it runs on.
    """

    def __init__(
        self, loop: AbstractEventLoop, slots: Mapping[str, Slots], every: float, runtime: Runtime
    ) -> None:
        self._monotonic = runtime.monotonic
        self._loop = loop
        self._slots = slots
        self._since: float | None = None
        self._failures = RepeatedFailure(runtime, again=every, longest=LAG_WARNING_EVERY)

    def check(self) -> None:
        """Check once, from a thread beside the loop."""
        since = self._since
        if since is None:
            self._since = self._monotonic()
            if not call_on_loop(self._loop, self._turned):
                self._since = None  # the loop is closed; the pool's owner ends it
        elif self._monotonic() - since > LAG_WORTH_A_WARNING and self._failures.fail("lag") is not None:
            jobs = [
                listed((running.claim.task, running.claim.id), " ")
                for slots in self._slots.values()
                for running in slots.jobs()
                if running.task is not None
            ]
            logger.warning(
                "event=loop-blocked seconds=%.1f: an 'async def' holds the event loop without awaiting; jobs "
                "on it: %s",
                self._monotonic() - since,
                ", ".join(jobs) or "none",
            )

    def _turned(self) -> None:
        self._since = None
        self._failures.recovered()
