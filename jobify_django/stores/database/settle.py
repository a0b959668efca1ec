"""Storing how attempts ended: the one way in which a job leaves *running*, and is returned."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from functools import partial
from operator import attrgetter
from typing import NamedTuple

from jobify_django.conf import get_settings
from jobify_django.job import (
    CANCELLED,
    DELAYED,
    ENDED,
    FAILED,
    RUNNING,
    WAITING,
    Interruption,
    JobRecord,
    JobStatus,
)
from jobify_django.ordering import Order
from jobify_django.outcome import LOST_REPLY, NextState, Outcome, next_state, released
from jobify_django.stores.database.columns import RECORD, to_record
from jobify_django.stores.database.connection import Connection, Row, by_ids, change_by_ids
from jobify_django.stores.database.reading import order_from, text_of
from jobify_django.stores.database.transaction import Transactions

END = """
    UPDATE jobify_job SET status = ?, result = ?, error = ?, ended_at = ?, lease_until = NULL
    WHERE id = ? AND attempt = ? AND status = 'running'"""
# The rows are locked since they were read. A status here would let a planner go by its index instead of the
# ids, and wait for rows that others have locked. An attempt's number would leave out one that is no number,
# and one job whose crashes the column cannot count on would hold up all that are returned with it.
RETURN_JOBS = """
    UPDATE jobify_job SET status = ?, ended_at = ?, pool = ?, error = ?, history = %s, lease_until = NULL,
                          crashes = CASE WHEN crashes < 32767 THEN crashes + ? ELSE crashes END%s
    WHERE id IN """
# Not "-priority": the least number that the column holds has no opposite there.
KEYS: dict[Order, str] = {"priority": "0 - priority", "lifo": "-sequence", "fifo": "0"}

End = tuple[str, str | None, str | None, float, str, int]
"""The values of ``END``."""


class Returned(NamedTuple):
    """A job that an outcome did not end, as it was before, and what became of it."""

    job: JobRecord
    status: JobStatus


class Settled(NamedTuple):
    """What was stored of outcomes: those that ended their jobs, those that did not, and those refused."""

    ended: Sequence[str] = ()
    returned: Sequence[Returned] = ()
    refused: Sequence[Outcome] = ()


class Settling(Transactions):
    """``settle`` and ``reconcile``, and how jobs are returned, for all that do so."""

    _longer_history = (
        "CASE WHEN substr(history, 1, 2) = '[{' AND substr(history, length(history) - 1, 2) = '}]' "
        "THEN substr(history, 1, length(history) - 1) || ', ' ELSE '[' END || ? || ']'"
    )
    """A job's history, a list in JSON, and one entry more. One that is no such list begins anew."""

    _keep_order = ""
    """Ends a SELECT of a queue's order, which is not to change until the transaction ends. Not needed where
    ``_may_come_late`` tells of those who have read an older one."""

    def settle(self, outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
        if not outcomes:
            return ()
        settled = self._settle_all(outcomes)
        self._notify_settled(settled)
        return settled.refused

    def _settle_all(self, outcomes: Sequence[Outcome]) -> Settled:
        return self._write(partial(self._settle, outcomes))

    def _settle(self, outcomes: Sequence[Outcome], db: Connection) -> Settled:
        if not outcomes:
            return Settled()
        now = self.clock()
        ends, again = outcomes, {}
        if others := [one for one in outcomes if not one.needs_no_row]:
            jobs = self._jobs_of(db, others, outcomes)
            held = [one for one in outcomes if one.needs_no_row or _holds(one, jobs.get(one.id))]
            ends = [one for one in held if one.status in ENDED]
            again = {(one.id, one.attempt): (one, jobs[one.id]) for one in held if one.status not in ENDED}
        ended = self._end_all(db, ends, now)
        if not again and len(ended) == len(outcomes):  # nearly always
            return Settled([one.id for one in outcomes], refused=[])
        returned = self._return_jobs(db, [pair for key, pair in again.items() if key not in ended], now)
        stored = ended | again.keys()
        return Settled(
            [one.id for one in ends if (one.id, one.attempt) in ended],
            returned,
            [one for one in outcomes if (one.id, one.attempt) not in stored],
        )

    def _end_all(self, db: Connection, ends: Sequence[Outcome], now: float) -> set[tuple[str, int]]:
        # Whatever changes several jobs locks them in one order, so that there are no deadlocks.
        rows: list[End] = [
            (str(one.status), one.result, text_of(one.error), now, one.id, one.attempt)
            for one in sorted(ends, key=attrgetter("id"))
        ]
        return self._end(db, rows) if rows else set()

    def _jobs_of(
        self, db: Connection, some: Sequence[Outcome], outcomes: Sequence[Outcome]
    ) -> dict[str, JobRecord]:
        if self._for_update and len(some) < len(outcomes):  # those of the rest too, in one order with them
            every = sorted({one.id for one in outcomes})
            by_ids(db, "SELECT id FROM jobify_job WHERE id IN ", every, f" ORDER BY id {self._for_update}")
        return {job.id: job for job in self._records(db, {one.id for one in some})}

    def _records(self, db: Connection, ids: Iterable[str]) -> list[JobRecord]:
        """Read jobs that are about to change."""
        chosen = f"SELECT {RECORD} FROM jobify_job WHERE id IN "
        return [to_record(row) for row in by_ids(db, chosen, sorted(ids), f" ORDER BY id {self._for_update}")]

    def _end(self, db: Connection, ends: Sequence[End]) -> set[tuple[str, int]]:
        """End jobs, and return the attempts (id, number) that still held theirs."""
        return {end[-2:] for end in ends if db.execute(END, end).rowcount}

    def _return_jobs(
        self, db: Connection, pairs: Collection[tuple[Outcome, JobRecord]], now: float
    ) -> list[Returned]:
        """Store outcomes that need not end their jobs, which were read to be changed."""
        if not pairs:
            return []
        self._reset(db, [job for one, job in pairs if one.happened == "retried"], now)
        returned: list[Returned] = []
        # Jobs of one dead pool differ in little but their ids: they share a statement.
        alike: dict[tuple[str, Row], list[str]] = {}
        for one, job in pairs:
            then = next_state(one, crashes=job.crashes, cancel_requested=job.cancel_requested, now=now)
            returned.append(Returned(job, then.status))
            alike.setdefault(self._change(one, job, then, now), []).append(job.id)
        for (statement, values), ids in alike.items():
            change_by_ids(db, statement, ids, *values)
        self._note_returned(db, returned)
        return returned

    def _change(self, outcome: Outcome, job: JobRecord, then: NextState, now: float) -> tuple[str, Row]:
        """Return the statement that makes of a job what becomes of it, without its id, and its values."""
        end = (now, job.pool) if then.status in ENDED else (None, "")
        entry = text_of(Interruption(job.attempt, outcome.reason, now, job.pool, outcome.charged))
        values = (str(then.status), *end, text_of(then.error), entry, int(outcome.charged))
        if then.status is DELAYED:
            return RETURN_JOBS % (self._longer_history, ", eligible_at = ?"), (*values, outcome.until)
        return RETURN_JOBS % (self._longer_history, ""), values

    def _note_returned(self, db: Connection, returned: Collection[Returned]) -> None:
        numbers = Counter((one.job.queue, one.status) for one in returned)
        for queue in dict.fromkeys(queue for queue, status in numbers if status not in ENDED):
            self._note_waiting(db, queue, numbers[queue, WAITING], numbers[queue, DELAYED])

    def _note_waiting(self, db: Connection, queue: str, waiting: int, delayed: int = 0) -> None:
        """Note that so many more (or fewer) jobs wait, and that so many more are delayed. Inserts and starts
        are counted elsewhere. Most databases need no note: they count rows."""

    def _reset(self, db: Connection, jobs: Collection[JobRecord], now: float) -> None:
        """Let jobs forget their ends, and stand in the line as if they were pushed now."""
        by_queue: dict[str, list[str]] = {}
        for job in jobs:
            by_queue.setdefault(job.queue, []).append(job.id)
        for queue, ids in by_queue.items():
            key = KEYS[self._order_of(db, queue)]
            reset = f"""
                UPDATE jobify_job SET crashes = 0, result = NULL, cancel_requested = FALSE,
                                      eligible_at = ?, order_key = {key} WHERE id IN """
            change_by_ids(db, reset, ids, now)

    def _order_of(self, db: Connection, queue: str) -> Order:
        live = f'SELECT "order" FROM jobify_queue WHERE name = ? {self._keep_order}'
        (order,) = db.execute(live, (queue,)).fetchone() or ("",)
        if known := order_from(order):
            return known
        settings = get_settings().queues
        return settings[queue].order if queue in settings else "priority"

    def reconcile(self, pool: str, held: Collection[str]) -> Collection[str]:
        returned = self._write(partial(self._reconcile, pool, held))
        self._notify_returned(returned)
        return [one.job.id for one in returned]

    def _reconcile(self, pool: str, held: Collection[str], db: Connection) -> list[Returned]:
        mine = f"SELECT {RECORD} FROM jobify_job WHERE status = 'running' AND pool = ?"
        rows = db.execute(f"{mine} ORDER BY id {self._for_update}", (pool,)).fetchall()
        jobs = map(to_record, rows)
        unknown = [(released(job, LOST_REPLY, pool=pool), job) for job in jobs if job.id not in held]
        return self._return_jobs(db, unknown, self.clock())

    def _notify_settled(self, settled: Settled) -> None:
        if settled.returned:
            self._notify_returned(settled.returned)
        self._notify_ended(settled.ended)

    def _notify_returned(self, returned: Sequence[Returned]) -> None:
        if returned:
            self._notify_work(one.job.queue for one in returned)
            self._notify_ended([one.job.id for one in returned if one.status in ENDED])


def _holds(outcome: Outcome, job: JobRecord | None) -> bool:
    if job is None or job.attempt != outcome.attempt:
        return False
    if outcome.happened == "retried":
        return job.status in (FAILED, CANCELLED)
    return job.status is RUNNING and outcome.pool in ("", job.pool)
