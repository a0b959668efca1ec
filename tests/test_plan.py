"""Claims and pushes find their rows by an index, on an empty table and on a large one."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any

import pytest
from django.db import connection

from jobify_django.job import JobRecord, JobSpec, JobStatus, new_id
from jobify_django.stores.database import DatabaseStore, mysql, postgresql, sqlite
from jobify_django.stores.database.claim import PEEK, Selection
from jobify_django.stores.database.connection import translate
from jobify_django.stores.database.query import QUEUES
from jobify_django.stores.value import JobOrder, JobQuery
from jobify_django.testing.conformance.ground import a_queue
from tests.claims import claim as take
from tests.workshop import database

pytestmark = database

QUEUE = a_queue(maxsize=10_000_000)
MANY = pytest.param(300_000, marks=pytest.mark.slow)
"""Rows that no plan reads whole; a million take three times as long to make, and have the same plans."""

INSERT = """
    INSERT INTO jobify_job (id, queue, task, arguments, priority, status, sequence, order_key, pushed_at,
                            eligible_at, attempt, crashes, pool, cancel_requested)"""
FILL = {
    "sqlite": """
        WITH RECURSIVE s(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM s WHERE i < {rows})
        {insert} SELECT {row} FROM s""",
    "postgresql": "{insert} SELECT {row} FROM generate_series(1, {rows}) s(i)",
    "mysql": "{insert} SELECT {row} FROM (SELECT seq AS i FROM seq_1_to_{rows}) s",
}
IDS = {
    "sqlite": "printf('%012d', i)",
    "postgresql": "lpad(i::text, 12, '0')",
    "mysql": "lpad(i, 12, '0')",
}
# One job in ten waits, the rest has ended: a table as it looks in use.
ROW = """{id}, 'default', 't', '[[],{{}}]', i % 5,
    CASE WHEN i % 10 = 0 THEN 'waiting' ELSE 'successful' END, i, -(i % 5), 0, 0, 0, 0, '', FALSE"""


def fill(rows: int, row: str = ROW) -> None:
    """Put jobs into the table, below the store."""
    if not rows:
        return
    row = row.format(id=IDS[connection.vendor])
    with connection.cursor() as cursor:
        cursor.execute(FILL[connection.vendor].format(insert=INSERT, row=row, rows=rows))


def plan(statement: str, values: list[Any]) -> str:
    """Return how the database would run a statement, as text."""
    explain = "EXPLAIN QUERY PLAN " if connection.vendor == "sqlite" else "EXPLAIN "
    spell = mysql.spell if connection.vendor == "mysql" else translate
    with connection.cursor() as cursor:
        cursor.execute(explain + spell(statement), values)
        return "\n".join(" ".join(str(cell) for cell in row) for row in cursor.fetchall())


LINE = Selection("default", 10)
CLAIM = {
    "sqlite": (
        sqlite.START % LINE.condition,
        ["pool", 1.0, 2.0, *LINE.values, 10],
        "jobify_job_waiting",
        "SCAN jobify_job",
    ),
    "postgresql": (
        postgresql.START % (postgresql.NEXT % LINE.condition),
        [*LINE.values, 10, "pool", 1.0, 2.0],
        "jobify_job_waiting",
        "Seq Scan on jobify_job",
    ),
    "mysql": (mysql.NEXT % LINE.condition, [*LINE.values, 10], "jobify_job_waiting", "filesort"),
}


@pytest.mark.parametrize("rows", [0, 1_000, MANY])
def test_a_claim_goes_by_the_index_of_waiting_jobs(jobify: Any, rows: int) -> None:
    fill(rows)
    statement, values, index, scan = CLAIM[connection.vendor]

    found = plan(statement, values)

    assert index in found
    # PostgreSQL may well read a small table whole to update the few rows that the index has found.
    if rows > 1_000 or connection.vendor != "postgresql":
        assert scan not in found


@pytest.mark.parametrize("rows", [1_000, MANY])
def test_a_look_finds_the_head_of_a_line_by_the_index_of_waiting_jobs(jobify: Any, rows: int) -> None:
    fill(rows)

    found = plan(PEEK % ("", "SELECT ? AS queue, 0 AS skipped"), ["default"])

    assert "jobify_job_waiting" in found
    assert "filesort" not in found


@pytest.mark.parametrize("rows", [1_000, pytest.param(1_000_000, marks=pytest.mark.slow)])
def test_a_large_table_is_claimed_from_and_pushed_to_in_order(jobify: Any, rows: int) -> None:
    fill(rows)
    store = DatabaseStore("large")

    assert store.add(QUEUE, [JobSpec(new_id(), "t", "[[],{}]", priority=100)]).taken == 1
    claims = take(store, 3, pool="pool")

    assert [claim.priority for claim in claims] == [100, 0, 0]


MOST_ENDED = """{id}, CASE i % 2 WHEN 0 THEN 'even' ELSE 'odd' END, 't', '[[],{{}}]', 0,
    CASE WHEN i % 100000 = 7 THEN 'waiting' WHEN i % 100000 = 8 THEN 'delayed' ELSE 'successful' END, i, 0,
    0, 0, 0, 0, '', FALSE"""


@pytest.mark.parametrize("rows", [1_000, MANY])
def test_queues_that_hold_jobs_are_found_without_a_look_at_those_that_ended(jobify: Any, rows: int) -> None:
    fill(rows, MOST_ENDED)
    names = {
        "sqlite": [(QUEUES, [])],
        "postgresql": [(QUEUES, [])],
        "mysql": [(mysql.NEXT_NAME, ["even"]), (mysql.ANY % "waiting", ["even"])],
    }

    found = "\n".join(plan(statement, values) for statement, values in names[connection.vendor])

    assert set(DatabaseStore("large").queues()) == {"even", "odd"}
    if connection.vendor == "mysql":
        assert "Select tables optimized away" in found
        assert re.search(r"ref \S*jobify_job_(waiting|delayed)\S* jobify_job_(waiting|delayed) ", found)
    elif rows > 1_000 or connection.vendor == "sqlite":  # PostgreSQL reads a small table whole
        assert "jobify_job_waiting" in found
        assert not re.search(r"Seq Scan on jobify_job|SCAN jobify_job\b", found)


ENDED = """{id}, 'default', 't', '[[],{{}}]', 0, CASE i % 10 WHEN 0 THEN 'failed' ELSE 'successful' END, i, 0,
    0, 0, 0, 0, '', FALSE"""


@pytest.mark.parametrize("rows", [1_000, MANY])
@pytest.mark.parametrize("status", [JobStatus.FAILED, None])
def test_the_newest_ends_are_found_by_the_index_of_jobs_that_ended(
    jobify: Any, rows: int, status: JobStatus | None
) -> None:
    fill(rows, ENDED)
    with connection.cursor() as cursor:
        cursor.execute("UPDATE jobify_job SET ended_at = sequence")
        if connection.vendor != "sqlite":
            cursor.execute(f"ANALYZE {'TABLE ' if connection.vendor == 'mysql' else ''}jobify_job")
    found, plans = queried(JobQuery(status=status, order="ended", limit=10, payload=False))

    assert [job.sequence for job in found] == list(range(rows, 0, -10 if status else -1))[:10]
    for plain in plans:
        assert "jobify_job_ended" in plain
        assert "filesort" not in plain


@pytest.mark.parametrize("rows", [1_000, MANY])
@pytest.mark.parametrize(
    ("order", "status"), [("newest", "waiting"), ("oldest", "waiting"), ("newest", "delayed")]
)
def test_the_few_jobs_that_have_not_ended_are_listed_without_a_look_at_those_that_have(
    jobify: Any, rows: int, order: JobOrder, status: str
) -> None:
    if connection.vendor == "mysql":
        pytest.skip("MySQL and MariaDB have no partial indexes")
    fill(rows, MOST_ENDED)
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("ANALYZE jobify_job")

    found, (plain,) = queried(JobQuery(status=JobStatus(status), order=order, limit=100, payload=False))

    assert len(found) == max(1, rows // 100_000)
    assert found == sorted(found, key=attrgetter("id"), reverse=order == "newest")
    if rows > 1_000 or connection.vendor == "sqlite":
        assert f"jobify_job_{status}" in plain


def queried(query: JobQuery) -> tuple[Sequence[JobRecord], list[str]]:
    """Ask a query, and return what it found, and the plan of each statement."""
    asked: list[tuple[str, Any]] = []

    def note(execute: Callable[..., Any], sql: str, values: Any, *rest: Any) -> Any:
        asked.append((sql, values))
        return execute(sql, values, *rest)

    store = DatabaseStore("large")
    store.stats([])  # a server's clock is measured at first
    with connection.execute_wrapper(note):
        found = store.query(query)
    return found, [plan(statement, values) for statement, values in asked]
