"""``settings.JOBIFY``, read once into frozen values, and forgotten when the setting changes."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from types import MappingProxyType
from typing import Any, TypeVar

from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed

from jobify_django.exceptions import UnknownBand, UnknownQueue
from jobify_django.ordering import HIGHEST_PRIORITY, LOWEST_PRIORITY, ORDERS, Order

MAX_WORKERS = 1_000  # a typo must not open 10,000 threads or database connections
MAX_MAXSIZE = 10_000_000
MOST_NAMES = 10
"""Names that a message lists."""

LONGEST_WORD = 255
"""Characters of a mistyped name that are compared with others."""

QUEUE_NAME = re.compile(r"[a-z0-9_][a-z0-9_.-]{0,63}")

DEFAULTS: Mapping[str, Any] = MappingProxyType(
    {
        "STORE": "database",
        "DATABASE": "default",
        "WORKERS": 10,
        "MAX_RUNNING": None,
        "MAXSIZE": 1024,
        "ORDER": "priority",
        "PRIORITIES": {},
        "PUSH_TIMEOUT": 10,
        "MAX_WAITING_PUSHES": 1_000,
        "LEASE": 30,
        "GRACE": 25,
        "RETENTION": 7 * 24 * 3600,
        "FAILED_RETENTION": 30 * 24 * 3600,
        "MAX_PAYLOAD": 256 * 1024,
        "QUEUES": {"default": {}},
    }
)


@dataclass(frozen=True, slots=True)
class QueueSettings:
    """One queue as the settings describe it; live tuning may override ``workers``, ``maxsize`` and ``order``.

    Attributes:
        name: the queue's name.
        store: ``"memory"``, ``"database"`` or a dotted path to a ``Store`` class.
        priorities: band names to numbers.
        push_timeout: seconds a push waits for room; ``None`` waits for ever, 0 never waits.
        max_waiting_pushes: how many pushes of one process may wait for room at once.
        lease: seconds a pool may hold a job without renewing.
        workers: jobs that one process runs at once.
        maxsize: jobs that may wait.
        order: ``"priority"``, ``"fifo"`` or ``"lifo"``.
        max_running: jobs that all processes together run at once; ``None`` sets no limit.
    """

    name: str
    store: str
    priorities: Mapping[str, int]
    push_timeout: float | None
    max_waiting_pushes: int
    lease: float
    workers: int
    maxsize: int
    order: Order
    max_running: int | None = None

    def priority(self, band: str | int) -> int:
        """Return the number of a band (numbers pass through); raises ``UnknownBand``."""
        if isinstance(band, int):
            return band
        try:
            return self.priorities[band]
        except KeyError:
            raise UnknownBand(
                f"queue {self.name!r} has no priority band {band!r}"
                f"{did_you_mean(band, self.priorities)}; bands stand in JOBIFY['PRIORITIES'] "
                f"({some_of(self.priorities, 'none are set')})"
            ) from None


QUEUE_KEYS = tuple(key for key in DEFAULTS if key.lower() in QueueSettings.__annotations__)
"""What one queue may set for itself."""


@dataclass(frozen=True, slots=True)
class Settings:
    """``settings.JOBIFY`` with every default filled in. Times are in seconds, sizes in bytes."""

    database: str
    grace: float
    retention: float
    failed_retention: float
    max_payload: int
    queues: Mapping[str, QueueSettings]

    def queue(self, name: str) -> QueueSettings:
        """Return one queue's settings; raises ``UnknownQueue``."""
        try:
            return self.queues[name]
        except KeyError:
            raise UnknownQueue(
                f"there is no queue {name!r}{did_you_mean(name, self.queues)}; queues stand in "
                f"JOBIFY['QUEUES'] ({some_of(self.queues)})"
            ) from None


