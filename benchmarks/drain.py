"""Sync jobs that already wait in SQLite: from the first start to the last end, one worker process."""

from __future__ import annotations

from datetime import datetime
from importlib.util import find_spec
from typing import Any

from benchmarks import harness, project

WORKERS = 10


def measure(options: harness.Options) -> list[harness.Target]:
    """Compare the drain of 10,000 waiting jobs with Huey's, and with django-tasks-db's of a tenth of them."""
    jobs = options.jobs(10_000)
    # A tenth for django-tasks-db: all would take minutes, and a shorter line is in its favour.
    contestants = {
        "ours": {"jobs": jobs},
        "huey": {"jobs": jobs},
        "django_tasks": {"jobs": options.jobs(1_000)},
    }
    runs = harness.interleave("drain", contestants, options.repeats)
    rates = {name: [run["jobs_per_s"] for run in results] for name, results in runs.items()}
    return [
        harness.compare(
            "B2 drain",
            rates["ours"],
            rates["django_tasks"],
            against="django-tasks-db",
            unit="jobs/s",
            at_least=10,
        ),
        harness.compare(
            "B2 drain", rates["ours"], rates["huey"], against="Huey", unit="jobs/s", at_least=1.5
        ),
    ]


def ours(jobs: int) -> dict[str, Any]:
    """Let ``runjobs --batch`` drain the queue; read the first start and the last end from the jobs' rows."""
    project.set_up(STORE="database", WORKERS=WORKERS, MAXSIZE=10 * jobs)
    from benchmarks.tasks.tasks import noop

    for _ in range(jobs):
        noop.push()
    with project.command("runjobs", "--batch", "--verbosity=0") as worker:
        project.finish(worker)
    count, first, last = project.query(
        "SELECT count(*), min(started_at), max(ended_at) FROM jobify_job WHERE status = 'successful'"
    )
    return _rate(jobs, count, last - first)


def django_tasks(jobs: int) -> dict[str, Any]:
    """Let ``db_worker --batch`` drain the queue; read the first start and the last end from its rows."""
    backport = () if find_spec("django.tasks") else ("django_tasks",)
    project.set_up(apps=(*backport, "django_tasks_db"))
    from benchmarks.rivals.django_tasks import noop

    for _ in range(jobs):
        noop.enqueue()
    with project.command("db_worker", "--batch", "--no-startup-delay", "--verbosity=0") as worker:
        project.finish(worker)
    count, first, last = project.query(
        "SELECT count(*), min(started_at), max(finished_at) "
        "FROM django_tasks_database_dbtaskresult WHERE status = %s",
        "SUCCESSFUL",
    )
    return _rate(jobs, count, _epoch(last) - _epoch(first))


def huey(jobs: int) -> dict[str, Any]:
    """Let Huey's consumer drain the queue; its jobs note their own times. It stores no result of a job."""
    from benchmarks.rivals import huey_sqlite

    for _ in range(jobs):
        huey_sqlite.noop()
    first, last = huey_sqlite.consume(jobs)
    return _rate(jobs, len(huey_sqlite.times), last - first)


def _epoch(moment: datetime | str) -> float:
    return (datetime.fromisoformat(moment) if isinstance(moment, str) else moment).timestamp()


def _rate(jobs: int, count: int, seconds: float) -> dict[str, Any]:
    if count != jobs:
        raise harness.ContestantFailed(f"{count} of {jobs} jobs were successful")
    return {"jobs_per_s": jobs / seconds, "us_per_job": seconds / jobs * 1e6}


CONTESTANTS = {"ours": ours, "django_tasks": django_tasks, "huey": huey}
