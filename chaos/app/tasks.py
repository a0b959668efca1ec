"""The jobs of the campaign: each says when it starts and when it ends, in a file that survives any kill."""

from __future__ import annotations

import asyncio
import os
import signal

from chaos import process
from chaos.ledger import Ledger
from jobify_django import task
from jobify_django.current import current
from jobify_django.job import Claim

jobs = Ledger("jobs")


def _claim() -> Claim:
    running = current.get()
    claim: Claim = running.claim  # type: ignore[union-attr]
    return claim


def _say(what: str, key: str) -> int:
    claim = _claim()
    jobs.write(what, key, claim.id, claim.attempt, os.getpid())
    return claim.attempt


@task
def work(key: str, seconds: float) -> int:
    """Take so many seconds on a thread, and return the number of the attempt."""
    _say("S", key)
    if seconds:
        process.wait(seconds)
    return _say("E", key)


@task
async def awork(key: str, seconds: float) -> int:
    """Take so many seconds on the event loop, and return the number of the attempt."""
    _say("S", key)
    await asyncio.sleep(seconds)
    return _say("E", key)


@task
def poison(key: str, seconds: float) -> None:
    """Kill the process that runs it."""
    _say("S", key)
    os.kill(os.getpid(), signal.SIGKILL)


if "CHAOS_OLD_CODE" not in os.environ:

    @task
    def newcomer(key: str, seconds: float) -> int:
        """Do what ``work`` does; pools with the old code don't know it."""
        return work(key, seconds)
