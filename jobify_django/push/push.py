"""One push: the same for sync and async code, which drive what cannot be done at once each in its own way."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from django.db import connections, transaction

from jobify_django.conf import get_settings
from jobify_django.exceptions import InvalidPayload, InvalidTask, QueueFull
from jobify_django.handle import Job
from jobify_django.job import JobSpec
from jobify_django.payload import encode_call
from jobify_django.push.admission import Admission
from jobify_django.push.route import Pushable, Route
from jobify_django.stores.base import Store
from jobify_django.stores.value import LiveJob
from jobify_django.waiting.loop import sync_code_waits
from jobify_django.waiting.waker import Call, Steps, Waker, run

Calls = Sequence[tuple[tuple[Any, ...], dict[str, Any]]]


def push(task: Pushable, calls: Calls) -> list[Job[Any]]:
    """Push calls of a task in sync code, and return the jobs."""
    made = begin(task, calls, on_loop=False)
    return made if isinstance(made, list) else run(made.steps, made.route.store.runtime)


def begin(task: Pushable, calls: Calls, *, on_loop: bool) -> list[Job[Any]] | Push:
    """Push calls of a task here and now, or return what is left to do: it has to wait, or to block.

    ``on_loop`` says whether an event loop runs in this thread.
    """
    if not calls:
        return []
    route = route_of(task)
    specs = _specs(route, calls)
    if not on_loop:
        if route.on_commit and (database := _open_besides(route.store)) is not None:
            Push(route, specs).leave_to_commit(database)
            return _handles(route, specs)
    # Async code holds no transaction open across an await; but sync code that waits for it may.
    elif route.on_commit and sync_code_waits():
        return Push(route, specs, below_sync_code=True)
    elif route.store.blocking:
        return Push(route, specs)
    jobs = _add_at_once(route, specs)
    return Push(route, specs) if jobs is None else jobs


def route_of(task: Pushable) -> Route:
    """Return a task's route under the settings in force; raises ``UnknownQueue``, ``UnknownBand``."""
    settings = get_settings()
    route = task._route
    if route is None or route.settings is not settings or task._stores.of(route.queue) is not route.store:
        route = Route.of(task, settings)
        object.__setattr__(task, "_route", route)
        if task.place.is_only_here:
            route.unserved.warn_of_main(route.store, task.name, route.queue.name)
    return route


class Push:
    """Jobs whose push could not be made at once."""

    __slots__ = ("_below_sync_code", "_given_up", "_specs", "route")

    def __init__(self, route: Route, specs: Sequence[JobSpec], *, below_sync_code: bool = False) -> None:
        self.route = route
        self._specs = specs
        self._below_sync_code = below_sync_code
        self._given_up = False

    def steps(self, waker: Waker) -> Steps[list[Job[Any]]]:
        """Add the jobs, or leave that to the commit; returns them."""
        return self._ask_for_transaction(waker) if self._below_sync_code else self._admit(waker)

    def leave_to_commit(self, database: str) -> None:
        """Add the jobs when this thread's transaction on a database commits."""
        transaction.on_commit(self._at_commit, using=database)

    def _ask_for_transaction(self, waker: Waker) -> Steps[list[Job[Any]]]:
        try:
            deferred = yield Call(self._defer, on_thread=True)
        except BaseException:  # cancelled: nobody will ever know of these jobs
            self._given_up = True
            raise
        return _handles(self.route, self._specs) if deferred else (yield from self._admit(waker))

    def _defer(self) -> bool:
        database = _open_besides(self.route.store)
        if database is not None:
            self.leave_to_commit(database)
        return database is not None

    def _at_commit(self) -> None:
        if not self._given_up:
            run(self._admit, self.route.store.runtime)

    def _admit(self, waker: Waker) -> Steps[list[Job[Any]]]:
        route = self.route
        admission = Admission(route, self._specs)
        try:
            yield from admission.steps(waker)
            if route.unserved.is_due(route.queue.name):
                yield from route.unserved.look(route.store, route.queue.name)
        except QueueFull as full:
            full.pushed = self._taken(admission)[: full.taken]
            raise
        except (Exception, GeneratorExit):
            raise
        except BaseException:  # cancelled or interrupted: nobody will ever know of these jobs
            yield from admission.take_back()
            raise
        return self._taken(admission)

    def _taken(self, admission: Admission) -> list[Job[Any]]:
        return _handles(self.route, admission.jobs or self._specs, admission.moments)


def calls_of(calls: Iterable[tuple[Any, ...] | Mapping[str, Any]]) -> Calls:
    """Return calls as pairs of positional and keyword arguments; raises ``InvalidTask``."""
    made: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
    for number, call in enumerate(calls):
        if isinstance(call, Mapping):
            made.append(((), dict(call)))
        elif isinstance(call, tuple):
            made.append((call, {}))
        else:
            raise InvalidTask(
                f"call {number} of push_many is {call!r}; give a tuple of positional arguments "
                "or a dict of keyword arguments."
            )
    return made


def _specs(route: Route, calls: Calls) -> list[JobSpec]:
    specs: list[JobSpec] = []
    new_id = route.new_id
    try:
        for args, kwargs in calls:
            if kwargs or not route.fewest <= len(args) <= route.most:
                route.signature.bind(*args, **kwargs)
            arguments = encode_call(args, kwargs, route.settings.max_payload)
            specs.append(JobSpec(new_id(), route.task, arguments, route.priority, route.delay, route.at))
    except (InvalidPayload, TypeError) as error:
        if len(calls) == 1:
            raise
        words = f"call {len(specs)} of push_many: {error}"
        if isinstance(error, InvalidPayload):
            raise InvalidPayload(words, error.path) from error
        raise TypeError(words) from error
    return specs


def _add_at_once(route: Route, specs: Sequence[JobSpec]) -> list[Job[Any]] | None:
    """Add all the jobs here and now, or none: ``None`` if they must wait, or if a look is due."""
    if route.waits.busy or route.unserved.is_due(route.queue.name):
        return None
    added = route.store.add(route.queue, specs, whole=True, patience=route.timeout)
    if added.taken < len(specs):
        return None
    return _handles(route, added.jobs or specs, (added.now,) * added.taken)


def _handles(
    route: Route, sources: Sequence[JobSpec | LiveJob], moments: Sequence[float] = ()
) -> list[Job[Any]]:
    """Return the handles of jobs, and when each was pushed on its store's clock; those that are yet to be
    pushed, or whose store does not tell, go by the clock here."""
    store, name = route.store, route.queue.name
    if len(moments) < len(sources) or not all(moments):
        moments = [*filter(None, moments)] + [store.runtime.clock()] * len(sources)
    return [Job(store, name, source, moment) for source, moment in zip(sources, moments, strict=False)]


def _open_besides(store: Store) -> str | None:
    """Return the database with an open transaction that the store is no part of, if there is one.

    Raises ``TransactionManagementError``, as Django's ``on_commit`` does, where nothing can wait for its end.
    """
    opened = connections.all(initialized_only=True)
    atomic = [one for one in opened if one.in_atomic_block]
    manual = [
        one for one in opened if one.connection is not None and not one.in_atomic_block | one.autocommit
    ]
    if not (atomic or manual) or store.in_transaction():
        return None
    if not atomic:
        raise transaction.TransactionManagementError(
            f"database {manual[0].alias!r} is in manual transaction management (autocommit is off), so the "
            "push cannot wait for its commit. Use atomic(), push after the commit, or say that it need not "
            "wait: .using(on_commit=False)."
        )
    atomic[0].validate_no_broken_transaction()
    return str(atomic[0].alias)
