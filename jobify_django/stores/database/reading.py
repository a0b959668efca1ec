"""What one field of a row holds, to and from values; whatever is stored, one of the declared type leaves.

What reads a column takes a moment too, which stands in for a time that cannot be read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from functools import cache
from typing import Any, TypeVar, get_type_hints

from jobify_django.job import Interruption, JobError
from jobify_django.ordering import ORDERS, Order
from jobify_django.payload import brief
from jobify_django.stores.value import PoolQueue

V = TypeVar("V")
N = TypeVar("N")

FIRST, LAST = -62_135_596_800.0, 253_402_300_799.0
"""The first and the last second that a date can stand for, from the year 1 to 9999."""


def queues_from(stored: object, at: float = 0.0) -> Mapping[str, PoolQueue]:
    """Return how a pool serves its queues. Of one that cannot be read it is only known that it is served."""
    values = _loaded(stored)
    unread = PoolQueue(0, 0, 0)
    found = values.items() if isinstance(values, dict) else ()
    return {name: _value(PoolQueue, one) or unread for name, one in found if isinstance(one, dict)}


def queues_text(queues: Mapping[str, PoolQueue]) -> str:
    """Return what ``queues_from`` reads back."""
    return json.dumps({name: asdict(queue) for name, queue in queues.items()})


def text_of(value: JobError | Interruption | None) -> str | None:
    """Return what ``error_from`` reads back, or an entry of what ``history_from`` does, a list in JSON."""
    return None if value is None else json.dumps(asdict(value))


def error_from(stored: object, at: float = 0.0) -> JobError | None:
    """Return a stored error."""
    if stored is None:
        return None
    found = _value(JobError, _loaded(stored))
    return found or JobError("", f"an error that cannot be read: {brief(text(stored))}")


def history_from(stored: object, at: float) -> tuple[Interruption, ...]:
    """Return a job's stored interruptions; one that cannot be read stands at the moment ``at``."""
    if stored is None:
        return ()

    def unread(what: str, entry: object) -> Interruption:
        return Interruption(0, f"{what} that cannot be read: {brief(text(entry))}", at, "", charged=False)

    entries = _loaded(stored)
    if not isinstance(entries, list):
        return (unread("a history", stored),)
    return tuple(_value(Interruption, entry) or unread("an interruption", entry) for entry in entries)


def values_from(stored: object, at: float = 0.0) -> Mapping[str, Any] | str:
    """Return stored values by name, or the stored text where it cannot be read."""
    values = _loaded(stored)
    return values if isinstance(values, dict) else text(stored)


# Single values. SQLite's columns take any type, and numbers may be far off.


def text(value: object, at: float = 0.0) -> str:
    """Return a stored text."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value if isinstance(value, str) else str(value)


def text_or_none(value: object, at: float = 0.0) -> str | None:
    """Return a stored text, if there is any."""
    return None if value is None else text(value)


def boolean(value: object, at: float = 0.0) -> bool:
    """Return a stored yes or no."""
    return bool(value)


def number(value: object, at: float = 0.0) -> int:
    """Return a stored whole number, or 0 where it is none."""
    return value if isinstance(value, int) else 0


def within(value: object, most: int) -> int | None:
    """Return a stored whole number from 1 to ``most``; ``None`` for anything else."""
    return value if isinstance(value, int) and 1 <= value <= most else None


def timestamp(value: object, otherwise: N) -> float | N:
    """Return a stored time, cut down to what a date can stand for; ``otherwise`` where it is none."""
    if type(value) is float and FIRST <= value <= LAST:
        return value  # nearly all of them
    if not isinstance(value, (int, float)) or value != value:
        return otherwise
    return min(max(value, FIRST), LAST)


def timestamp_or_none(value: object, at: float = 0.0) -> float | None:
    """Return a stored time, cut down likewise, if there is any."""
    return timestamp(value, None)


def order_from(value: object, at: float = 0.0) -> Order | None:
    """Return a stored order; ``None`` for one that this version does not know."""
    return value if value in ORDERS else None


def _loaded(stored: object) -> object:
    try:
        return json.loads(stored)  # type: ignore[arg-type]
    except (ValueError, TypeError, RecursionError):
        return None


def _value(kind: type[V], values: object) -> V | None:
    """Return a dataclass of the fields it knows; ``None`` if one is missing, or is of another type."""
    if not isinstance(values, dict):
        return None
    types: Mapping[str, type] = _types(kind)  # type: ignore[arg-type]
    known = {name: _typed(values[name], types[name]) for name in types if name in values}
    try:
        return None if None in known.values() else kind(**known)
    except TypeError:
        return None


@cache
def _types(kind: type[Any]) -> Mapping[str, type]:
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in fields(kind)}


def _typed(value: object, kind: type) -> object:
    """Return a value of this type; ``None`` for another one."""
    if kind is float:
        return None if isinstance(value, bool) else timestamp(value, None)
    return value if type(value) is kind else None
