"""Jobify for Django with its defaults, but for the bound and the number of workers."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import django
from django.core.management import call_command

from benchmarks.long_run.sides import side


def prepare() -> None:
    """Make the tables."""
    call_command("migrate", verbosity=0)


def push(due: Sequence[float]) -> None:
    """Push a job for each moment."""
    from benchmarks.long_run.app.tasks import job

    job.push_many([(moment,) for moment in due])


def work() -> None:
    """Run jobs until told to stop."""
    os.execv(sys.executable, [sys.executable, "-m", "django", "runjobs", "--verbosity=0"])


if __name__ == "__main__":
    os.environ["DJANGO_SETTINGS_MODULE"] = "benchmarks.long_run.settings"
    django.setup()
    side.main(prepare=prepare, push=push, work=work)
