"""The tables' columns, each once: what statements list, and what rows are read by, derives from here.

A newer release may have written more, and a person anything at all. A value that cannot be read is shown in
part, or not at all: every value that is returned from here is of the type it is declared as.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import fields
from functools import lru_cache
from types import NoneType
from typing import Any, NamedTuple, get_type_hints

from jobify_django.conf import MAX_MAXSIZE, MAX_WORKERS
from jobify_django.job import Claim, JobRecord, known_status
from jobify_django.stores.database import reading
from jobify_django.stores.database.connection import Row
from jobify_django.stores.value import PoolRecord, QueueChange, QueueState

Reader = Callable[[Any, float], Any]
"""Makes of what is stored a value of the column's type. A time that cannot be read is taken for the given
one, when the row's job was pushed."""


class Column(NamedTuple):
    """A column of a table.

    Attributes:
        read: how it is read.
        new: what a new row has there, in SQL: a question mark for a value that is given, or nothing, where
            the column itself knows.
    """

    read: Reader
    new: str = ""


# What is stored as these types is read as it is.
AS_STORED: Mapping[Reader, Collection[type]] = {
    reading.text: (str,),
    reading.text_or_none: (str, NoneType),
    reading.number: (int,),
    reading.boolean: (bool,),
    reading.timestamp_or_none: (NoneType,),
    reading.error_from: (NoneType,),
    reading.order_from: (NoneType,),
}

JOB: Mapping[str, Column] = {
    "id": Column(reading.text, "?"),
    "queue": Column(reading.text, "?"),
    "task": Column(reading.text, "?"),
    "arguments": Column(reading.text, "?"),
    "priority": Column(reading.number, "?"),
    "status": Column(lambda value, at: known_status(reading.text(value)), "?"),
    "sequence": Column(reading.number, "?"),
    "order_key": Column(reading.number, "?"),
    "pushed_at": Column(reading.timestamp, "?"),
    "eligible_at": Column(reading.timestamp, "?"),
    "flags": Column(reading.number, "?"),
    "extra": Column(reading.text_or_none, "?"),
    "attempt": Column(reading.number, "0"),
    "crashes": Column(reading.number, "0"),
    "pool": Column(reading.text, "''"),
    "cancel_requested": Column(reading.boolean, "FALSE"),
    "started_at": Column(reading.timestamp_or_none),
    "ended_at": Column(reading.timestamp_or_none),
    "lease_until": Column(reading.timestamp_or_none),
    "result": Column(reading.text_or_none),
    "error": Column(reading.error_from),
    "history": Column(reading.history_from),
}
QUEUE: Mapping[str, Column] = {
    "name": Column(reading.text, "?"),
    "version": Column(reading.number, "0"),
    "workers": Column(lambda value, at: reading.within(value, MAX_WORKERS)),
    "maxsize": Column(lambda value, at: reading.within(value, MAX_MAXSIZE)),
    "order": Column(reading.order_from, "''"),
    "paused": Column(reading.boolean, "FALSE"),
    "reordering": Column(lambda value, at: value is not None),
    "waiting": Column(reading.number, "0"),
    "sequence": Column(reading.number, "0"),
}
POOL: Mapping[str, Column] = {
    "id": Column(reading.text, "?"),
    "host": Column(reading.text, "?"),
    "pid": Column(reading.number, "?"),
    "kind": Column(reading.text, "?"),
    "started_at": Column(lambda value, at: reading.timestamp(value, 0.0), "?"),
    "seen_at": Column(reading.timestamp, "?"),
    "queues": Column(reading.queues_from, "?"),
}
CHANGE: Mapping[str, Column] = {
    "queue": Column(reading.text, "?"),
    "version": Column(reading.number, "?"),
    "actor": Column(reading.text, "?"),
    "source": Column(reading.text, "?"),
    "changed_at": Column(reading.timestamp, "?"),
    "before": Column(reading.values_from, "?"),
    "after": Column(reading.values_from, "?"),
}


class NewJob(NamedTuple):
    """The values of a new job's row."""

    id: str
    queue: str
    task: str
    arguments: str
    priority: int
    status: str
    sequence: int
    order_key: int
    pushed_at: float
    eligible_at: float
    flags: int
    extra: str | None


