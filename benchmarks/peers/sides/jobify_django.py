"""Jobify for Django as its documentation has it. Only the bound is raised: a bench fills the queue first."""

from __future__ import annotations

from typing import Any

from benchmarks.peers.sides.base import DjangoSide


class Side(DjangoSide):
    """Its public API and its defaults."""

    apps = ("jobify_django", "benchmarks.peers.jobs")
    left_sql = "SELECT count(*) FROM jobify_job WHERE status <> 'successful'"

    def settings(self) -> dict[str, Any]:
        return {"JOBIFY": {"WORKERS": self.workers, "MAXSIZE": 2 * self.jobs + 1024}}

    def prepare(self) -> None:
        super().prepare()
        from benchmarks.peers.jobs import tasks

        self._task = tasks.job if self.kind == "def" else tasks.async_job

    def one_by_one(self, number: int) -> None:
        push = self._task.push
        for _ in range(number):
            push()

    def bulk(self, number: int) -> None:
        self._task.push_many([()] * number)

    def worker(self) -> list[str]:
        return self.command("runjobs", "--verbosity=0")
