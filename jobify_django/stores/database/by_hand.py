"""What is done by hand, to many jobs at once: cancelling and retrying them.

Jobs that wait are cancelled at once, and those that run are asked to end.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from functools import partial

from jobify_django.exceptions import StoreError
from jobify_django.job import CANCELLED, DELAYED, FAILED, RUNNING, WAITING, JobRecord, JobStatus
from jobify_django.outcome import retried
from jobify_django.stores.database.connection import Connection, change_by_ids
from jobify_django.stores.database.settle import Back, Settling

PART = 1_000
"""Jobs that one transaction of our own cancels or retries: each has a time limit, however many there are."""

ASK = "UPDATE jobify_job SET cancel_requested = TRUE WHERE id IN "
CANCEL = "UPDATE jobify_job SET status = 'cancelled', ended_at = ? WHERE id IN "


class ByHand(Settling):
    """The verbs ``cancel`` and ``retry``."""

    def cancel(self, ids: Collection[str]) -> Mapping[str, JobStatus]:
        return {job.id: job.status for job in self._in_parts(ids, self._cancel_part, "cancelled")}

    def _cancel_part(self, ids: Collection[str]) -> list[JobRecord]:
        jobs = self._write(partial(self._cancel, ids))
        live = {job.queue for job in jobs if not job.status.ended}
        self._tell_room(live)
        self._tell_work(live)
        self._tell_ended([job.id for job in jobs if job.status in (WAITING, DELAYED)])
        return jobs

    def _cancel(self, ids: Collection[str], db: Connection) -> list[JobRecord]:
        now = self.clock()
        jobs = self._records(db, ids)
        change_by_ids(db, ASK, [job.id for job in jobs if job.status is RUNNING])
        change_by_ids(db, CANCEL, [job.id for job in jobs if job.status in (WAITING, DELAYED)], now)
        waiting = Counter(job.queue for job in jobs if job.status is WAITING)
        for queue, number in waiting.items():
            self._note(db, queue, -number)
        return jobs

    def retry(self, ids: Collection[str]) -> Collection[str]:
        return [job.id for job in self._in_parts(ids, self._retry_part, "retried")]

    def _retry_part(self, ids: Collection[str]) -> list[JobRecord]:
        back = self._write(partial(self._retry, ids))
        self._tell_back(back)
        return [one.job for one in back]

    def _retry(self, ids: Collection[str], db: Connection) -> list[Back]:
        jobs = [job for job in self._records(db, ids) if job.status in (FAILED, CANCELLED)]
        return self._come_back(db, [(retried(job), job) for job in jobs], self.clock())

    def _in_parts(
        self, ids: Collection[str], act: Callable[[Collection[str]], list[JobRecord]], done: str
    ) -> list[JobRecord]:
        """Act on jobs in transactions of ``PART`` jobs each; inside the caller's transaction, all in that.

        The error of a part that fails tells what became of those before it.
        """
        # Sorted as they are locked, so that two calls go through the parts in one order, too.
        wanted = sorted(set(ids))
        if len(wanted) <= PART or self.in_transaction():
            return act(wanted)
        records: list[JobRecord] = []
        for start in range(0, len(wanted), PART):
            try:
                records += act(wanted[start : start + PART])
            except StoreError as error:
                raise type(error)(
                    f"of {len(wanted)} jobs the first {start} were looked at, and those of them that could "
                    f"be were {done}; the rest were not: {error} Do it again with the same jobs: those that "
                    "were changed are left alone."
                ) from error
        return records