def column_list(names: Collection[str], instead: Mapping[str, str] | None = None) -> str:
    """Return a list of columns; some of them with something else ``instead``."""
    reserved = {name: f'"{name}"' for name in ("order", "before", "after")}
    return ", ".join({**reserved, **(instead or {})}.get(name, name) for name in names)


def _into(table: str, columns: Mapping[str, Column]) -> tuple[str, str]:
    new = {name: column.new for name, column in columns.items() if column.new}
    return f"INTO {table} ({column_list(new)})", f"({', '.join(new.values())})"


INTO_JOB, NEW_JOB = _into("jobify_job", JOB)
NEW_QUEUE = "INSERT {} VALUES {}".format(*_into("jobify_queue", QUEUE))
NEW_POOL = "INSERT {} VALUES {}".format(*_into("jobify_pool", POOL))
NEW_CHANGE = "INSERT {} VALUES {}".format(*_into("jobify_queuechange", CHANGE))

RECORD = column_list(JobRecord._fields)
RECORD_ALONE = column_list(
    JobRecord._fields, {"arguments": "''", "result": "NULL", "error": "NULL", "history": "NULL"}
)
"""The same without the large values, which are not even read."""

CLAIM = column_list(Claim._fields)
STATE_NAMES = tuple(field.name for field in fields(QueueState))[1:]
STATE = column_list(STATE_NAMES)

_PUSHED_AT = JobRecord._fields.index("pushed_at")
_CLAIM_TYPES = list(get_type_hints(Claim).values())[:-1]
_USUAL_CLAIMS = [[*_CLAIM_TYPES, extra] for extra in (NoneType, str)]
_FENCE = {"id", "attempt", "queue", "started_at"}
"""What later writes go by: it stays as it is stored."""


def _reading(columns: Iterable[Column]) -> Callable[[Sequence[Any], float], list[Any]]:
    readers = [column.read for column in columns]

    # Most values need no look but one at their types, in which few rows differ: 2.6 microseconds for a job's
    # instead of 3.7.
    @lru_cache(maxsize=256)
    def of(*types: type) -> list[tuple[int, Reader]]:
        pairs = enumerate(zip(types, readers, strict=True))
        return [(index, read) for index, (kind, read) in pairs if kind not in AS_STORED.get(read, ())]

    def read_row(row: Sequence[Any], at: float) -> list[Any]:
        values = list(row)
        for index, read in of(*map(type, row)):
            values[index] = read(values[index], at)
        return values

    return read_row


_read_record = _reading(JOB[name] for name in JobRecord._fields)
_read_state = _reading(QUEUE[name] for name in STATE_NAMES)
_read_pool = _reading(POOL.values())
_read_change = _reading(CHANGE.values())


def to_record(row: Row) -> JobRecord:
    """Return the value of a row of ``RECORD``'s columns."""
    return JobRecord._make(_read_record(row, reading.timestamp(row[_PUSHED_AT], 0.0)))


def to_claim(row: Sequence[Any]) -> Claim:
    """Return the value of a row of ``CLAIM``'s columns."""
    claim = Claim._make(row)
    # All but every row, and made for every job: reading each value would take 5 microseconds instead of 1.5.
    if list(map(type, row)) in _USUAL_CLAIMS:
        return claim
    at = reading.timestamp(claim.pushed_at, claim.started_at)
    odd = {name: JOB[name].read(value, at) for name, value in claim._asdict().items() if name not in _FENCE}
    return claim._replace(**odd)


# Kept, for each claim asks for it and it hardly ever changes: 0.4 microseconds instead of 3.
@lru_cache(maxsize=1024, typed=True)
def to_state(queue: str, *row: Any) -> QueueState:
    """Return the value of a row of ``STATE``'s columns, all null where the queue was never touched.

    A live value that ``tune`` would refuse is none: the settings rule.
    """
    return QueueState(queue, *_read_state(row, 0.0))


def to_pool(row: Row, now: float) -> PoolRecord:
    """Return the value of a row of all of ``POOL``'s columns."""
    found = dict(zip(POOL, _read_pool(row, now), strict=True))
    return PoolRecord(age=max(0.0, now - found.pop("seen_at")), **found)


def to_change(row: Row) -> QueueChange:
    """Return the value of a row of all of ``CHANGE``'s columns."""
    return QueueChange(*_read_change(row, 0.0))
