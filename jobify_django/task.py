"""``@task``: functions whose calls can be pushed as jobs."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import update_wrapper
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, Protocol, Self, TypeVar, cast, overload

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.conf import settings
from django.utils import timezone

from jobify_django.conf import priority_problem
from jobify_django.exceptions import InvalidTask
from jobify_django.handle import Job, PushedJob
from jobify_django.push.push import calls_of, push
from jobify_django.push.pushing import Pushing
from jobify_django.push.route import UNSET, Route
from jobify_django.registry import Place, declared, tasks
from jobify_django.stores import StoreHandler, stores
from jobify_django.waiting.loop import on_event_loop

P = ParamSpec("P")
R = TypeVar("R")


@overload
def task(function: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncTask[P, R]: ...
@overload
def task(function: Callable[P, R], /) -> Task[P, R]: ...
@overload
def task(
    *,
    name: str | None = None,
    queue: str = "default",
    priority: str | int | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> _Decorator: ...
def task(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    queue: str = "default",
    priority: str | int | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> Any:
    """Register a module-level function as a task, so that calls of it can be pushed.

    Decorators may stand below ``@task``. One that puts ``functools.wraps`` on what it returns keeps the
    function's name and place; what another one returns needs a ``name`` here.

    Args:
        function: the function, where the decorator stands bare.
        name: the task's name in the store; by default the function's dotted path.
        queue: the queue its jobs go to.
        priority: a band of ``JOBIFY["PRIORITIES"]``, or a number from -100 to 100; the higher runs first.
        metadata: ``{"priority": n}`` means the same as ``priority=n``.

    Raises ``InvalidTask`` for a function a worker could not find, or a wrong value; ``DuplicateTask`` if
    the name is taken. An unknown band or queue is found by ``manage.py check``, and by ``push``.
    """
    wanted = _priority_of(priority, metadata)

    def register(function: Callable[..., Any], depth: int = 1) -> Task[Any, Any]:
        if isinstance(function, Task):
            raise InvalidTask(f"{function!r} is a task already; using(...) returns a changed copy of it.")
        chosen, place = declared(function, name, sys._getframe(depth))
        kind = AsyncTask if iscoroutinefunction(function) else Task
        return tasks.register(kind(function, chosen, queue=queue, priority=wanted, place=place))

    return register if function is None else register(function, 2)


class _Decorator(Protocol):
    """How ``@task(...)`` looks to a type checker."""

    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncTask[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> Task[P, R]: ...


VALUES = ("function", "name", "queue", "priority", "delay_seconds", "at", "timeout", "on_commit", "place")

ELSEWHERE = {
    "delay": "push(...) adds the job; using(delay=seconds).push(...) delays it",
    "delay_on_commit": "push(...) adds the job, as part of the transaction or at its commit",
    "apply_async": "push(...) adds the job; using(delay=..., queue=..., priority=...).push(...) changes how",
    "apply_async_on_commit": "push(...) adds the job, as part of the transaction or at its commit",
    "enqueue": "push(...) adds the job",
    "aenqueue": "await apush(...) adds the job",
    "send": "push(...) adds the job",
    "send_with_options": "using(delay=..., queue=..., priority=...).push(...) adds the job",
    "defer": "push(...) adds the job",
    "defer_async": "await apush(...) adds the job",
    "schedule": "using(at=moment).push(...) or using(delay=seconds).push(...) adds the job",
}
"""Methods by which other queues add a job, and what does it here."""


class NoSuchMethod(InvalidTask, AttributeError):
    """A task was asked for another queue's method."""


