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

from jobify_django.conf import expected_priority
from jobify_django.exceptions import InvalidTask
from jobify_django.handle import Job, PushedJob
from jobify_django.push.awaitable import AwaitablePush
from jobify_django.push.plan import UNSET, PushPlan
from jobify_django.push.push import calls_of, push
from jobify_django.registry import Declaration, name_and_declaration, tasks
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

    Other decorators may stand under ``@task``. ``functools.wraps`` on what such a decorator returns gives the
    task the function's name and module; without it the task needs a ``name`` here.

    Args:
        function: the function, where ``@task`` is written without parentheses.
        name: the task's name in the store; by default the function's dotted path.
        queue: the queue its jobs go to.
        priority: a band (a name from ``JOBIFY["PRIORITIES"]``), or a number from -100 to 100; jobs of a
            higher priority run first.
        metadata: ``{"priority": n}`` means ``priority=n``, as in the library jobify.

    Raises ``InvalidTask`` for a function that a worker could not find, or for a wrong value;
    ``DuplicateTask`` if another function has the name. ``manage.py check`` and ``push`` report an unknown
    band or queue.
    """
    priority_value = _priority_of(priority, metadata)

    # The module in which ``@task`` stands is ``depth`` frames above ``register``: with parentheses the module
    # calls ``register`` itself, without them it calls ``task``.
    def register(function: Callable[..., Any], depth: int = 1) -> Task[Any, Any]:
        if isinstance(function, Task):
            raise InvalidTask(f"{function!r} is a task already; using(...) returns a changed copy of it.")
        task_name, declaration = name_and_declaration(function, name, sys._getframe(depth))
        kind = AsyncTask if iscoroutinefunction(function) else Task
        return tasks.register(
            kind(function, task_name, queue=queue, priority=priority_value, declaration=declaration)
        )

    return register if function is None else register(function, depth=2)


class _Decorator(Protocol):
    """How ``@task(...)`` looks to a type checker."""

    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncTask[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> Task[P, R]: ...


COPIED = (
    "function",
    "name",
    "queue",
    "priority",
    "delay_seconds",
    "at",
    "timeout",
    "on_commit",
    "declaration",
)
"""The attributes of a task that ``using`` copies, or changes in the copy."""

OTHER_LIBRARIES = {
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
"""The methods of other task libraries that add a job, and what to call instead."""


class NoSuchMethod(InvalidTask, AttributeError):
    """A task has no method of this name: it belongs to another task library."""


class Task(Generic[P, R]):
    """A registered function. ``using`` returns a changed copy.

    Calling a task calls its function. The task has the function's name, docstring and signature, and
    ``inspect.unwrap(task)`` returns the function. Tasks are compared by identity. Attributes and methods of a
    task can be assigned, as ``mock.patch.object`` does: later pushes, and later jobs that this process runs,
    use the assigned value.

    A job is *eligible* once its delay is over: from then on a worker may start it. A queue has *room* while
    fewer jobs wait in it than its ``maxsize`` says; delayed ones do not count.

    Attributes:
        function: the function that a call of the task calls.
        name: the task's name in the store.
        queue: the queue its jobs go to.
        priority: a band or a number.
        delay_seconds: seconds from the push until the job is eligible.
        at: when the job is eligible, in seconds since the epoch; ``None``: ``delay_seconds`` counts.
        timeout: seconds a push may wait for room, or for locks of other transactions (not how long a job may
            run). 0 does not wait for room, ``None`` waits for ever, and unset it is the queue's
            ``PUSH_TIMEOUT``.
        on_commit: whether a push waits for the commit of a transaction that is open on another database than
            the store's. A transaction on the store's own database needs no waiting: the job is part of it.
        declaration: where the task is declared: its module, file and line.
    """

    # The state of a task is in slots, because functools.wraps in a decorator above ``@task`` copies the whole
    # ``__dict__``. That holds only what was copied from the function in the same way, and what mocks assign.
    __slots__ = (*COPIED, "__dict__", "__weakref__", "_is_async", "_plan", "_stores", "_wrapped")

    __name__: str
    __qualname__: str
    _is_async: bool | None
    _plan: PushPlan | None
    _stores: StoreHandler
    _wrapped: Mapping[str, Any]

    def __init__(
        self,
        function: Callable[..., Any],
        name: str,
        *,
        queue: str = "default",
        priority: str | int = 0,
        declaration: Declaration | None = None,
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
        self.declaration = declaration or Declaration.of(function)
        self._stores = stores
        # The function under all decorators first: an object that a decorator returns may lack a name.
        for source in (inspect.unwrap(function), function):
            update_wrapper(self, source, updated=())
        self._wrapped = dict(vars(self))

    def __repr__(self) -> str:
        defaults = {"queue": "default", "priority": 0, "delay_seconds": 0.0, "at": None, "on_commit": True}
        shown = [
            f" {n}={getattr(self, n)!r}" for n, default in defaults.items() if getattr(self, n) != default
        ]
        return f"<{type(self).__name__} {self.name}{''.join(shown)}>"

    def __reduce__(self) -> str:
        return self.__qualname__  # pickled and copied as a function is: by module and qualified name

    # Hidden from type checkers: with ``__setattr__`` and ``__getattr__`` they would accept any attribute.
    if not TYPE_CHECKING:

        def __setattr__(self, name, value):
            object.__setattr__(self, name, value)
            # Computed from the attributes, one of which has changed (``mock.patch.object`` assigns, too).
            object.__setattr__(self, "_plan", None)
            object.__setattr__(self, "_is_async", None)

        def __getattr__(self, name):
            if name in OTHER_LIBRARIES:
                raise NoSuchMethod(f"a task has no .{name}(): {OTHER_LIBRARIES[name]}.")
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function in this thread, as if it were no task: no job is pushed."""
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
            delay: seconds (or a ``timedelta``) from the push until a worker may start the job.
            at: when a worker may start the job; an aware datetime where ``USE_TZ`` is on.
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
        for name in COPIED:
            put(copy, name, changes[name] if name in changes else getattr(self, name))
        put(copy, "_is_async", self._is_async)
        put(copy, "_wrapped", self._wrapped)
        put(copy, "_stores", self._stores)
        put(copy, "_plan", None)
        # Not the whole ``__dict__``: a method that a mock has put there is bound to the original.
        copy.__dict__.update(self._wrapped)
        return copy

    # Pushing

    def push(self, *args: P.args, **kwargs: P.kwargs) -> PushedJob[R]:
        """Add a call of the task to its queue, and wait for room while the queue is full.

        Blocks in sync code and returns the job. Where an event loop runs in this thread it returns an
        awaitable of the job; ``apush`` does the same, and type checkers know that it is to be awaited.

        With the store on a database that has a transaction open here, the job is part of that transaction.
        With a transaction open on another database, the job is pushed when that transaction commits: until
        then no store holds the job, and ``QueueFull`` is raised where the ``atomic`` block ends.

        Raises ``QueueFull`` if there was no room within ``timeout``, and at once in a full queue where the
        push may not wait: inside a transaction on the store's database, in a job whose waiting would leave
        no free worker for the queue in this process, and if ``MAX_WAITING_PUSHES`` of this process wait
        already. Raises ``InvalidPayload`` for arguments that JSON would change (a tuple, or a dict with keys
        that are no strings); ``TypeError`` for arguments that the function does not take; ``UnknownQueue``;
        ``UnknownBand``; ``StoreError`` if the store failed.
        """
        if on_event_loop():
            return AwaitablePush(self, ((args, kwargs),), one=True)  # type: ignore[return-value]
        return cast("PushedJob[R]", push(self, ((args, kwargs),))[0])

    async def apush(self, *args: P.args, **kwargs: P.kwargs) -> Job[R]:
        """Push as ``push`` does, in async code."""
        return await AwaitablePush(self, ((args, kwargs),), one=True)  # type: ignore[no-any-return]

    def push_many(self, calls: Iterable[tuple[Any, ...] | Mapping[str, Any]]) -> Sequence[Job[R]]:
        """Push many calls at once, in order: fewer commits than one by one.

        The store accepts as many jobs as fit, then the push waits for more room. If it is refused,
        ``QueueFull.pushed`` holds the jobs that were accepted before, and these will run. Inside a
        transaction on the store's database the store accepts all of the jobs or none. Where an event loop
        runs in this thread it returns an awaitable, as ``push`` does.

        Args:
            calls: for each job a tuple of positional or a dict of keyword arguments.
        """
        if on_event_loop():
            return AwaitablePush(self, calls_of(calls), one=False)  # type: ignore[return-value]
        return push(self, calls_of(calls))

    async def apush_many(self, calls: Iterable[tuple[Any, ...] | Mapping[str, Any]]) -> Sequence[Job[R]]:
        """Push as ``push_many`` does, in async code."""
        return await AwaitablePush(self, calls_of(calls), one=False)  # type: ignore[no-any-return]

    @property
    def is_async(self) -> bool:
        """Whether its jobs run on the event loop: the function is an ``async def``, or is marked as one."""
        cached = self._is_async
        if cached is None:
            cached = iscoroutinefunction(self.function)
            object.__setattr__(self, "_is_async", cached)
        return cached


class AsyncTask(Task[P, R]):
    """The task of an ``async def``. It differs from ``Task`` in one thing: what a call returns is awaited."""

    __slots__ = ()

    @markcoroutinefunction
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:  # type: ignore[override]
        """Call the function in this thread, as if it were no task; ``await`` what it returns."""
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
    if expected := expected_priority(priority):  # what a number would have to be; empty if it is good
        raise InvalidTask(f"priority {priority!r} must be a band of JOBIFY['PRIORITIES'] or {expected}.")
    return cast(int, priority)


def _seconds(name: str, value: object) -> float:
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 <= seconds < 10**10:
        raise InvalidTask(f"{name} {value!r} must be a number of seconds, 0 or more (and below 10 billion).")
    return float(seconds)


def _epoch(at: object) -> float:
    if not isinstance(at, datetime):
        raise InvalidTask(f"at {at!r} must be a datetime.")
    if timezone.is_naive(at):
        if not settings.USE_TZ:  # naive times are local ones
            return timezone.make_aware(at).timestamp()
        raise InvalidTask(f"at {at!r} has no time zone; with USE_TZ on it must be aware.")
    return at.timestamp()
