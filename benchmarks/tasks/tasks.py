"""The tasks: as small as a task can be, so that only the queue is measured."""

import time

from jobify_django import task


@task
async def async_noop() -> None:
    """Do nothing, on the event loop."""


@task
def noop() -> None:
    """Do nothing, on a worker's thread."""


@task
def clock() -> float:
    """Return when the job's own code began, in epoch seconds."""
    return time.time()


@task
def sleep(seconds: float) -> None:
    """Keep a worker busy."""
    time.sleep(seconds)
