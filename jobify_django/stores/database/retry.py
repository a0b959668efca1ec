"""Retrying jobs by hand."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial

from jobify_django.job import CANCELLED, FAILED, JobRecord
from jobify_django.outcome import retried
from jobify_django.stores.database.connection import Connection
from jobify_django.stores.database.parts import InParts
from jobify_django.stores.database.settle import Returned


class Retrying(InParts):
    """The verb ``retry``."""

    def retry(self, ids: Collection[str]) -> Collection[str]:
        return [job.id for job in self._in_parts(ids, self._retry_part, "retried")]

    def _retry_part(self, ids: Collection[str]) -> list[JobRecord]:
        returned = self._write(partial(self._retry, ids))
        self._notify_returned(returned)
        return [one.job for one in returned]

    def _retry(self, ids: Collection[str], db: Connection) -> list[Returned]:
        jobs = [job for job in self._records(db, ids) if job.status in (FAILED, CANCELLED)]
        return self._return_jobs(db, [(retried(job), job) for job in jobs], self.clock())
