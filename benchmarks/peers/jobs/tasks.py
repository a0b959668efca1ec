"""The job as a task of Jobify for Django, which finds this module because the package is an installed app."""

from benchmarks.peers.tally import mark
from jobify_django import task


@task
def job() -> None:
    """Note the time, on a worker's thread."""
    mark()


@task
async def async_job() -> None:
    """Note the time, on the event loop."""
    mark()
