"""``@task``: registering functions, and pushing calls of them."""

from __future__ import annotations

import asyncio
import inspect
import sys
import time
from collections.abc import Callable, Coroutine, Generator, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial, update_wrapper
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, ParamSpec, Self, TypeVar, cast, overload

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.db import connections, transaction
from django.utils import timezone

from jobify_django.bell import Bell, Call, Steps, arun, on_event_loop, run, sync_code_waits
from jobify_django.conf import QueueSettings, Settings, get_settings, priority_problem
from jobify_django.exceptions import InvalidPayload, InvalidTask, QueueFull
from jobify_django.handle import Job, PushedJob
from jobify_django.job import JobSpec, new_id
from jobify_django.line import Admission, Line
from jobify_django.log import get_log, quoted
from jobify_django.lookout import Lookout
from jobify_django.payload import encode_call
from jobify_django.registry import Place, declared, tasks
from jobify_django.stores import stores
from jobify_django.stores.base import Store
from jobify_django.stores.value import Anchor

P = ParamSpec("P")
R = TypeVar("R")

logger = get_log("jobify.push")

UNSET: Any = object()


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


class _Decorator:
    """How ``@task(...)`` looks to a type checker."""

    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncTask[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> Task[P, R]: ...
    def __call__(self, function: Any, /) -> Any:
        """Register the function."""


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
    __slots__ = (*VALUES, "__dict__", "__weakref__", "_is_async", "_metadata", "_route_kept")

    function: Callable[..., Any]
    name: str
    queue: str
    priority: str | int
    delay_seconds: float
    at: float | None
    timeout: float | None
    on_commit: bool
    place: Place
    __name__: str
    __qualname__: str
    _is_async: bool | None
    _metadata: Mapping[str, Any]
    _route_kept: _Route | None

    def __init__(
        self,
        function: Callable[..., Any],
        name: str,
        *,
        queue: str = "default",
        priority: str | int = 0,
        place: Place | None = None,
    ) -> None:
        self.function = function
        self.name = name
        self.queue = queue
        self.priority = priority
        self.delay_seconds = 0.0
        self.at = None
        self.timeout = UNSET
        self.on_commit = True
        self.place = place or Place.of(function)
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
            object.__setattr__(self, "_route_kept", None)
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
        put(copy, "_route_kept", None)
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
        return cast("PushedJob[R]", self._push_all(((args, kwargs),))[0])

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
            return Pushing(self, _calls(calls), one=False)  # type: ignore[return-value]
        return self._push_all(_calls(calls))

    async def apush_many(self, calls: Iterable[tuple[Any, ...] | Mapping[str, Any]]) -> Sequence[Job[R]]:
        """Push as ``push_many`` does, in async code."""
        return await Pushing(self, _calls(calls), one=False)  # type: ignore[no-any-return]

    def _push_all(self, calls: _Calls) -> list[Job[R]]:
        if not calls:
            return []
        route = self._route()
        specs = self._specs(route, calls)
        if self._deferred(route, specs):
            return route.jobs(specs)
        if (jobs := route.at_once(specs)) is not None:
            return jobs
        return run(partial(self._steps, route, specs))

    def _pushing(self, calls: _Calls, *, one: bool) -> Generator[Any, Any, Any]:
        """Push in async code: what ``await`` runs, and no coroutine, of which most pushes have no need."""
        if not calls:
            return []
        route = self._route()
        specs = self._specs(route, calls)
        blocking = route.store.blocking
        # Async code holds no transaction open across an await; but sync code that waits for it may.
        if self.on_commit and sync_code_waits():
            later = yield from arun(partial(self._deferral, route, specs), blocking=True).__await__()
            if later:
                jobs = route.jobs(specs)
                return jobs[0] if one else jobs
        at_once = None if blocking else route.at_once(specs)
        jobs = at_once or (yield from arun(partial(self._steps, route, specs), blocking=blocking).__await__())
        return jobs[0] if one else jobs

    def _route(self) -> _Route:
        settings = get_settings()
        route = self._route_kept
        if route is None or route.settings is not settings or stores.of(route.queue) is not route.store:
            route = _Route.of(self, settings)
            object.__setattr__(self, "_route_kept", route)
            if self.place.is_only_here:
                route.lookout.warn_of_main(self.name, self.queue)
        return route

    def _specs(self, route: _Route, calls: _Calls) -> list[JobSpec]:
        specs: list[JobSpec] = []
        try:
            for args, kwargs in calls:
                if kwargs or not route.fewest <= len(args) <= route.most:
                    route.signature.bind(*args, **kwargs)
                arguments = encode_call(args, kwargs, route.settings.max_payload)
                given = (new_id(), self.name, arguments, route.priority, self.delay_seconds, self.at)
                specs.append(JobSpec(*given))
        except (InvalidPayload, TypeError) as error:
            if len(calls) == 1:
                raise
            raise _of_call(len(specs), error) from error
        return specs

    def _steps(self, route: _Route, specs: Sequence[JobSpec], bell: Bell) -> Steps[list[Job[Any]]]:
        admission = route.admission(specs)
        try:
            yield from admission.steps(bell)
            if route.lookout.is_due(self.queue):
                yield from route.lookout.glance(self.queue)
        except QueueFull as full:
            full.pushed = route.jobs(admission.anchors or admission.specs, admission.moments)[: full.taken]
            raise
        except (Exception, GeneratorExit):
            raise
        except BaseException:  # cancelled or interrupted: nobody will ever know of these jobs
            yield from admission.take_back()
            raise
        return route.jobs(admission.anchors or specs, admission.moments)

    def _deferral(self, route: _Route, specs: Sequence[JobSpec], bell: Bell) -> Steps[bool]:
        later = _Later(partial(self._steps, route, specs))
        try:
            return (yield Call(partial(self._deferred, route, specs, later)))  # type: ignore[no-any-return]
        except BaseException:  # cancelled: nobody will ever know of these jobs
            later.given_up = True
            raise

    def _deferred(self, route: _Route, specs: Sequence[JobSpec], later: _Later | None = None) -> bool:
        """Leave the push to the commit of this thread's transaction, if it has one on another database."""
        if not self.on_commit or (database := _open_besides(route.store)) is None:
            return False
        later = later or _Later(partial(self._steps, route, specs))
        transaction.on_commit(later, using=database)
        return True

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


class _Later:
    """A push that a transaction's commit makes."""

    def __init__(self, steps: Callable[[Bell], Steps[Any]]) -> None:
        self._steps = steps
        self.given_up = False

    def __call__(self) -> None:
        if not self.given_up:
            run(self._steps)


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


_Calls = Sequence[tuple[tuple[Any, ...], dict[str, Any]]]
_End = tuple[Any, Exception | None]


class _Route(NamedTuple):
    """Where a task's pushes go under the settings in force: worked out once, not at every push."""

    settings: Settings
    queue: QueueSettings
    store: Store
    line: Line
    lookout: Lookout
    priority: int
    timeout: float | None
    signature: inspect.Signature
    fewest: int
    most: int

    @classmethod
    def of(cls, task: Task[Any, Any], settings: Settings) -> _Route:
        queue = settings.queue(task.queue)
        store = stores.of(queue)
        signature = inspect.signature(task.function)
        return cls(
            settings,
            queue,
            store,
            Line.of(store, queue.name),
            store.beside("lookout", Lookout, store),
            queue.priority(task.priority),
            queue.push_timeout if task.timeout is UNSET else task.timeout,
            signature,
            *_positional(signature),
        )

    def at_once(self, specs: Sequence[JobSpec]) -> list[Job[Any]] | None:
        """Add all the jobs here and now, or none: ``None`` if they must wait, or if a look is due."""
        if self.line.busy or self.lookout.is_due(self.queue.name):
            return None
        added = self.store.add(self.queue, specs, whole=True, patience=self.timeout)
        if added.taken < len(specs):
            return None
        return self.jobs(added.anchors or specs, (added.now,) * added.taken)

    def admission(self, specs: Sequence[JobSpec]) -> Admission:
        return Admission(self.line, self.queue, specs, self.timeout)

    def jobs(self, sources: Sequence[JobSpec | Anchor], moments: Sequence[float] = ()) -> list[Job[Any]]:
        """Return the handles of jobs, and when each was pushed on its store's clock; those that are yet to be
        pushed, or whose store does not tell, go by the clock here."""
        store, name = self.store, self.queue.name
        if len(moments) < len(sources) or not all(moments):
            moments = [*filter(None, moments)] + [time.time()] * len(sources)
        return [Job(store, name, source, moment) for source, moment in zip(sources, moments, strict=False)]


def _positional(signature: inspect.Signature) -> tuple[int, int]:
    """Return how few and how many arguments fit by position, if all can be given so: then counting checks a
    call. Otherwise ``(0, -1)``, which no call fits."""
    parameters = signature.parameters.values()
    plain = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    if any(p.kind not in plain for p in parameters):
        return 0, -1
    return sum(p.default is inspect.Parameter.empty for p in parameters), len(parameters)


class Pushing(Coroutine[Any, Any, Any]):
    """The awaitable of a push: it pushes once, and gives the same job, or error, to all who await it.

    One that is dropped without being awaited is reported: it pushed nothing.
    """

    __slots__ = ("_calls", "_driven", "_end", "_one", "_others", "_task")

    def __init__(self, pushed: Task[Any, Any], calls: _Calls, *, one: bool) -> None:
        self._task = pushed
        self._calls = calls
        self._one = one
        self._end: _End | None = None
        self._others: tuple[asyncio.Future[None], ...] | None = None
        self._driven: dict[object, Generator[Any, Any, Any]] | None = None

    def __await__(self) -> Generator[Any, Any, Any]:
        if self._others is not None:
            return (yield from self._again())
        self._others = ()
        try:
            value = yield from self._task._pushing(self._calls, one=self._one)
        except BaseException as error:
            self._settle(None, error if isinstance(error, Exception) else self._cancelled())
            del self  # the error holds this frame, and must not hold what holds the error
            raise
        self._end = value, None
        if self._others:
            self._settle(value, None)
        return value

    def _again(self) -> Generator[Any, Any, Any]:
        """Give what the push gave to one who came later."""
        if self._end is None:
            ended = asyncio.get_running_loop().create_future()
            self._others = (*self._others, ended)  # type: ignore[misc]
            yield from ended
        value, error = self._end  # type: ignore[misc]
        if error is not None:
            raise error
        return value

    def _settle(self, value: Any, error: Exception | None) -> None:
        self._end = value, error
        others, self._others = self._others or (), ()
        for ended in others:
            if not ended.done() and not ended.get_loop().is_closed():
                ended.set_result(None)

    def _cancelled(self) -> RuntimeError:
        return RuntimeError(
            f"this push of task {self._task.name} was cancelled before it had ended, so nothing was pushed. "
            "Push again."
        )

    # As a coroutine, for asyncio.create_task and what uses it. Each task has a run of its own.

    def send(self, value: Any) -> Any:
        return self._drive("send", value)

    def throw(self, *error: Any) -> Any:
        if self._others is None:  # cancelled before its first step
            self._settle(None, self._cancelled())
        return self._drive("throw", *error)

    def close(self) -> None:
        if self._others is None:
            self._settle(None, self._cancelled())
        for steps in list((self._driven or {}).values()):
            steps.close()

    def _drive(self, verb: str, *values: Any) -> Any:
        self._driven = driven = {} if self._driven is None else self._driven
        driver = asyncio.current_task()
        if driver not in driven:
            driven[driver] = self.__await__()
        try:
            return getattr(driven[driver], verb)(*values)
        except BaseException:
            del driven[driver]
            raise

    def __del__(self) -> None:
        if self._others is None:
            logger.error(
                "a push of task %s was never awaited, so nothing was pushed: write 'await %s.push(...)'",
                quoted(self._task.name),
                quoted(self._task.__name__),
            )


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
        if timezone.is_naive(timezone.now()):  # USE_TZ is off: naive times are local ones
            return timezone.make_aware(at).timestamp()
        raise InvalidTask(f"at {at!r} has no time zone; with USE_TZ on it must be aware.")
    return at.timestamp()


def _of_call(number: int, error: InvalidPayload | TypeError) -> Exception:
    words = f"call {number} of push_many: {error}"
    return InvalidPayload(words, error.path) if isinstance(error, InvalidPayload) else TypeError(words)


def _calls(calls: Iterable[tuple[Any, ...] | Mapping[str, Any]]) -> _Calls:
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
