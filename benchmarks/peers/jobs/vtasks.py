"""The job as a task of django-vtasks; on a batch queue its function is called with a list of jobs."""

from typing import Any

from django_vtasks import task

from benchmarks.peers.tally import mark


@task
def job() -> None:
    """Note the time."""
    mark()


@task
async def async_job() -> None:
    """Note the time, on the event loop."""
    mark()


@task
def batch_job(jobs: list[Any]) -> None:
    """Note the time for each job of the batch."""
    for _ in jobs:
        mark()


@task
async def async_batch_job(jobs: list[Any]) -> None:
    """Note the time for each job of the batch, on the event loop."""
    for _ in jobs:
        mark()
