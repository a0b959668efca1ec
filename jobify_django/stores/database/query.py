"""Looking at jobs: which there are, how many, and how far a job is from its start."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from operator import attrgetter

from jobify_django.job import CANCELLED, FAILED, SUCCESSFUL, JobRecord, JobStatus
from jobify_django.stores.database.columns import RECORD, RECORD_ALONE, to_record
from jobify_django.stores.database.connection import Connection, Row, by_ids, chunks, placeholders
from jobify_django.stores.database.transaction import Transactions
from jobify_django.stores.value import JobOrder, JobQuery

MOST_IDS = 30_000
"""Ids in one statement: SQLite takes no more than 32,766 values."""

ENDS = (SUCCESSFUL, FAILED, CANCELLED)
ORDERS: Mapping[JobOrder, str] = {
    "claim": "order_key, sequence",
    "newest": "{id} DESC",
    "oldest": "{id}",
    "ended": "ended_at DESC, id DESC",
}
AHEAD = """
    SELECT (SELECT count(*) FROM jobify_job o WHERE o.queue = j.queue AND o.status = 'waiting'
            AND (o.order_key, o.sequence) < (j.order_key, j.sequence))
    FROM jobify_job j WHERE id = ? AND status = 'waiting'"""


def _from_name_to_name(status: str) -> str:
    """Return a SELECT of the queues of jobs with a status, which looks one row up for each of them."""
    first = f"SELECT min(queue) FROM jobify_job WHERE status = '{status}'"
    return f"""
        {status}(queue) AS (
            {first} UNION ALL
            SELECT ({first} AND queue > {status}.queue) FROM {status} WHERE {status}.queue IS NOT NULL)"""


UNENDED = ("waiting", "delayed", "running")
QUEUES = f"""
    WITH RECURSIVE {", ".join(map(_from_name_to_name, UNENDED))}
    {" UNION ".join(f"SELECT queue FROM {status} WHERE queue IS NOT NULL" for status in UNENDED)}"""


Part = tuple[str, Sequence[str]]
"""A condition, and its values."""


class Querying(Transactions):
    """The verbs ``query``, ``get``, ``count``, ``position`` and ``queues``."""

    _few_by_id = "id"
    """How a job's id is spelt to order the few jobs of a status that have not ended."""

    def query(self, query: JobQuery) -> Sequence[JobRecord]:
        parts = _parts(query)
        jobs = self._read(partial(_jobs, query, parts, self._order(query))) if parts else []
        if len(parts) <= 1:
            return jobs
        # Each was asked for the first ones.
        key = attrgetter("ended_at", "id") if query.order == "ended" else attrgetter("id")
        jobs.sort(key=key, reverse=query.order != "oldest")
        return jobs[query.offset :][: query.limit]

    def _order(self, query: JobQuery) -> str:
        return ORDERS[query.sorting].format(id=self._few_by_id if query.status in UNENDED else "id")

    def get(self, ids: Collection[str]) -> Mapping[str, JobRecord]:
        # Results are waited for by it: without a query's conditions it takes 32 instead of 63 microseconds.
        chosen = f"SELECT {RECORD} FROM jobify_job WHERE id IN "
        rows = self._read(lambda db: by_ids(db, chosen, list(ids)))
        return {job.id: job for job in map(to_record, rows)}

    def count(self, query: JobQuery) -> int:
        parts = _parts(query)
        found = self._read(partial(_count, query, parts)) if parts else 0
        return max(0, min(found - query.offset, query.limit))

    def position(self, id: str) -> int | None:
        found = self._read(lambda db: db.execute(AHEAD, (id,)).fetchone())
        return None if found is None else int(found[0])

    def queues(self) -> Collection[str]:
        return self._read(self._queues)

    def _queues(self, db: Connection) -> list[str]:
        return [name for (name,) in db.execute(QUEUES).fetchall()]


def _jobs(query: JobQuery, parts: Sequence[Part], order: str, db: Connection) -> list[JobRecord]:
    columns = RECORD if query.payload else RECORD_ALONE
    skip = query.offset if len(parts) == 1 else 0
    rows: list[Row] = []
    for where, values in parts:
        select = f"SELECT {columns} FROM jobify_job {where} ORDER BY {order} LIMIT ? OFFSET ?"
        rows += db.execute(select, (*values, query.offset + query.limit - skip, skip)).fetchall()
    return [to_record(row) for row in rows]


def _count(query: JobQuery, parts: Sequence[Part], db: Connection) -> int:
    found = 0
    for where, values in parts:
        count = f"SELECT count(*) FROM (SELECT 1 FROM jobify_job {where} LIMIT ?) found"
        found += db.execute(count, (*values, query.offset + query.limit)).fetchone()[0]
    return found


def _parts(query: JobQuery) -> list[Part]:
    """Return the conditions of the statements that it takes: one, unless there are very many ids, or the
    newest ends of all statuses are asked for, which the index of ended jobs has by status."""
    statuses = [query.status] if query.status or query.order != "ended" else [*ENDS]
    ids = [None] if query.ids is None else chunks(sorted(set(query.ids)), MOST_IDS)
    return [_part(query, status, some) for some in ids for status in statuses]


def _part(query: JobQuery, status: JobStatus | None, ids: Sequence[str] | None) -> Part:
    wanted = {"queue": query.queue, "task": query.task}
    given = {column: value for column, value in wanted.items() if value is not None}
    terms = [f"{column} = ?" for column in given]
    if ids is not None:
        terms.append(f"id IN {placeholders(ids)}")
    if status is not None:
        # In the text, not a parameter: only then does SQLite use a partial index.
        terms.append(f"status = '{JobStatus(status)}'")
    if query.order == "ended":
        terms.append("ended_at IS NOT NULL")
    return f"WHERE {' AND '.join(terms)}" if terms else "", [*given.values(), *(ids or ())]
