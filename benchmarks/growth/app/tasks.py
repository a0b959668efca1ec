"""The tasks of the growth curves."""

import asyncio
import time

from jobify_django import task


@task
def noop() -> None:
    """Do nothing, on a worker's thread."""


@task
async def async_noop() -> None:
    """Do nothing, on the event loop."""


@task
def sleep(seconds: float) -> None:
    """Keep a thread busy."""
    time.sleep(seconds)


@task
async def async_sleep(seconds: float) -> None:
    """Keep a worker of the event loop busy."""
    await asyncio.sleep(seconds)
