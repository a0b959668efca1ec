"""What the tables need beside their models: PostgreSQL's sequence, the indexes of MariaDB and MySQL, and
numbers ahead of what was loaded.

Jobs that ``loaddata`` loads keep their numbers, so what is pushed from then on must get higher ones.
"""

from __future__ import annotations

from typing import Any

from django.db import connections, transaction
from django.db.backends.utils import CursorWrapper

SCHEMA = """
    SELECT n.nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.oid = to_regclass('jobify_job') AND NOT EXISTS (
        SELECT 1 FROM pg_class s WHERE s.relnamespace = n.oid AND s.relname = 'jobify_job_number')"""
# The same as in the first migration.
INDEXES = {
    "jobify_job_line": "(queue, status, order_key, sequence)",
    "jobify_job_due": "(queue, status, eligible_at)",
    "jobify_job_leases": "(status, lease_until)",
    "jobify_job_ends": "(status, ended_at)",
}
THERE = """
    SELECT index_name FROM information_schema.statistics
    WHERE table_schema = database() AND table_name = 'jobify_job'"""
# Loaded jobs take numbers too, so that a count from before they came is no ceiling of theirs.
AHEAD = """
    SELECT setval('jobify_job_number', greatest(1, coalesce(pg_sequence_last_value('jobify_job_number'), 0),
           (SELECT coalesce(max(sequence), 0) FROM jobify_job)) + %s)"""
LAST = "(SELECT max(j.sequence) FROM jobify_job j WHERE j.queue = jobify_queue.name)"
MISSING = """
    INSERT INTO jobify_queue (name, version, {order}, paused, waiting, sequence)
    SELECT DISTINCT queue, 0, '', FALSE, 0, 0 FROM jobify_job
    WHERE queue NOT IN (SELECT name FROM jobify_queue)"""
BEHIND = f"UPDATE jobify_queue SET sequence = {LAST} WHERE sequence < {LAST}"
WAITING = """
    UPDATE jobify_queue SET waiting = (
        SELECT count(*) FROM jobify_job j WHERE j.queue = jobify_queue.name AND j.status = 'waiting')"""


def complete(using: str, **_: Any) -> None:
    """Create what a database lacks that was made without migrations."""
    connection = connections[using]
    make = {"postgresql": _make_sequence, "mysql": _make_indexes}.get(connection.vendor)
    if make is not None:
        with connection.cursor() as cursor:
            make(cursor)


def _make_sequence(cursor: CursorWrapper) -> None:
    """Create the sequence of the numbers, beside the table of jobs."""
    cursor.execute(SCHEMA)
    for (schema,) in cursor.fetchall():
        cursor.execute(f"CREATE SEQUENCE IF NOT EXISTS {cursor.db.ops.quote_name(schema)}.jobify_job_number")
        cursor.execute(AHEAD, [0])


def _make_indexes(cursor: CursorWrapper) -> None:
    """Create the indexes that models cannot declare, where the table of jobs is and they are not."""
    cursor.execute(THERE)
    there = {name for (name,) in cursor.fetchall()}
    for name, over in INDEXES.items():
        if there and name not in there:
            cursor.execute(f"CREATE INDEX {name} ON jobify_job {over}")


def loaded(using: str, raw: bool, **_: Any) -> None:
    """When data was loaded, put the numbers ahead of it once its transaction commits."""
    if not raw:
        return
    callbacks = (callback for _, callback, *_ in connections[using].run_on_commit)
    for mine in callbacks:
        if isinstance(mine, _Load):
            mine.rows += 1
            return
    transaction.on_commit(_Load(using), using=using)


class _Load:
    """A transaction that loads rows."""

    def __init__(self, using: str) -> None:
        self._using = using
        self.rows = 1

    def __call__(self) -> None:
        connection = connections[self._using]
        with transaction.atomic(using=self._using), connection.cursor() as cursor:
            if connection.vendor == "postgresql":
                cursor.execute(AHEAD, [self.rows])
                return
            cursor.execute(MISSING.format(order=connection.ops.quote_name("order")))
            cursor.execute(BEHIND)
            if connection.vendor == "sqlite":
                cursor.execute(WAITING)
