"""What the pages show of queues, pools and failures, as values."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from jobify_django import models
from jobify_django.conf import QueueSettings, get_settings
from jobify_django.exceptions import JobifyError
from jobify_django.job import JobError, JobStatus
from jobify_django.leftover import Leftover, leftovers_in, stand_in
from jobify_django.log import get_log
from jobify_django.ordering import Order
from jobify_django.outage import Outage
from jobify_django.payload import cut
from jobify_django.queue import queue, survey
from jobify_django.stores import left_behind, reachable, stores
from jobify_django.stores.base import Store
from jobify_django.stores.database import DatabaseStore
from jobify_django.stores.database.rows import brief, error_from, moment, text
from jobify_django.stores.value import PoolRecord, QueueState, QueueStats

logger = get_log("jobify.admin")

_unreadable = Outage()

NEWEST_FAILURES = 10
NEWEST_CHANGES = 10

UNREADABLE_FOR = 10.0
"""Seconds after the last failure until a page that could read everything says so: others may ask for more."""

ORDER_LABELS: dict[Order, Promise] = {
    "priority": gettext_lazy("by priority"),
    "fifo": gettext_lazy("first in, first out"),
    "lifo": gettext_lazy("last in, first out"),
}
LABELS: dict[str, Promise] = {
    "workers": gettext_lazy("workers"),
    "maxsize": gettext_lazy("maxsize"),
    "order": gettext_lazy("order"),
    "paused": gettext_lazy("paused"),
}


@dataclass(frozen=True, slots=True)
class Tuned:
    """A live value that overrides the settings."""

    label: str
    live: str
    settings: str


@dataclass(frozen=True)
class QueueRow:
    """One queue. Either ``stats`` or ``problem`` is given.

    ``leftover`` says that the settings do not look for its jobs where they are; ``settings`` are stand-ins.
    """

    settings: QueueSettings
    stats: QueueStats | None = None
    shared: bool = True
    problem: str = ""
    leftover: str = ""
    listed: bool = False

    @property
    def name(self) -> str:
        return self.settings.name

    @property
    def full(self) -> bool:
        # The bound of a stand-in says nothing.
        return self.stats is not None and not self.leftover and self.stats.waiting >= self.stats.maxsize

    @property
    def half(self) -> int:
        """Where the meter turns from good to fair."""
        return self.stats.maxsize // 2 if self.stats else 0

    @property
    def most(self) -> int:
        """Where the meter turns from fair to bad."""
        return self.stats.maxsize * 9 // 10 if self.stats else 0

    @property
    def unserved(self) -> bool:
        return self.stats is not None and not self.stats.pools

    @property
    def busy(self) -> int:
        return sum(pool.queues[self.name].busy for pool in self._pools)

    @property
    def size(self) -> int:
        """Workers over all pools alive, as each of them has it now."""
        return sum(pool.queues[self.name].workers for pool in self._pools)

    @property
    def pool_count(self) -> int:
        return len(self._pools)

    @property
    def order_label(self) -> str:
        return str(ORDER_LABELS[self.stats.order]) if self.stats else ""

    @property
    def applied(self) -> int:
        """How many of the pools alive have the newest live values."""
        version = self.stats.state.version if self.stats else 0
        return sum(pool.queues[self.name].version >= version for pool in self._pools)

    @property
    def behind(self) -> bool:
        return self.applied < self.pool_count

    @property
    def tuned(self) -> list[Tuned]:
        state = self.stats.state if self.stats else QueueState(self.name)
        return [
            Tuned(str(LABELS[key]), value_label(key, live), value_label(key, getattr(self.settings, key)))
            for key in ("workers", "maxsize", "order")
            if (live := getattr(state, key)) is not None
        ]

    @property
    def _pools(self) -> Sequence[PoolRecord]:
        return self.stats.pools if self.stats else ()


@dataclass(frozen=True, slots=True)
class ServedQueue:
    """One queue of one pool."""

    name: str
    workers: int
    busy: int
    version: int
    wanted: int

    @property
    def behind(self) -> bool:
        return self.version < self.wanted


@dataclass(frozen=True, slots=True)
class PoolRow:
    """One pool alive."""

    pool: PoolRecord
    queues: Sequence[ServedQueue]


@dataclass(frozen=True, slots=True)
class Failure:
    """One failed job."""

    id: str
    queue: str
    task: str
    ended_at: float
    error: JobError


@dataclass(frozen=True, slots=True)
class Change:
    """One row of a queue's audit trail."""

    version: int
    actor: str
    source: str
    changed_at: float
    words: str


