"""What the pages show of queues and pools, as values."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import attrgetter

from django.utils.translation import gettext as _

from jobify_django.admin.reading import all_stores, answers, problem
from jobify_django.admin.words import LABELS, ORDER_LABELS, value_label
from jobify_django.conf import QueueSettings, get_settings
from jobify_django.queue import queue, stats_of_queues
from jobify_django.stores import stores
from jobify_django.stores.base import Store
from jobify_django.stores.value import PoolRecord, QueueState, QueueStats
from jobify_django.unconfigured import placeholder_settings, unconfigured_in


@dataclass(frozen=True, slots=True)
class Tuned:
    """A live value that overrides the settings."""

    label: str
    live: str
    settings: str


@dataclass(frozen=True)
class QueueRow:
    """One queue. Either ``stats`` or ``problem`` is given.

    ``unconfigured`` says that the settings do not look for its jobs where they are; ``settings`` are
    placeholders.
    """

    settings: QueueSettings
    stats: QueueStats | None = None
    shared: bool = True
    problem: str = ""
    unconfigured: str = ""

    @property
    def name(self) -> str:
        return self.settings.name

    @property
    def full(self) -> bool:
        # The bound of a placeholder says nothing.
        return self.stats is not None and not self.unconfigured and self.stats.waiting >= self.stats.maxsize

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
    for name, found in stats_of_queues().items():
        if isinstance(found, Exception):
            said = words.get(id(found)) or words.setdefault(id(found), problem(found))
            rows.append(QueueRow(settings.queue(name), problem=said))
        else:
            rows.append(QueueRow(settings.queue(name), found, stores.of(settings.queue(name)).shared))
    return [*rows, *unconfigured_rows()]


def unconfigured_rows() -> list[QueueRow]:
    """Return the queues with jobs that the settings do not look for; a store that fails has none."""
    rows = []
    # What keeps us from looking is in the log, and the rows of a store's other queues say so.
    for store, unconfigured in answers(all_stores([]), unconfigured_in, []):
        for one in unconfigured:
            moved = _("in store %(store)s by now") % {"store": one.now_in} if one.now_in else ""
            words = moved or _("not in settings")
            rows.append(QueueRow(one.settings, one.stats, store.shared, unconfigured=words))
    return rows


def former_row(name: str) -> QueueRow | None:
    """Return a queue that the settings do not hold, if it has jobs still, or a list of changes."""

    def by_its_changes(store: Store) -> QueueRow | None:
        if not store.changes(name, 1):
            return None
        settings = placeholder_settings(store, name)
        stats = store.stats([settings])[name]
        return QueueRow(settings, stats, store.shared, unconfigured=_("not in settings"))

    # What keeps us from looking is in the log; the page is not there.
    changed = (row for _store, row in answers(all_stores([]), by_its_changes, []))
    return next((row for row in chain(unconfigured_rows(), changed) if row and row.name == name), None)


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
