"""dj_queue: a supervisor, and processes for workers, dispatcher and scheduler.

Its fastest: persistent connections, only the worker, a look every 10 ms, and no row kept of a finished job.
"""

from __future__ import annotations

from typing import Any

from benchmarks.peers.sides.base import DjangoSide


class Side(DjangoSide):
    """``manage.py dj_queue``."""

    apps = ("dj_queue",)

    @property
    def left_sql(self) -> str:  # type: ignore[override]
        return "SELECT count(*) FROM dj_queue_jobs WHERE finished_at IS NULL"

    def settings(self) -> dict[str, Any]:
        worker = {"queues": "*", "threads": self.workers, "processes": 1}
        options: dict[str, Any] = {"workers": [worker]}
        if self.fast:
            worker["polling_interval"] = 0.01
            options["preserve_finished_jobs"] = False
        return {
            "DATABASE_ROUTERS": ["dj_queue.routers.DjQueueRouter"],
            "TASKS": {
                "default": {"BACKEND": "dj_queue.backend.DjQueueBackend", "QUEUES": [], "OPTIONS": options}
            },
        }

    def prepare(self) -> None:
        self.poll_seconds = (0.01 if self.fast else 0.1) if self.on_sqlite else 0.0
        super().prepare()
        from benchmarks.peers.jobs import django_tasks

        self._task = django_tasks.job if self.kind == "def" else django_tasks.async_job

    def one_by_one(self, number: int) -> None:
        for _ in range(number):
            self._task.enqueue()

    def bulk(self, number: int) -> None:
        backend: Any = self._task.get_backend()
        backend.enqueue_all([(self._task, [], {})] * number)

    def worker(self) -> list[str]:
        return self.command("dj_queue", *(["--only-work"] if self.fast else []))