def queue_row(name: str) -> QueueRow:
    """Return one queue; a store that fails gives a row that says so. Raises ``UnknownQueue``."""
    settings = get_settings().queue(name)
    try:
        found = queue(name)
        return QueueRow(settings, found.stats(), found.store.shared)
    except Exception as error:
        return QueueRow(settings, problem=problem(error))


def queue_rows() -> list[QueueRow]:
    """Return every queue of the settings, and those that they do not hold where jobs of theirs wait."""
    settings = get_settings()
    words: dict[int, str] = {}  # one store's error is told once
    rows = []
    for name, found in survey().items():
        if isinstance(found, Exception):
            said = words.get(id(found)) or words.setdefault(id(found), problem(found))
            rows.append(QueueRow(settings.queue(name), problem=said))
        else:
            rows.append(QueueRow(settings.queue(name), found, stores.of(settings.queue(name)).shared))
    return [*rows, *leftover_rows([])]


def leftover_rows(problems: list[str]) -> list[QueueRow]:
    """Return the queues with jobs that the settings do not look for; a store that fails has none."""
    rows = []
    for store in all_stores(problems):
        try:
            rows += [_leftover_row(leftover) for leftover in leftovers_in(store)]
        except Exception as error:
            problems.append(problem(error))
    return rows


def former_row(name: str) -> QueueRow | None:
    """Return a queue that the settings do not hold, if it has jobs still, or a list of changes."""
    for row in leftover_rows([]):
        if row.name == name:
            return row
    try:
        store = stores["database"]
        if not newest_changes(name):
            return None
        settings = stand_in(store, name)
        stats = store.stats([settings])[name]
        return QueueRow(settings, stats, leftover=_("not in settings"), listed=True)
    except Exception as error:
        problem(error)  # into the log; the page is not there
        return None


def _leftover_row(leftover: Leftover) -> QueueRow:
    words = (
        _("in store %(store)s by now") % {"store": leftover.now_in}
        if leftover.now_in
        else _("not in settings")
    )
    listed = isinstance(leftover.store, DatabaseStore)
    return QueueRow(leftover.settings, leftover.stats, leftover.store.shared, leftover=words, listed=listed)


def pool_rows(rows: Iterable[QueueRow]) -> list[PoolRow]:
    """Return the pools alive that serve these queues, the longest running first."""
    pools: dict[str, PoolRecord] = {}
    wanted: dict[str, int] = {}
    for row in rows:
        if row.stats is not None:
            wanted[row.name] = row.stats.state.version
            pools.update({pool.id: pool for pool in row.stats.pools})
    return [
        PoolRow(
            pool,
            [
                ServedQueue(name, served.workers, served.busy, served.version, wanted[name])
                for name, served in sorted(pool.queues.items())
                if name in wanted
            ],
        )
        for pool in sorted(pools.values(), key=attrgetter("started_at", "id"))
    ]


def newest_failures() -> tuple[list[Failure], list[str]]:
    """Return the jobs that failed last, over all stores, and what kept us from looking into one."""
    found: list[Failure] = []
    problems: list[str] = []
    for store in all_stores(problems):
        try:
            found.extend(_failures(store))
        except Exception as error:
            problems.append(problem(error))
    found.sort(key=attrgetter("ended_at"), reverse=True)
    return found[:NEWEST_FAILURES], problems


