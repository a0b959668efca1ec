"""django-vtasks: an event loop; it looks every 0.1 to 1 second while it is idle.

Its fastest: a batch queue, whose task is called with a list of up to 100 jobs, and persistent connections.
"""

from __future__ import annotations

from typing import Any

from benchmarks.peers.sides.base import DjangoSide


class Side(DjangoSide):
    """``runworker`` on the database backend."""

    apps = ("django_vtasks", "django_vtasks.db")
    left_sql = "SELECT count(*) FROM vtasks_queuedtask"
    poll_seconds = 1.0

    def settings(self) -> dict[str, Any]:
        queues: dict[str, Any] = {"default": {"batch": {"count": 100, "timeout": 0.1}} if self.fast else {}}
        return {
            "TASKS": {"default": {"BACKEND": "django_vtasks.backends.db.DatabaseTaskBackend"}},
            "VTASKS_QUEUES": queues,
        }

    def prepare(self) -> None:
        super().prepare()
        from django_vtasks.db.models import QueuedTask

        from benchmarks.peers.jobs import vtasks

        self.left_sql = f'SELECT count(*) FROM "{QueuedTask._meta.db_table}"'
        names = {
            ("def", False): vtasks.job,
            ("async", False): vtasks.async_job,
            ("def", True): vtasks.batch_job,
            ("async", True): vtasks.async_batch_job,
        }
        self._task = names[self.kind, self.fast]

    def one_by_one(self, number: int) -> None:
        for _ in range(number):
            self._task.enqueue()

    def bulk(self, number: int) -> None:
        from django.tasks import task_backends

        backend: Any = task_backends["default"]
        backend.enqueue_many([(self._task, (), {})] * number)

    def worker(self) -> list[str]:
        return self.command("runworker", f"--concurrency={self.workers}")
