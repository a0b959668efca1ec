"""The job in memory as a task of Jobify for Django, which wants it at the top of a module."""

from jobify_django import task

runs = [0]


@task
async def job() -> None:
    """Count itself."""
    runs[0] += 1