def _failures(store: Store) -> list[Failure]:
    if not isinstance(store, DatabaseStore):
        records = store.find(status=JobStatus.FAILED, limit=NEWEST_FAILURES)
        return [Failure(r.id, r.queue, r.task, r.ended_at or 0.0, _error(r.error)) for r in records]
    # Through the index of ended jobs: the arguments and results of other rows are never read.
    jobs = models.Job.objects.using(get_settings().database).filter(
        status=JobStatus.FAILED.value, ended_at__isnull=False
    )
    values = jobs.order_by("-ended_at").values_list("id", "queue", "task", "ended_at", "error")
    with store.legible():
        found = list(values[:NEWEST_FAILURES])
    return [
        Failure(text(id), text(queue), text(task), moment(ended_at, 0.0), _error(error_from(error)))
        for id, queue, task, ended_at, error in found
    ]


def newest_changes(name: str) -> list[Change]:
    """Return the newest entries of a queue's audit trail; only the database store keeps one."""
    rows = models.QueueChange.objects.using(get_settings().database).filter(queue=name).order_by("-id")
    with legible():
        newest = list(rows[:NEWEST_CHANGES])
    return [
        Change(row.version, row.actor, row.source, row.changed_at, _difference(row.before, row.after))
        for row in newest
    ]


def legible() -> AbstractContextManager[None]:
    """Return a block in which Django's own queries of the tables read every text, whatever its bytes."""
    try:
        store = stores["database"]
    except Exception:  # no queue need be there
        return nullcontext()
    return store.legible() if isinstance(store, DatabaseStore) else nullcontext()


def keeps_changes(row: QueueRow) -> bool:
    """Whether the queue's store keeps an audit trail."""
    return isinstance(stores.of(row.settings), DatabaseStore)


def all_stores(problems: list[str]) -> list[Store]:
    """Return every store that may hold jobs; one that cannot be made is told in ``problems``."""
    found, failed = reachable()
    problems += map(problem, failed.values())
    return [*found, *left_behind(found)]


def problem(error: Exception) -> str:
    """Return what a page may say about an error; the log has all of it, once."""
    if (word := _unreadable.fail(error)) is not None:
        logger.warning(
            "event=store-unreadable times=%d: an admin page could not read a store",
            word.times,
            exc_info=error if word.new else None,
        )
    if isinstance(error, JobifyError):
        return str(error)
    return _("The store failed (%(type)s); the log has more.") % {"type": type(error).__name__}


def readable() -> None:
    """Note that a page could read all it wanted."""
    if times := _unreadable.over(UNREADABLE_FOR):
        logger.info("event=store-readable times=%d: an admin page could read every store again", times)


def value_label(key: str, value: object) -> str:
    """Return a live value in words; ``None`` is the settings' value."""
    if key == "paused":
        return _("yes") if value else _("no")
    if value is None:
        return _("as in the settings")
    return str(ORDER_LABELS.get(value, value)) if key == "order" else str(value)  # type: ignore[call-overload]


def change_words(before: dict[str, Any], after: dict[str, Any]) -> str:
    """Return the values that differ, as ``workers: 10 → 4``."""
    words = [
        f"{LABELS[key]}: {value_label(key, before.get(key))} → {value_label(key, after.get(key))}"
        for key in LABELS
        if before.get(key) != after.get(key)
    ]
    return "; ".join(words) or _("no value changed")


def status_label(status: str) -> str:
    """Return a job's status in words; one of a newer release is named as it is stored."""
    labels = dict(models.Job.Status.choices)
    return str(labels.get(status) or _("unknown status “%(status)s”") % {"status": status})


def _error(error: JobError | None) -> JobError:
    """Return an error that a page can hold, whatever its task raised."""
    if error is None:
        return JobError("", "")
    return JobError(cut(error.type).text, cut(error.message).text, cut(error.traceback).text)


def _difference(before: str, after: str) -> str:
    try:
        return brief(change_words(json.loads(before), json.loads(after)))
    except (ValueError, AttributeError, TypeError, RecursionError):
        return f"{brief(before)} → {brief(after)}"
