"""The stores of this process: one per name, made at first use."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator

from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.utils.module_loading import import_string

from jobify_django.conf import QueueSettings, get_settings
from jobify_django.runtime import MACHINE
from jobify_django.stores.base import Store

BUILT_IN = {
    "memory": "jobify_django.stores.memory.MemoryStore",
    "database": "jobify_django.stores.database.DatabaseStore",
}


class StoreHandler:
    """Makes and keeps the process's stores, so that every push and pool of one name shares one."""

    def __init__(self) -> None:
        self._stores: dict[str, Store] = {}
        # The machine's: a handler is older than any store, and than a runtime that one is made with.
        self._lock = MACHINE.lock()

    def __getitem__(self, name: str) -> Store:
        """Return the store of this name; raises ``ImproperlyConfigured`` if it cannot be made."""
        store = self._stores.get(name)
        if store is None:
            with self._lock:
                store = self._stores.get(name) or self._stores.setdefault(name, _make(name))
        return store

    def of(self, queue: QueueSettings) -> Store:
        """Return the store a queue lives in."""
        return self._stores.get(queue.store) or self[queue.store]

    def put(self, store: Store) -> None:
        """Use this store under its alias, as a test does with one that it made."""
        self._stores[store.alias] = store

    def forget(self) -> None:
        """Drop every store: jobs in memory are gone."""
        self._lock = MACHINE.lock()
        self._stores = {}


def _make(name: str) -> Store:
    path = BUILT_IN.get(name, name)
    try:
        made = import_string(path)(name)
    except ImportError as error:
        raise ImproperlyConfigured(
            f"JOBIFY['STORE'] {name!r} cannot be imported: {error}. Use 'memory', 'database', a dotted path."
        ) from error
    if not isinstance(made, Store):
        raise ImproperlyConfigured(
            f"JOBIFY['STORE'] {name!r} is no subclass of jobify_django.stores.base.Store."
        )
    return made


stores = StoreHandler()


def queues_by_store(
    names: list[str] | None = None, stores: StoreHandler = stores
) -> dict[Store, list[QueueSettings]]:
    """Return the configured queues (or the named ones) grouped by their store.

    Raises ``UnknownQueue`` for a name that is not configured.
    """
    settings = get_settings()
    grouped: dict[Store, list[QueueSettings]] = {}
    for name in settings.queues if names is None else names:
        queue = settings.queue(name)
        grouped.setdefault(stores.of(queue), []).append(queue)
    return grouped


def reachable() -> tuple[dict[Store, list[QueueSettings]], dict[str, Exception]]:
    """Return the configured queues by their store, and the error of each queue whose store cannot be made."""
    grouped: dict[Store, list[QueueSettings]] = {}
    failed: dict[str, Exception] = {}
    for queue in get_settings().queues.values():
        try:
            grouped.setdefault(stores.of(queue), []).append(queue)
        except Exception as error:  # of the store's own module, too
            failed[queue.name] = error
    return grouped, failed


def every_store() -> Iterator[Store]:
    """Yield every store that jobs may be in: those of the settings, and the database store where its tables
    are, for a project that has moved all its queues to another one may have left jobs there.

    Raises ``ImproperlyConfigured`` for a store of the settings that cannot be made.
    """
    named = list(queues_by_store())
    yield from named
    yield from unconfigured_stores(named)  # asked for only by who has not found what it looked for


def unconfigured_stores(named: Collection[Store]) -> list[Store]:
    """Return the database store if its tables are there and none of these stores leads to them."""
    try:
        database = stores["database"]
    except Exception:  # its alias may stand for no database at all; no queue needs it
        return []
    # One of its subclasses is another way to the same tables.
    if any(isinstance(store, type(database)) for store in named) or not database.is_set_up():
        return []
    return [database]


def _forget(*, setting: str, **kwargs: object) -> None:
    if setting == "JOBIFY":
        stores.forget()


setting_changed.connect(_forget, dispatch_uid="jobify_django.stores")
if hasattr(os, "register_at_fork"):
    # A child must not share locks, sockets or a half-held heap with its parent.
    os.register_at_fork(after_in_child=stores.forget)
