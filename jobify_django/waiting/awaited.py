"""The job that somebody waits for, and whether a worker is left to run it."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

from jobify_django.current import CHECK_WORKERS_EVERY, CurrentJob
from jobify_django.exceptions import JobNotFound, WaitDeadlock, WaitTimeout
from jobify_django.job import RUNNING, JobRecord
from jobify_django.stores.base import Store
from jobify_django.stores.value import LiveJob
from jobify_django.waiting.waker import BlockingCall, Steps

LONGEST_PAUSE = 15.0
"""Seconds between two checks of the workers of other processes, at most."""


class Awaited(NamedTuple):
    """A job that is waited for. Where it is ``live``, it is read instead of the store."""

    store: Store
    id: str
    live: LiveJob | None

    def read(self) -> Steps[JobRecord]:
        """Read the job; raises ``JobNotFound``."""
        if self.live is not None:
            return self.live.record()
        return self.found((yield BlockingCall(partial(self.store.get, (self.id,)))).get(self.id))

    def read_committed(self, timeout: float | None) -> Steps[JobRecord]:
        """Read the job for the first time; raises ``WaitDeadlock`` if this thread has yet to commit it."""
        if self.live is not None:
            return self.live.record()
        store, id = self.store, self.id
        # In one call: an event loop runs each on another thread.
        found, why_invisible = yield BlockingCall(
            lambda: (store.get((id,)).get(id), timeout != 0 and store.why_invisible(id))
        )
        record = self.found(found)
        if not why_invisible or record.status.ended:
            return record
        raise WaitDeadlock(
            f"job {id} is not committed, and waiting for it here would never end: {why_invisible}"
        )

    def ended(self) -> Steps[JobRecord | None]:
        """Read the job; returns ``None`` if it has not ended."""
        record = yield from self.read()
        return record if record.status.ended else None

    def found(self, record: JobRecord | None) -> JobRecord:
        """Return what was found; raises ``JobNotFound`` if that is nothing."""
        if record is None:
            raise not_found(self.id)
        return record


def not_found(id: str, elsewhere: str = "") -> JobNotFound:
    """Return the error of a job that its store does not hold; ``elsewhere`` is one more reason."""
    return JobNotFound(
        f"the store holds no job {id}: its transaction is not committed or was rolled back, or it ended and "
        f"was pruned (JOBIFY['RETENTION']){elsewhere}."
    )


def timed_out(id: str, timeout: float | None) -> WaitTimeout:
    """Return the error of a wait that was to last no longer than so many seconds."""
    return WaitTimeout(f"job {id} had not ended after {timeout:g} s; it goes on.")


class WorkerCheck:
    """Whether a worker is left to run the job that another job waits for.

    A worker that was left when the wait began may have taken a job since that waits, too.
    """

    def __init__(self, awaited: Awaited, queue: str, job: CurrentJob) -> None:
        self._awaited = awaited
        self._queue = queue
        self._job = job
        self._pause = CHECK_WORKERS_EVERY
        self._monotonic = awaited.store.runtime.monotonic
        self.next_check = self._monotonic() + self._pause

    def check(self) -> Steps[None]:
        """Check again, if it is time to; raises ``WaitDeadlock``."""
        if self._monotonic() < self.next_check:
            return
        if not self._job.may_keep_waiting(self._queue):
            yield from self.assert_others()
            self._pause = min(2 * self._pause, LONGEST_PAUSE)
        self.next_check = self._monotonic() + self._pause

    def assert_others(self) -> Steps[None]:
        """Raise ``WaitDeadlock`` if only the workers of this process, which all wait, could run the job."""
        store = self._awaited.store
        found = yield BlockingCall(store.pools)
        pools = [pool for pool in found if self._queue in pool.queues]
        others = len(pools) - any(pool.is_here(store.runtime) for pool in pools)
        # Read after the pools: one that has started is no matter of workers any more.
        record = yield from self._awaited.read()
        if not others and record.status is not RUNNING and not record.status.ended:
            raise WaitDeadlock(
                f"job {record.id} is in queue {self._queue!r}, and every worker that serves it is taken by a "
                "job that waits, so waiting for it here would never end. Raise WORKERS of the queue, push it "
                "to another queue with using(queue=...), or do not wait for it: it runs once this job has "
                "ended."
            )