T = TypeVar("T", QueueSettings, Settings)


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong in ``settings.JOBIFY``: a system check and ``get_settings`` both report it."""

    id: str
    message: str
    hint: str = ""


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """Return the current settings; raises ``ImproperlyConfigured`` naming all that is wrong in them."""
    raw = getattr(django_settings, "JOBIFY", {})
    if found := problems(raw):
        raise ImproperlyConfigured("; ".join(f"{p.message} {p.hint}".strip() for p in found))
    merged = {**DEFAULTS, **raw}
    # "default" is where a task without a queue goes, so it is always there.
    own = {"default": {}, **merged["QUEUES"]}
    queues = {name: _queue(name, {**merged, **own[name]}) for name in own}
    return _filled(Settings, merged, queues=MappingProxyType(queues))


def problems(raw: object) -> list[Problem]:
    """Return what is wrong in a ``JOBIFY`` value, worst first; an empty list when nothing is."""
    if not isinstance(raw, Mapping):
        return [Problem("E001", f"JOBIFY must be a dict, not {raw!r}.")]
    return list(_problems(raw))


def did_you_mean(word: object, words: Iterable[str]) -> str:
    """Return ``" (did you mean 'x'?)"`` for the closest of ``words``, or nothing.

    Case does not matter; of dotted names also the last part alone may be meant.
    """
    wanted = str(word)[:LONGEST_WORD].casefold()
    whole = {one.casefold(): one for one in words}
    last = {folded.rpartition(".")[2]: one for folded, one in whole.items()}
    for typed, known in ((wanted, whole), (wanted.rpartition(".")[2], last)):
        if close := difflib.get_close_matches(typed, known, n=1):
            return f" (did you mean {known[close[0]]!r}?)"
    return ""


def some_of(words: Iterable[str], none: str = "none") -> str:
    """Return names for a message, sorted: all of a few, the first of many."""
    names = sorted(words)
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return ", ".join(names[:MOST_NAMES]) + more if names else none


def _forget(*, setting: str, **kwargs: object) -> None:
    if setting == "JOBIFY":
        get_settings.cache_clear()


setting_changed.connect(_forget, dispatch_uid="jobify_django.conf")


def _queue(name: str, merged: Mapping[str, Any]) -> QueueSettings:
    bands = MappingProxyType(dict(merged["PRIORITIES"]))
    return _filled(QueueSettings, merged, name=name, priorities=bands)


def _filled(kind: type[T], merged: Mapping[str, Any], **given: Any) -> T:
    """Return a value whose fields are the keys of their names, but for those that are given."""
    keys: Any = {one.name: merged[one.name.upper()] for one in fields(kind) if one.name not in given}
    return kind(**keys, **given)


def _problems(raw: Mapping[Any, Any]) -> Iterator[Problem]:
    yield from _wrong_in("JOBIFY", raw, tuple(DEFAULTS))
    queues = raw.get("QUEUES", {})
    if not isinstance(queues, Mapping):
        yield Problem("E003", f"JOBIFY['QUEUES'] must be a dict of queue name to dict, not {queues!r}.")
        return
    for name, own in queues.items():
        where = f"JOBIFY['QUEUES'][{name!r}]"
        if not isinstance(name, str) or not QUEUE_NAME.fullmatch(name):
            yield Problem(
                "E004",
                f"{name!r} is no name for a queue.",
                "Use 1 to 64 characters of a-z, 0-9, '_', '.', '-', not starting with '.' or '-'.",
            )
        if not isinstance(own, Mapping):
            yield Problem("E003", f"{where} must be a dict, not {own!r}.", "Write {} to use the defaults.")
            continue
        yield from _wrong_in(where, own, QUEUE_KEYS)


def _wrong_in(where: str, raw: Mapping[Any, Any], known: tuple[str, ...]) -> Iterator[Problem]:
    for key in raw:
        if key not in known:
            message = f"{where} has an unknown key {key!r}{did_you_mean(key, known)}."
            yield Problem("E002", message, f"Known keys: {', '.join(known)}.")
    for key, value in raw.items():
        if key in _RULES and (wanted := _RULES[key](value)):
            yield Problem("E003", f"{where}[{key!r}] is {value!r}.", f"It must be {wanted}.")
    bands = raw.get("PRIORITIES", {})
    if isinstance(bands, Mapping):
        for band, number in bands.items():
            wanted = "a name" if not isinstance(band, str) or not band else expected_priority(number)
            if wanted:
                place = f"{where}['PRIORITIES'][{band!r}]"
                yield Problem("E005", f"{place} is {number!r}.", f"It must be {wanted}.")


def expected_priority(value: object) -> str:
    """Return what a priority should have been, or nothing when ``value`` is one."""
    return _whole(value, LOWEST_PRIORITY, HIGHEST_PRIORITY)


def expected_workers(value: object) -> str:
    """Return what ``workers`` should have been, or nothing when ``value`` is one."""
    return _whole(value, 1, MAX_WORKERS)


def expected_maxsize(value: object) -> str:
    """Return what ``maxsize`` should have been, or nothing when ``value`` is one."""
    return _whole(value, 1, MAX_MAXSIZE)


def expected_order(value: object) -> str:
    """Return what ``order`` should have been, or nothing when ``value`` is one."""
    return "" if value in ORDERS else f"one of {', '.join(map(repr, ORDERS))}{did_you_mean(value, ORDERS)}"


def _whole(value: object, least: int, most: int) -> str:
    good = isinstance(value, int) and not isinstance(value, bool) and least <= value <= most
    return "" if good else f"a whole number from {least} to {most}"


def _seconds(value: object, least: float, most: float = 10 * 365 * 24 * 3600) -> str:
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and least <= value <= most
    return "" if good else f"a number of seconds from {least:g} to {most:g}"


def _text(value: object) -> str:
    return "" if isinstance(value, str) and value else "a non-empty string"


_RULES: Mapping[str, Callable[[Any], str]] = {
    "STORE": lambda v: (
        ""
        if v in ("memory", "database") or (isinstance(v, str) and "." in v)
        else "'memory', 'database' or a dotted path to a Store class"
        + did_you_mean(v, ("memory", "database"))
    ),
    "DATABASE": _text,
    "WORKERS": expected_workers,
    "MAX_RUNNING": lambda v: "" if v is None or not (wanted := _whole(v, 1, 10**6)) else f"None or {wanted}",
    "MAXSIZE": expected_maxsize,
    "ORDER": expected_order,
    "PRIORITIES": lambda v: "" if isinstance(v, Mapping) else "a dict of band name to number",
    "PUSH_TIMEOUT": lambda v: (
        ""
        if v is None or not _seconds(v, 0)
        else "a number of seconds, 0 (never wait) or None (wait for ever)"
    ),
    "MAX_WAITING_PUSHES": lambda v: _whole(v, 0, 1_000_000),
    "LEASE": lambda v: _seconds(v, 1, 24 * 3600),
    "GRACE": lambda v: _seconds(v, 0, 24 * 3600),
    "RETENTION": lambda v: _seconds(v, 0),
    "FAILED_RETENTION": lambda v: _seconds(v, 0),
    "MAX_PAYLOAD": lambda v: _whole(v, 1_024, 64 * 1024 * 1024),
}
