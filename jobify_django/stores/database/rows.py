"""Rows of the tables, to and from values."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any, TypeVar

from jobify_django.job import Interruption, JobError, JobRecord, JobStatus
from jobify_django.ordering import ORDERS
from jobify_django.stores.base import PoolQueue, PoolRecord, QueueState

T = TypeVar("T")
V = TypeVar("V")

RECORD = (
    "id, queue, task, arguments, priority, status, sequence, attempt, crashes, pushed_at, eligible_at, "
    "started_at, ended_at, lease_until, pool, cancel_requested, result, error, history"
)
STATE = 'version, workers, maxsize, "order", paused, reordering'


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
    version, workers, maxsize, order, paused, reordering = row
    known = order if order in ORDERS else None
    return QueueState(queue, version or 0, workers, maxsize, known, bool(paused), reordering is not None)


def to_pool(row: tuple[Any, ...], now: float) -> PoolRecord:
    """Return the value of a row of id, host, pid, kind, started_at, queues, seen_at."""
    queues = {
        name: queue
        for name, values in _loaded(row[5], dict).items()
        if (queue := _value(PoolQueue, values)) is not None
    }
    return PoolRecord(row[0], row[1], row[2], row[3], row[4], queues, max(0.0, now - row[6]))


def queues_text(queues: Mapping[str, PoolQueue]) -> str:
    """Return what ``to_pool`` reads back."""
    return json.dumps({name: asdict(queue) for name, queue in queues.items()})


def error_text(error: JobError | None) -> str | None:
    """Return what ``error_from`` reads back."""
    return None if error is None else json.dumps(asdict(error))


def error_from(text: str | None) -> JobError | None:
    """Return a stored error."""
    if text is None:
        return None
    return _value(JobError, _loaded(text, dict)) or JobError("", f"an error that cannot be read: {text}")


def history_from(text: str | None) -> tuple[Interruption, ...]:
    """Return a job's stored interruptions."""
    if text is None:
        return ()
    entries = [_value(Interruption, entry) for entry in _loaded(text, list)]
    return tuple(entry for entry in entries if entry is not None)


def interruption_text(interruption: Interruption) -> str:
    """Return an entry of what ``history_from`` reads, a list in JSON."""
    return json.dumps(asdict(interruption))


# A newer release may have written more fields, and somebody's hand anything at all. That must cost no more
# than the display of the row: a push, a claim or a page that reads it goes on.


def _loaded(text: str, kind: type[T]) -> T:
    """Return a stored value of this kind, an empty one if it is none."""
    try:
        value = json.loads(text)
    except (ValueError, TypeError, RecursionError):
        return kind()
    return value if isinstance(value, kind) else kind()


def _value(kind: type[V], values: object) -> V | None:
    """Return a dataclass of the fields it knows, or ``None`` if one that it needs is not there."""
    try:
        known = {field.name: values[field.name] for field in fields(kind) if field.name in values}  # type: ignore[index,operator,arg-type]
        return kind(**known)
    except TypeError:
        return None
