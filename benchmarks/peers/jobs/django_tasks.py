"""The job as a task of ``django.tasks``, for every backend of it."""

from django.tasks import task

from benchmarks.peers.tally import mark


@task
def job() -> None:
    """Note the time."""
    mark()


@task
async def async_job() -> None:
    """Note the time, on an event loop."""
    mark()
