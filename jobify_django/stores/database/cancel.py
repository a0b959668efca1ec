"""Cancelling jobs: those that wait end at once, and those that run are asked to end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from functools import partial

from jobify_django.job import DELAYED, RUNNING, WAITING, JobRecord, JobStatus
from jobify_django.stores.database.connection import Connection, change_by_ids
from jobify_django.stores.database.parts import InParts

ASK = "UPDATE jobify_job SET cancel_requested = TRUE WHERE id IN "
CANCEL = "UPDATE jobify_job SET status = 'cancelled', ended_at = ? WHERE id IN "


class Cancelling(InParts):
    """The verb ``cancel``."""

    def cancel(self, ids: Collection[str]) -> Mapping[str, JobStatus]:
        return {job.id: job.status for job in self._in_parts(ids, self._cancel_part, "cancelled")}

    def _cancel_part(self, ids: Collection[str]) -> list[JobRecord]:
        jobs = self._write(partial(self._cancel, ids))
        live = {job.queue for job in jobs if not job.status.ended}
        self._notify_room(live)
        self._notify_work(live)
        self._notify_ended([job.id for job in jobs if job.status in (WAITING, DELAYED)])
        return jobs

    def _cancel(self, ids: Collection[str], db: Connection) -> list[JobRecord]:
        now = self.clock()
        jobs = self._records(db, ids)
        change_by_ids(db, ASK, [job.id for job in jobs if job.status is RUNNING])
        change_by_ids(db, CANCEL, [job.id for job in jobs if job.status in (WAITING, DELAYED)], now)
        waiting = Counter(job.queue for job in jobs if job.status is WAITING)
        for queue, number in waiting.items():
            self._note_waiting(db, queue, -number)
        return jobs
