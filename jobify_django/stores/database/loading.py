"""What PostgreSQL's tables need beside their models, and numbers ahead of what was loaded.

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
# Django makes each key that is text a second index, for LIKE, which nothing here asks: each change of a job
# writes into it, and it took a sixth of a job's WAL.
LIKE_INDEXES = (
    "jobify_job_id_6c733993_like",
    "jobify_queue_name_b67f8e0c_like",
    "jobify_pool_id_d1f424d4_like",
)
# Room for the next version of a row beside it: a renewal then writes no index (HOT), and 60 % less WAL.
# A job leaves two dead rows. By default they wait until they are a fifth of the table, most of which are
# jobs that ended long ago.
STORAGE = "fillfactor = 85, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000"
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
    """Do what the first migration does beside the models, where the tables were made without it."""
    connection = connections[using]
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute(SCHEMA)
            for (schema,) in cursor.fetchall():
                _complete(cursor, cursor.db.ops.quote_name(schema))


def _complete(cursor: CursorWrapper, schema: str) -> None:
    cursor.execute(f"CREATE SEQUENCE IF NOT EXISTS {schema}.jobify_job_number")
    cursor.execute(AHEAD, [0])
    for name in LIKE_INDEXES:
        cursor.execute(f"DROP INDEX IF EXISTS {schema}.{name}")
    cursor.execute(f"ALTER TABLE {schema}.jobify_job SET ({STORAGE})")


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
