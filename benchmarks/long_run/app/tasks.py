"""The task of the long run."""

from benchmarks.long_run import started
from jobify_django import task


@task
async def job(due: float) -> None:
    """Note how long it waited."""
    await started.job(due)
