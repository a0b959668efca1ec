"""The tables' columns, each once: what statements list, and what rows are read by, derives from here.

A newer release may have written more, and somebody's hand anything at all. What cannot be read costs its own
row some of its display: every value that leaves here is of the type it is declared as.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import fields
from types import NoneType
from typing import Any, NamedTuple

from jobify_django.conf import MAX_MAXSIZE, MAX_WORKERS
from jobify_django.job import Claim, JobRecord, known_status
from jobify_django.stores.database.connection import Row
from jobify_django.stores.database.reading import (
    error_from,
    history_from,
    moment,
    moment_or_none,
    number,
    order_from,
    queues_from,
    text,
    text_or_none,
    truth,
    values_from,
    within,
)
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
        usual: the type that nearly every row has there, of which a value need not be read.
    """

    read: Reader
    new: str = ""
    usual: type = object


JOB: Mapping[str, Column] = {
    "id": Column(text, "?", str),
    "queue": Column(text, "?", str),
    "task": Column(text, "?", str),
    "arguments": Column(text, "?", str),
    "priority": Column(number, "?", int),
    "status": Column(lambda value, at: known_status(text(value)), "?"),
    "sequence": Column(number, "?", int),
    "order_key": Column(number, "?", int),
    "pushed_at": Column(moment, "?", float),
    "eligible_at": Column(moment, "?", float),
    "flags": Column(number, "?", int),
    "extra": Column(text_or_none, "?", NoneType),
    "attempt": Column(number, "0", int),
    "crashes": Column(number, "0", int),
    "pool": Column(text, "''", str),
    "cancel_requested": Column(truth, "FALSE"),
    "started_at": Column(moment_or_none, "", float),
    "ended_at": Column(moment_or_none),
    "lease_until": Column(moment_or_none),
    "result": Column(text_or_none, "", NoneType),
    "error": Column(error_from, "", NoneType),
    "history": Column(history_from),
}
QUEUE: Mapping[str, Column] = {
    "name": Column(text, "?"),
    "version": Column(number, "0", int),
    "workers": Column(lambda value, at: within(value, MAX_WORKERS), "", NoneType),
    "maxsize": Column(lambda value, at: within(value, MAX_MAXSIZE), "", NoneType),
    "order": Column(order_from, "''"),
    "paused": Column(truth, "FALSE"),
    "reordering": Column(lambda value, at: value is not None),
    "waiting": Column(number, "0"),
    "sequence": Column(number, "0"),
}
POOL: Mapping[str, Column] = {
    "id": Column(text, "?"),
    "host": Column(text, "?"),
    "pid": Column(number, "?"),
    "kind": Column(text, "?"),
    "started_at": Column(lambda value, at: moment(value, 0.0), "?"),
    "seen_at": Column(moment, "?"),
    "queues": Column(queues_from, "?"),
}
CHANGE: Mapping[str, Column] = {
    "queue": Column(text, "?"),
    "version": Column(number, "?"),
    "actor": Column(text, "?"),
    "source": Column(text, "?"),
    "changed_at": Column(moment, "?"),
    "before": Column(values_from, "?"),
    "after": Column(values_from, "?"),
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


def spelled(names: Collection[str], instead: Mapping[str, str] | None = None) -> str:
    """Return a list of columns; some of them with something else ``instead``."""
    reserved = {name: f'"{name}"' for name in ("order", "before", "after")}
    return ", ".join({**reserved, **(instead or {})}.get(name, name) for name in names)


def _into(table: str, columns: Mapping[str, Column]) -> tuple[str, str]:
    new = {name: column.new for name, column in columns.items() if column.new}
    return f"INTO {table} ({spelled(new)})", f"({', '.join(new.values())})"


INTO_JOB, NEW_JOB = _into("jobify_job", JOB)
NEW_QUEUE = "INSERT {} VALUES {}".format(*_into("jobify_queue", QUEUE))
NEW_POOL = "INSERT {} VALUES {}".format(*_into("jobify_pool", POOL))
NEW_CHANGE = "INSERT {} VALUES {}".format(*_into("jobify_queuechange", CHANGE))

RECORD = spelled(JobRecord._fields)
RECORD_ALONE = spelled(
    JobRecord._fields, {"arguments": "''", "result": "NULL", "error": "NULL", "history": "NULL"}
)
"""The same without the large values, which are not even read."""

CLAIM = spelled(Claim._fields)
STATE_NAMES = tuple(field.name for field in fields(QueueState))[1:]
STATE = spelled(STATE_NAMES)

_PUSHED_AT = JobRecord._fields.index("pushed_at")
_USUAL_CLAIMS = [[*(JOB[name].usual for name in Claim._fields[:-1]), extra] for extra in (NoneType, str)]
_FENCE = {"id", "attempt", "queue", "started_at"}
"""What later writes go by: it stays as it is stored."""


def _read(row: Sequence[Any], readers: Sequence[tuple[type, Reader]], at: float) -> list[Any]:
    # Most values need no look but this one: 5 microseconds for a job's instead of 8.
    return [
        value if type(value) is usual else read(value, at)
        for value, (usual, read) in zip(row, readers, strict=True)
    ]


def _readers(columns: Iterable[Column]) -> list[tuple[type, Reader]]:
    # Times are always read, for they are cut down to what a date can stand for.
    return [(object if one.usual is float else one.usual, one.read) for one in columns]


_RECORD = _readers(JOB[name] for name in JobRecord._fields)
_STATE = _readers(QUEUE[name] for name in STATE_NAMES)
_POOL = _readers(POOL.values())
_CHANGE = _readers(CHANGE.values())


def to_record(row: Row) -> JobRecord:
    """Return the value of a row of ``RECORD``'s columns."""
    return JobRecord._make(_read(row, _RECORD, moment(row[_PUSHED_AT], 0.0)))


def to_claim(row: Sequence[Any]) -> Claim:
    """Return the value of a row of ``CLAIM``'s columns."""
    claim = Claim._make(row)
    # All but every row, and made for every job: reading each value would take 5 microseconds instead of 1.5.
    if list(map(type, row)) in _USUAL_CLAIMS:
        return claim
    at = moment(claim.pushed_at, claim.started_at)
    odd = {name: JOB[name].read(value, at) for name, value in claim._asdict().items() if name not in _FENCE}
    return claim._replace(**odd)


def to_state(queue: str, row: Sequence[Any]) -> QueueState:
    """Return the value of a row of ``STATE``'s columns, all null where the queue was never touched.

    A live value that ``tune`` would refuse is none: the settings rule.
    """
    return QueueState(queue, *_read(row, _STATE, 0.0))


def to_pool(row: Row, now: float) -> PoolRecord:
    """Return the value of a row of all of ``POOL``'s columns."""
    found = dict(zip(POOL, _read(row, _POOL, now), strict=True))
    return PoolRecord(age=max(0.0, now - found.pop("seen_at")), **found)


def to_change(row: Row) -> QueueChange:
    """Return the value of a row of all of ``CHANGE``'s columns."""
    return QueueChange(*_read(row, _CHANGE, 0.0))
