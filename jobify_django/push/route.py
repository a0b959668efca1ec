"""The way of a task's pushes: to which queue and store, checked how. Worked out once, not at every push."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from jobify_django.conf import QueueSettings, Settings
from jobify_django.job import Ids
from jobify_django.push.unserved import UnservedWarnings
from jobify_django.push.waits import PushWaits
from jobify_django.registry import Registered
from jobify_django.stores import StoreHandler
from jobify_django.stores.base import Store

UNSET: Any = object()


class Pushable(Registered, Protocol):
    """A task, as a push knows it."""

    __name__: str
    delay_seconds: float
    at: float | None
    timeout: float | None
    on_commit: bool
    _stores: StoreHandler
    _route: Route | None


class Route(NamedTuple):
    """Where a task's pushes go, and what each of its jobs has in common with the others.

    Attributes:
        new_id: makes the ids of its jobs.
        waits: the pushes that wait for room in the queue.
        timeout: seconds a push waits for it.
        fewest: how many arguments a call has at least, if all can be given by position: then counting checks
            it. Otherwise no call has so few or so many.
        most: how many at most.
    """

    settings: Settings
    queue: QueueSettings
    store: Store
    new_id: Callable[[], str]
    waits: PushWaits
    unserved: UnservedWarnings
    task: str
    priority: int
    delay: float
    at: float | None
    timeout: float | None
    on_commit: bool
    signature: inspect.Signature
    fewest: int
    most: int

    @classmethod
    def of(cls, task: Pushable, settings: Settings) -> Route:
        """Work it out."""
        queue = settings.queue(task.queue)
        store = task._stores.of(queue)
        signature = inspect.signature(task.function)
        return cls(
            settings,
            queue,
            store,
            store.local(Ids).new,
            store.local(PushWaits, queue.name),
            store.local(UnservedWarnings),
            task.name,
            queue.priority(task.priority),
            task.delay_seconds,
            task.at,
            queue.push_timeout if task.timeout is UNSET else task.timeout,
            task.on_commit,
            signature,
            *_positional(signature),
        )


def _positional(signature: inspect.Signature) -> tuple[int, int]:
    parameters = signature.parameters.values()
    plain = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    if any(p.kind not in plain for p in parameters):
        return 0, -1
    return sum(p.default is inspect.Parameter.empty for p in parameters), len(parameters)