class Task(Generic[P, R]):
    """A registered function. ``using`` returns a changed copy.

    It stands for the function: it is called as it, has its name, docstring and signature, and
    ``inspect.unwrap`` finds it. As a function it equals itself alone. Its attributes and methods can be
    assigned, as ``mock.patch.object`` does; the next push, and the next job here, go by what is there.

    Attributes:
        function: what it calls.
        name: how the store calls it.
        queue: the queue its jobs go to.
        priority: a band or a number.
        delay_seconds: seconds until a pushed job is eligible.
        at: when a pushed job is eligible, in seconds since the epoch.
        timeout: seconds a push waits for room; unset: the queue's ``PUSH_TIMEOUT``.
        on_commit: inside a transaction on another database than the store's, push when it commits.
        place: the file and line where it is declared.
    """

    # What a decorator above copies (functools.wraps) and a mock leaves is in the dict, what a task is is not.
    __slots__ = (*VALUES, "__dict__", "__weakref__", "_is_async", "_metadata", "_route", "_stores")

    __name__: str
    __qualname__: str
    _is_async: bool | None
    _metadata: Mapping[str, Any]
    _route: Route | None
    _stores: StoreHandler

    def __init__(
        self,
        function: Callable[..., Any],
        name: str,
        *,
        queue: str = "default",
        priority: str | int = 0,
        place: Place | None = None,
        stores: StoreHandler = stores,
    ) -> None:
        self.function = function
        self.name = name
        self.queue = queue
        self.priority = priority
        self.delay_seconds = 0.0
        self.at: float | None = None
        self.timeout: float | None = UNSET
        self.on_commit = True
        self.place = place or Place.of(function)
        self._stores = stores
        for known in (inspect.unwrap(function), function):  # a decorator's object may lack a name
            update_wrapper(self, known, updated=())
        self._metadata = dict(vars(self))

    def __repr__(self) -> str:
        changed = {"queue": "default", "priority": 0, "delay_seconds": 0.0, "at": None, "on_commit": True}
        values = [f" {n}={getattr(self, n)!r}" for n, usual in changed.items() if getattr(self, n) != usual]
        return f"<{type(self).__name__} {self.name}{''.join(values)}>"

    def __reduce__(self) -> str:
        return self.__qualname__  # pickled and copied as a function is: by its place

    if not TYPE_CHECKING:  # with these two, a type checker would allow every name

        def __setattr__(self, name, value):
            object.__setattr__(self, name, value)
            # As under a mock: what was worked out from the old value is worked out anew.
            object.__setattr__(self, "_route", None)
            object.__setattr__(self, "_is_async", None)

        def __getattr__(self, name):
            if name in ELSEWHERE:
                raise NoSuchMethod(f"a task has no .{name}(): {ELSEWHERE[name]}.")
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function here and now, as if it were no task."""
        return self.function(*args, **kwargs)  # type: ignore[no-any-return]

    def using(
        self,
        *,
        priority: str | int = UNSET,
        queue: str = UNSET,
        delay: float | timedelta = UNSET,
        at: datetime = UNSET,
        timeout: float | None = UNSET,
        on_commit: bool = UNSET,
    ) -> Self:
        """Return a copy that pushes differently.

        Args:
            priority: a band or a number from -100 to 100.
            queue: another queue.
            delay: seconds (or a ``timedelta``) until the job is eligible.
            at: when it is eligible; aware where ``USE_TZ`` is on.
            timeout: seconds a push waits for room; 0 never waits, ``None`` waits for ever.
            on_commit: ``False`` pushes at once, although a transaction on another database is open.

        Raises ``InvalidTask`` for a wrong value.
        """
        changes: dict[str, Any] = {}
        if priority is not UNSET:
            changes["priority"] = _checked_priority(priority)
        if queue is not UNSET:
            changes["queue"] = queue
        if delay is not UNSET:
            changes.update(delay_seconds=_seconds("delay", delay), at=None)
        if at is not UNSET:
            changes.update(at=_epoch(at), delay_seconds=0.0)
        if timeout is not UNSET:
            changes["timeout"] = None if timeout is None else _seconds("timeout", timeout)
        if on_commit is not UNSET:
            changes["on_commit"] = bool(on_commit)
        return self._changed(changes)

    def _changed(self, changes: Mapping[str, Any]) -> Self:
        copy = object.__new__(type(self))
        put = object.__setattr__
        for name in VALUES:
            put(copy, name, changes[name] if name in changes else getattr(self, name))
        put(copy, "_is_async", self._is_async)
        put(copy, "_metadata", self._metadata)
        put(copy, "_stores", self._stores)
        put(copy, "_route", None)
        # Not the whole of its dict: a mock's method there is bound to this task.
        copy.__dict__.update(self._metadata)
        return copy

    # Pushing

    def push(self, *args: P.args, **kwargs: P.kwargs) -> PushedJob[R]:
        """Add a call of the task to its queue, and wait for room while the queue is full.

        Blocks in sync code and returns the job. Where an event loop runs in this thread it returns an
        awaitable of the job (``apush`` is its explicit, typed twin).

        Raises ``QueueFull`` when there was no room in time, or when waiting is not allowed;
        ``InvalidPayload`` for arguments that JSON would change; ``TypeError`` for arguments the function
        does not take; ``UnknownQueue``, ``UnknownBand``; ``StoreError`` if the store failed.
        """
        if on_event_loop():
            return Pushing(self, ((args, kwargs),), one=True)  # type: ignore[return-value]
        return cast("PushedJob[R]", push(self, ((args, kwargs),))[0])

    async def apush(self, *args: P.args, **kwargs: P.kwargs) -> Job[R]:
        """Push as ``push`` does, in async code."""
        return await Pushing(self, ((args, kwargs),), one=True)  # type: ignore[no-any-return]

    def push_many(self, calls: Iterable[tuple[Any, ...] | Mapping[str, Any]]) -> Sequence[Job[R]]:
        """Push many calls at once, in order: fewer commits than one by one.

        As many as there is room for are taken at a time. ``QueueFull.pushed`` holds those that were taken
        before the room ran out; inside a transaction it is all or none. Where an event loop runs it
        returns an awaitable, as ``push``.

        Args:
            calls: for each job a tuple of positional or a dict of keyword arguments.
        """
        if on_event_loop():
            return Pushing(self, calls_of(calls), one=False)  # type: ignore[return-value]
        return push(self, calls_of(calls))

    async def apush_many(self, calls: Iterable[tuple[Any, ...] | Mapping[str, Any]]) -> Sequence[Job[R]]:
        """Push as ``push_many`` does, in async code."""
        return await Pushing(self, calls_of(calls), one=False)  # type: ignore[no-any-return]

    @property
    def is_async(self) -> bool:
        """Whether its jobs run on the event loop: the function is an ``async def``, or is marked as one."""
        known = self._is_async
        if known is None:
            known = iscoroutinefunction(self.function)
            object.__setattr__(self, "_is_async", known)
        return known


class AsyncTask(Task[P, R]):
    """The task of an ``async def``: a call of it is awaited. In all else it is a ``Task``."""

    __slots__ = ()

    @markcoroutinefunction
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:  # type: ignore[override]
        """Call the function here and now, as if it were no task; ``await`` what it returns."""
        return self.function(*args, **kwargs)  # type: ignore[no-any-return]


def _priority_of(priority: str | int | None, metadata: Mapping[str, Any] | None) -> str | int:
    if metadata is not None:
        unknown = set(metadata) - {"priority"}
        if unknown:
            raise InvalidTask(f"metadata has unknown keys {sorted(unknown)}; it may hold 'priority'.")
        if priority is not None and "priority" in metadata:
            raise InvalidTask("give the priority once: priority=..., or metadata={'priority': ...}.")
        priority = metadata.get("priority", priority)
    return 0 if priority is None else _checked_priority(priority)


def _checked_priority(priority: object) -> str | int:
    if isinstance(priority, str) and priority:
        return priority
    if wanted := priority_problem(priority):
        raise InvalidTask(f"priority {priority!r} must be a band of JOBIFY['PRIORITIES'] or {wanted}.")
    return cast(int, priority)


def _seconds(name: str, value: object) -> float:
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 <= seconds < 10**10:
        raise InvalidTask(f"{name} {value!r} must be a number of seconds, 0 or more.")
    return float(seconds)


def _epoch(at: object) -> float:
    if not isinstance(at, datetime):
        raise InvalidTask(f"at {at!r} must be a datetime.")
    if timezone.is_naive(at):
        if not settings.USE_TZ:  # naive times are local ones
            return timezone.make_aware(at).timestamp()
        raise InvalidTask(f"at {at!r} has no time zone; with USE_TZ on it must be aware.")
    return at.timestamp()
