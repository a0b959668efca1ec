"""Queues with jobs in a store where the settings do not have them: the queue was taken out of the settings,
or was given another store.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from jobify_django.conf import QueueSettings, get_settings
from jobify_django.log import quoted
from jobify_django.stores import stores
from jobify_django.stores.base import Store
from jobify_django.stores.value import QueueStats


@dataclass(frozen=True)
class UnconfiguredQueue:
    """A queue with jobs that have not ended, in a store where this process's settings do not have it.

    Attributes:
        store: where the jobs are.
        settings: placeholders, as a queue without settings of its own would have them in that store.
        stats: the queue at this moment.
        now_in: the store that the settings give to a queue of this name; empty where they hold none.
    """

    store: Store
    settings: QueueSettings
    stats: QueueStats
    now_in: str = ""

    @property
    def name(self) -> str:
        """The queue's name."""
        return self.settings.name

    @property
    def note(self) -> str:
        """What is odd about it, in a few words."""
        return f"now in store {self.now_in}" if self.now_in else "not in settings"

    @property
    def fault(self) -> str:
        """What is odd about it, as a part of a sentence. Other processes may have other settings."""
        if self.now_in:
            return f"this process's settings have the queue in store {self.now_in!r}"
        return "this process's settings do not hold the queue"

    @property
    def remedy(self) -> str:
        """What to do about it."""
        cancel = f"manage.py jobs cancel --queue {quoted(self.name)} --store {self.store.alias} --yes"
        if self.now_in:
            return (
                f"give it STORE {self.store.alias!r} until they have run, or cancel its jobs there: {cancel}"
            )
        return f"put it back into JOBIFY['QUEUES'], or cancel its jobs: {cancel}"


def unconfigured_in(store: Store) -> list[UnconfiguredQueue]:
    """Return the queues in a store that no setting puts there and that hold jobs which have not ended."""
    found = [
        placeholder_settings(store, name)
        for name in sorted(store.queues())
        if not is_configured_in(store, name)
    ]
    stats = store.stats(found) if found else {}
    return [
        UnconfiguredQueue(store, settings, stats[settings.name], configured_store(settings.name))
        for settings in found
        if (one := stats[settings.name]).waiting or one.delayed or one.running
    ]


def unserved(store: Store, queues: Collection[str]) -> Mapping[str, str]:
    """Return those of these queues in a store that neither the settings nor a live pool serve there, and why
    a job should not be made to wait in each."""
    away = {name for name in queues if not is_configured_in(store, name)}
    served = {name for pool in store.pools() for name in pool.queues} if away else set()
    return {name: _why(store, name) for name in away - served}


def is_configured_in(store: Store, queue: str) -> bool:
    """Whether the settings put the queue into this store."""
    settings = get_settings().queues.get(queue)
    return settings is not None and stores.of(settings) is store


def configured_store(queue: str) -> str:
    """Return the name of the store that the settings give to the queue; an empty text without any."""
    settings = get_settings().queues.get(queue)
    return settings.store if settings is not None else ""


def placeholder_settings(store: Store, queue: str) -> QueueSettings:
    """Return settings to look at a queue with that has none in this store."""
    return replace(get_settings().queues["default"], name=queue, store=store.alias)


def _why(store: Store, queue: str) -> str:
    if now_in := configured_store(queue):
        return (
            f"queue {queue!r} is in store {now_in!r} now, and no live pool serves it in store "
            f"{store.alias!r}: a job would wait there for ever. Push the call anew, or give the queue STORE "
            f"{store.alias!r} first."
        )
    return (
        f"queue {queue!r} is not in JOBIFY['QUEUES'], and no live pool serves it: a job would wait there for "
        "ever. Put the queue back first, or push the call anew."
    )
