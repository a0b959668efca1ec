"""What all pushes of a task have in common, computed once and not at every push."""

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
"""Stands for a value that was not given, where ``None`` means something."""


class Pushable(Registered, Protocol):
    """What a push needs of a task."""

    __name__: str
    delay_seconds: float
    at: float | None
    timeout: float | None
    on_commit: bool
    _stores: StoreHandler
    _plan: PushPlan | None


class PushPlan(NamedTuple):
    """Everything about the pushes of a task that does not depend on the arguments of the call.

    Attributes:
        settings: those it was made under.
        queue: the queue its jobs go to, as the settings have it.
        store: the store that keeps that queue.
        new_id: makes the ids of its jobs.
        waits: the wait list of this process's pushes that wait for room in the queue.
        unserved: warns if no pool would run the jobs.
        task: the task's name.
        priority: a number, also where the task names a band.
        delay: seconds from the push until the job is eligible.
        at: when the job is eligible, in seconds since the epoch; ``None``: ``delay`` counts.
        timeout: seconds a push may wait, for room or for locks of other transactions.
        on_commit: whether a push waits for the commit of a transaction on another database.
        signature: the function's.
        min_arguments: how many positional arguments a call has at least. Within ``min_arguments`` and
            ``max_arguments`` a call without keyword arguments fits the signature. Where counting cannot tell
            (keyword-only parameters, ``*args``, ``**kwargs``), they are 0 and -1, between which no number is.
        max_arguments: how many positional arguments a call has at most.
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
    min_arguments: int
    max_arguments: int

    @classmethod
    def of(cls, task: Pushable, settings: Settings) -> PushPlan:
        """Return the plan of a task's pushes; raises ``UnknownQueue``, ``UnknownBand``."""
        queue = settings.queue(task.queue)
        store = task._stores.of(queue)
        signature = inspect.signature(task.function)
        return cls(
            settings,
            queue,
            store,
            store.process_local(Ids).new,
            store.process_local(PushWaits, queue.name),
            store.process_local(UnservedWarnings),
            task.name,
            queue.priority(task.priority),
            task.delay_seconds,
            task.at,
            queue.push_timeout if task.timeout is UNSET else task.timeout,
            task.on_commit,
            signature,
            *_argument_counts(signature),
        )


def _argument_counts(signature: inspect.Signature) -> tuple[int, int]:
    """Return ``min_arguments`` and ``max_arguments``."""
    parameters = signature.parameters.values()
    plain = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    if any(p.kind not in plain for p in parameters):
        return 0, -1
    return sum(p.default is inspect.Parameter.empty for p in parameters), len(parameters)
