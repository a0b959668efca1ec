"""Rows of the tables, to and from values."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from jobify_django.job import Interruption, JobError, JobRecord, JobStatus
from jobify_django.stores.base import PoolQueue, PoolRecord, QueueState

RECORD = (
    "id, queue, task, arguments, priority, status, sequence, attempt, crashes, pushed_at, eligible_at, "
    "started_at, ended_at, lease_until, pool, cancel_requested, result, error, history"
)
STATE = 'version, workers, maxsize, "order", paused'


def to_record(row: tuple[Any, ...]) -> JobRecord:
    """Return the value of a row of ``RECORD``'s columns."""
    status, cancel, error, history = (
        JobStatus(row[5]),
        bool(row[15]),
        error_from(row[17]),
        history_from(row[18]),
    )
    return JobRecord._make((*row[:5], status, *row[6:15], cancel, row[16], error, history))


def to_state(queue: str, row: tuple[Any, ...]) -> QueueState:
    """Return the value of a row of ``STATE``'s columns, all null where the queue was never touched."""
    version, workers, maxsize, order, paused = row
    return QueueState(queue, version or 0, workers, maxsize, order or None, bool(paused))


def to_pool(row: tuple[Any, ...], now: float) -> PoolRecord:
    """Return the value of a row of id, host, pid, kind, started_at, queues, seen_at."""
    queues = {name: PoolQueue(**values) for name, values in json.loads(row[5]).items()}
    return PoolRecord(row[0], row[1], row[2], row[3], row[4], queues, max(0.0, now - row[6]))


def queues_text(queues: Mapping[str, PoolQueue]) -> str:
    """Return what ``to_pool`` reads back."""
    return json.dumps({name: asdict(queue) for name, queue in queues.items()})


def error_text(error: JobError | None) -> str | None:
    """Return what ``error_from`` reads back."""
    return None if error is None else json.dumps(asdict(error))


def error_from(text: str | None) -> JobError | None:
    """Return a stored error."""
    return None if text is None else JobError(**json.loads(text))


def history_from(text: str | None) -> tuple[Interruption, ...]:
    """Return a job's stored interruptions."""
    return () if text is None else tuple(Interruption(**entry) for entry in json.loads(text))


def interruption_text(interruption: Interruption) -> str:
    """Return an entry of what ``history_from`` reads, a list in JSON."""
    return json.dumps(asdict(interruption))
