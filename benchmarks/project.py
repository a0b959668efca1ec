"""A Django project for a contestant: settings in the environment, so that its child processes share them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from benchmarks import harness

DATABASE = "bench.sqlite3"


def set_up(
    apps: Sequence[str] = ("jobify_django", "benchmarks.tasks"), *, migrate: bool = True, **jobify: Any
) -> None:
    """Configure Django, here and in processes started from here; ``jobify`` is ``settings.JOBIFY``."""
    os.environ["DJANGO_SETTINGS_MODULE"] = "benchmarks.settings"
    os.environ["BENCH_DATABASE"] = str(Path(DATABASE).resolve())
    os.environ["BENCH_APPS"] = json.dumps(list(apps))
    os.environ["BENCH_JOBIFY"] = json.dumps(jobify)
    enter()
    if migrate:
        from django.core.management import call_command

        call_command("migrate", verbosity=0)


def enter() -> None:
    """Configure Django in a process that was started by one that called ``set_up``."""
    import django

    django.setup()


def command(*arguments: str) -> AbstractContextManager[subprocess.Popen[str]]:
    """Start a management command in a process of its own that ends with the block."""
    return harness.running([sys.executable, "-m", "django", *arguments], stdout=subprocess.DEVNULL, text=True)


def finish(process: subprocess.Popen[str], seconds: float = 300.0) -> None:
    """Wait until a command has ended by itself; raise ContestantFailed when it fails or takes too long."""
    try:
        code = process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        raise harness.ContestantFailed(f"{process.args} still ran after {seconds:g} s") from None
    if code != 0:
        raise harness.ContestantFailed(f"{process.args} ended with {code}")


def query(sql: str, *parameters: Any) -> tuple[Any, ...]:
    """Return the first row of a query on the contestant's database."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return cursor.fetchone()


def cpu_seconds(pid: int) -> float:
    """Return the processor time, user and system, that a process has used with all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_bytes() -> int:
    """Return how much memory this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def ended(expected: int, seconds: float = 300.0) -> float:
    """Wait until ``expected`` of our jobs were successful; return when the last one ended (epoch seconds)."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        count, last = query("SELECT count(*), max(ended_at) FROM jobify_job WHERE status = 'successful'")
        if count >= expected:
            return last
        time.sleep(0.1)
    raise harness.ContestantFailed(f"{count} of {expected} jobs had ended after {seconds:g} s")
