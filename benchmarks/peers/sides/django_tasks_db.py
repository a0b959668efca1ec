"""django-tasks-db: one job at a time in a process, which looks once a second while it is idle.

Its fastest: connections that persist, a look every 10 ms, no start-up delay, and a worker process a core.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from benchmarks.peers.sides.base import DjangoSide, Unsupported

PROCESSES = 2


class Side(DjangoSide):
    """``db_worker``."""

    apps = ("django_tasks_db",)
    left_sql = "SELECT count(*) FROM django_tasks_database_dbtaskresult WHERE status <> 'SUCCESSFUL'"

    def settings(self) -> dict[str, Any]:
        return {"TASKS": {"default": {"BACKEND": "django_tasks_db.DatabaseBackend"}}}

    def prepare(self) -> None:
        if self.workers > 10:
            raise Unsupported("a worker process runs one job at a time")
        self.poll_seconds = 0.01 if self.fast else 1.0
        super().prepare()
        from benchmarks.peers.jobs import django_tasks

        self._task = django_tasks.job if self.kind == "def" else django_tasks.async_job

    def one_by_one(self, number: int) -> None:
        for _ in range(number):
            self._task.enqueue()

    def bulk(self, number: int) -> None:
        from django.db import transaction

        with transaction.atomic():
            self.one_by_one(number)

    def worker(self) -> list[str]:
        command = self.command("db_worker", "--verbosity=0", "--no-reload")
        if not self.fast:
            return command
        command += ["--interval=0.01", "--no-startup-delay"]
        # SQLite has one writer: a second process only waits for it.
        processes = 1 if self.on_sqlite else min(PROCESSES, os.cpu_count() or 1)
        return [sys.executable, "-m", "benchmarks.peers.several", str(processes), *command]
