"""``@task``: registering functions, and pushing calls of them."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable, Coroutine, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cached_property, partial
from typing import Any, Generic, NamedTuple, ParamSpec, TypeVar, cast, overload

from django.db import connections, transaction
from django.utils import timezone

from jobify_django.bell import Bell, Call, Steps, arun, on_event_loop, run, sync_code_waits
from jobify_django.conf import QueueSettings, Settings, did_you_mean, get_settings, priority_problem, some_of
from jobify_django.exceptions import DuplicateTask, InvalidTask, QueueFull, UnknownTask
from jobify_django.handle import Job, PushedJob
from jobify_django.job import JobSpec, make_spec, new_id
from jobify_django.line import Admission, Line
from jobify_django.log import get_log
from jobify_django.lookout import Lookout
from jobify_django.payload import encode_call
from jobify_django.stores import stores
from jobify_django.stores.base import Anchor, Store

P = ParamSpec("P")
R = TypeVar("R")

logger = get_log("jobify.push")

UNSET: Any = object()
LONGEST_NAME = 255


@overload
def task(function: Callable[P, Coroutine[Any, Any, R]], /) -> Task[P, R]: ...
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

    def register(function: Callable[..., Any]) -> Task[Any, Any]:
        return tasks.register(Task(function, _name_of(function, name), queue=queue, priority=wanted))

    return register if function is None else register(function)


class _Decorator:
    """How ``@task(...)`` looks to a type checker."""

    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> Task[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> Task[P, R]: ...
    def __call__(self, function: Any, /) -> Any:
        """Register the function."""


@dataclass(frozen=True)
class Task(Generic[P, R]):
    """A registered function. ``using`` returns a changed copy; the task itself never changes.

    Attributes:
        function: what it calls.
        name: how the store calls it.
        queue: the queue its jobs go to.
        priority: a band or a number.
        delay: seconds until a pushed job is eligible.
        at: when a pushed job is eligible, in seconds since the epoch.
        timeout: seconds a push waits for room; unset: the queue's ``PUSH_TIMEOUT``.
        on_commit: inside a transaction on another database than the store's, push when it commits.
    """

    function: Callable[..., Any]
    name: str
    queue: str = "default"
    priority: str | int = 0
    delay: float = 0.0
    at: float | None = None
    timeout: float | None = field(default=UNSET, repr=False)
    on_commit: bool = True

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
    ) -> Task[P, R]:
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
            changes.update(delay=_seconds("delay", delay), at=None)
        if at is not UNSET:
            changes.update(at=_epoch(at), delay=0.0)
        if timeout is not UNSET:
            changes["timeout"] = None if timeout is None else _seconds("timeout", timeout)
        if on_commit is not UNSET:
            changes["on_commit"] = bool(on_commit)
        return replace(self, **changes)

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
        route: _Route | None = self.__dict__.get("route")
        if route is None or route.settings is not settings or stores.of(route.queue) is not route.store:
            route = self.__dict__["route"] = _Route.of(self, settings)
        return route

    def _specs(self, route: _Route, calls: _Calls) -> list[JobSpec]:
        specs = []
        for args, kwargs in calls:
            if kwargs or not self._fewest <= len(args) <= self._most:
                self._signature.bind(*args, **kwargs)
            arguments = encode_call(args, kwargs, route.settings.max_payload)
            specs.append(make_spec((new_id(), self.name, arguments, route.priority, self.delay, self.at)))
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

    @cached_property
    def is_async(self) -> bool:
        """Whether the function is an ``async def``."""
        return inspect.iscoroutinefunction(self.function)

    @cached_property
    def _signature(self) -> inspect.Signature:
        return inspect.signature(self.function)

    @cached_property
    def _positional(self) -> list[inspect.Parameter] | None:
        """The parameters, if all of them can be given by position: then counting checks a call."""
        parameters = list(self._signature.parameters.values())
        plain = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        return parameters if all(p.kind in plain for p in parameters) else None

    @cached_property
    def _fewest(self) -> int:
        required = [p for p in self._positional or () if p.default is inspect.Parameter.empty]
        return len(required)

    @cached_property
    def _most(self) -> int:
        return -1 if self._positional is None else len(self._positional)


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

    @classmethod
    def of(cls, task: Task[Any, Any], settings: Settings) -> _Route:
        queue = settings.queue(task.queue)
        store = stores.of(queue)
        return cls(
            settings,
            queue,
            store,
            Line.of(store, queue.name),
            store.beside("lookout", Lookout, store),
            queue.priority(task.priority),
            queue.push_timeout if task.timeout is UNSET else task.timeout,
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
                self._task.name,
                self._task.function.__name__,
            )


class Registry:
    """The tasks of this process, by name. A worker runs what is in here and nothing else."""

    def __init__(self) -> None:
        self._tasks: dict[str, Task[Any, Any]] = {}

    def register(self, new: Task[P, R]) -> Task[P, R]:
        """Add a task; raises ``DuplicateTask`` if another function has its name."""
        old = self._tasks.get(new.name)
        if old is not None and _source(old.function) != _source(new.function):
            raise DuplicateTask(
                f"two tasks are named {new.name!r}: {_where(old.function)} and {_where(new.function)}. "
                "Rename one, or give it a name of its own: @task(name=...)."
            )
        self._tasks[new.name] = new
        return new

    def __getitem__(self, name: str) -> Task[Any, Any]:
        try:
            return self._tasks[name]
        except KeyError:
            raise UnknownTask(
                f"no task {name!r} is registered in this process{did_you_mean(name, self._tasks)}. Is the "
                "module that declares it imported (a 'tasks' module of an installed app is), and does this "
                f"process run the same code? Its tasks: {some_of(self._tasks)}."
            ) from None

    def get(self, name: str) -> Task[Any, Any] | None:
        """Return the task of this name, if there is one."""
        return self._tasks.get(name)

    def __iter__(self) -> Any:
        return iter(list(self._tasks.values()))

    def forget(self, name: str) -> None:
        """Remove a task, as tests do with one they declared."""
        self._tasks.pop(name, None)


tasks = Registry()


def _name_of(function: object, name: str | None) -> str:
    if not inspect.isfunction(function):
        raise InvalidTask(f"{function!r} is no plain function; only a 'def' or 'async def' can be a task.")
    path = f"{function.__module__}.{function.__qualname__}"
    if "." in function.__qualname__ or "<" in function.__qualname__:
        raise InvalidTask(
            f"{path} is not at the top of its module, so a worker could not find it. Move it there."
        )
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise InvalidTask(f"{path} is a generator; a task returns its result.")
    chosen = path if name is None else name
    if not chosen or len(chosen) > LONGEST_NAME or not chosen.isprintable():
        raise InvalidTask(f"{chosen!r} is no name for a task: use 1 to {LONGEST_NAME} printable characters.")
    return chosen


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


def _source(function: Callable[..., Any]) -> tuple[str, int]:
    # The same place in the same file is the same function, imported again or reloaded.
    return function.__code__.co_filename, function.__code__.co_firstlineno


def _where(function: Callable[..., Any]) -> str:
    return "{}:{}".format(*_source(function))
