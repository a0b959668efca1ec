"""django-ox: a pool of threads; it looks once a second while it is idle.

Its fastest: connections that persist, and a look every 50 ms.
"""

from __future__ import annotations

from typing import Any

from benchmarks.peers.sides.base import DjangoSide


class Side(DjangoSide):
    """``ox_worker``."""

    apps = ("django_ox",)
    left_sql = "SELECT count(*) FROM django_ox_oxtask WHERE status <> 'SUCCESSFUL'"

    def settings(self) -> dict[str, Any]:
        return {"TASKS": {"default": {"BACKEND": "django_ox.backend.OxBackend"}}}

    def prepare(self) -> None:
        self.poll_seconds = 0.05 if self.fast else 1.0
        super().prepare()
        from benchmarks.peers.jobs import django_tasks

        self._task = django_tasks.job if self.kind == "def" else django_tasks.async_job

    def one_by_one(self, number: int) -> None:
        for _ in range(number):
            self._task.enqueue()

    def bulk(self, number: int) -> None:
        from django_ox.bulk import enqueue_many

        enqueue_many(self._task, [((), {})] * number)

    def worker(self) -> list[str]:
        interval = ["--interval=0.05"] if self.fast else []
        return self.command("ox_worker", f"--concurrency={self.workers}", "--verbosity=0", *interval)
