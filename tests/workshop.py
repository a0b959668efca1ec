"""A pool at work on a thread of its own, jobs that do what a test says, and a store that fails when told."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import itertools
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils.module_loading import import_string

from jobify_django import Job, task
from jobify_django.conf import get_settings
from jobify_django.exceptions import StoreError
from jobify_django.pool import Service
from jobify_django.pool.pool import Pool
from jobify_django.registry import tasks
from jobify_django.runtime import MACHINE, Runtime
from jobify_django.stores import BUILT_IN, stores
from jobify_django.stores.base import Store
from jobify_django.stores.database import DatabaseStore
from jobify_django.stores.memory import MemoryStore
from jobify_django.task import Task
from jobify_django.waiting.result import ResultWaits
from tests.child import PATIENCE, until

# The stores a test runs on: parameters of the fixture ``jobify``


def _on(*names: str) -> pytest.MarkDecorator:
    parameters = [
        pytest.param(
            name,
            id="database" if "atabase" in name else "memory",
            marks=pytest.mark.django_db(transaction=True) if "atabase" in name else (),
        )
        for name in names
    ]
    return pytest.mark.parametrize("jobify", parameters, indirect=True)


memory = _on("memory")
database = _on("database")
both = _on("memory", "database")
faulty = _on("tests.workshop.FaultyMemory", "tests.workshop.FaultyDatabase")
"""The same two, which fail when ``trouble`` says so."""


class Configure:
    """The settings of a test; call it to change them.

    Args:
        django: Django's settings, as pytest-django lends them.
        store: where the jobs of all queues wait.
    """

    def __init__(self, django: Any, store: str) -> None:
        self._django = django
        self._store = store
        self._runtime = MACHINE

    def __call__(self, **values: Any) -> None:
        self._django.JOBIFY = {"STORE": self._store, "PUSH_TIMEOUT": 0, **values}
        if self._runtime is not MACHINE:
            self.run_on(self._runtime)

    def run_on(self, runtime: Runtime) -> None:
        """Make the stores of all queues on a machine that a test hands in: now, and after each change."""
        self._runtime = runtime
        for name in {queue.store for queue in get_settings().queues.values()}:
            stores.put(import_string(BUILT_IN.get(name, name))(name, runtime=runtime))


def awaiting(store: Store) -> int:
    """Return how many waits of this process for the end of jobs are in place."""
    alone = store.wakers if isinstance(store, MemoryStore) else 0
    return store.process_local(ResultWaits).waiting + alone


# Jobs that do what a test says


class Gate:
    """Where a job says that it has begun, and waits until it may go on."""

    def __init__(self) -> None:
        self.began = threading.Event()
        self.opened = threading.Event()

    def pass_through(self) -> None:
        """Wait in a thread."""
        self.began.set()
        assert self.opened.wait(PATIENCE), "nobody opened the gate"

    async def apass_through(self) -> None:
        """Wait on an event loop."""
        self.began.set()
        while not self.opened.is_set():  # noqa: ASYNC110 - it is opened from another thread
            await asyncio.sleep(0.005)

    def reached(self) -> None:
        """Wait, in the test, until a job is there."""
        assert self.began.wait(PATIENCE), "no job came to the gate"

    def open(self) -> None:
        """Let everybody through."""
        self.opened.set()


actions: dict[str, Callable[[], Any]] = {}
_gates: list[Gate] = []
_names = map(str, itertools.count(1))


@task
def do(name: str) -> Any:
    """Do what the test said under this name."""
    return actions[name]()


@task
async def ado(name: str) -> Any:
    """Do what the test said under this name, on the event loop."""
    return await actions[name]()


def named(action: Callable[[], Any]) -> str:
    """Return the name under which ``do`` and ``ado`` find an action."""
    name = next(_names)
    actions[name] = action
    return name


def pushed(action: Callable[[], Any], **using: Any) -> Job[Any]:
    """Push a job that does this, and return it."""
    chosen = ado if inspect.iscoroutinefunction(action) else do
    return chosen.using(**using).push(named(action))


def a_gate() -> Gate:
    """Return a gate that is open again when the test ends."""
    gate = Gate()
    _gates.append(gate)
    return gate


def held(**using: Any) -> tuple[Job[Any], Gate]:
    """Push a ``def`` job that waits at a gate."""
    gate = a_gate()
    return pushed(gate.pass_through, **using), gate


def aheld(**using: Any) -> tuple[Job[Any], Gate]:
    """Push an ``async def`` job that waits at a gate."""
    gate = a_gate()
    return pushed(gate.apass_through, **using), gate


def clear() -> None:
    """Open every gate, and forget everything."""
    for gate in _gates:
        gate.open()
    _gates.clear()
    actions.clear()
    trouble.clear()


@contextlib.contextmanager
def only_these_tasks(*kept: Task[..., Any]) -> Iterator[None]:
    """Let this process have these tasks and no other ones while the block runs, whatever it declares."""
    before = list(tasks)
    _register_only(kept)
    try:
        yield
    finally:
        _register_only(before)


def _register_only(kept: Iterable[Any]) -> None:
    for one in list(tasks):
        tasks.forget(one.name)
    for one in kept:
        tasks.register(one)


# Pools


class Workshop:
    """A service on an event loop of its own."""

    def __init__(self, service: Service, loop: asyncio.AbstractEventLoop) -> None:
        self.service = service
        self.loop = loop

    @property
    def pool(self) -> Pool:
        """Its only pool."""
        (pool,) = self.service.pools
        return pool

    def turn(self, times: int = 2) -> None:
        """Wait until the pool has looked for jobs so many times more."""
        goal = self.pool.turns + times
        while self.pool.turns < goal:
            seen = self.pool.turns
            self.pool.wake()
            until(lambda seen=seen: self.pool.turns > seen, "the pool's next turn")


@contextlib.contextmanager
def at_work(grace: float = PATIENCE, **options: Any) -> Iterator[Workshop]:
    """Serve the configured queues on a thread while the block runs."""
    ready = threading.Event()
    made: list[Workshop] = []
    stops: list[asyncio.Event] = []
    failed: list[BaseException] = []

    async def serve() -> None:
        service = Service(**options)
        stop = asyncio.Event()
        await service.start()
        made.append(Workshop(service, asyncio.get_running_loop()))
        stops.append(stop)
        ready.set()
        await stop.wait()
        await service.drain(grace)

    def main() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:
            failed.append(error)
        finally:
            ready.set()

    thread = threading.Thread(target=main, name="workshop")
    thread.start()
    assert ready.wait(PATIENCE)
    try:
        if not failed:
            yield made[0]
    finally:
        for gate in _gates if grace >= PATIENCE else ():
            gate.open()
        if made:
            made[0].loop.call_soon_threadsafe(stops[0].set)
        thread.join(grace + PATIENCE)  # not less than it may take, or this hides what the block raised
        assert not thread.is_alive(), "the service did not stop"
    if failed:
        raise failed[0]


# A store that fails when told to


class Trouble:
    """Which verbs of the faulty stores fail: before they do their work, or after it (the reply is lost).

    ``met`` counts the calls that failed, ``done`` those that went through.
    """

    def __init__(self) -> None:
        self.begun: Counter[str] = Counter()
        self.changed = threading.Condition()
        self.clear()

    def clear(self) -> None:
        """Everything works again."""
        self.before: frozenset[str] = frozenset()
        self.after: dict[str, int] = {}
        self.met: Counter[str] = Counter()
        self.done: Counter[str] = Counter()

    def break_down(self, *verbs: str) -> None:
        """Let these verbs fail until the trouble is cleared.

        Calls that had begun before go through: when this returns, they have ended. A claim that is still
        under way would take the job that a test pushes next.
        """
        with self.changed:
            self.before = frozenset(verbs)
            ended = self.changed.wait_for(lambda: not any(self.begun[v] for v in verbs), PATIENCE)
        assert ended, f"calls that do not end: {self.begun}"

    def lose_reply(self, verb: str) -> None:
        """Let the next call of this verb that does something fail after it is done."""
        self.after[verb] = 1


trouble = Trouble()

VERBS = [name for name in Store.__abstractmethods__]


def _troubled(verb: str, work: Callable[..., Any]) -> Callable[..., Any]:
    def call(self: Store, *args: Any, **kwargs: Any) -> Any:
        with trouble.changed:
            if verb in trouble.before:
                trouble.met[verb] += 1
                raise StoreError(f"{verb} does not work today.")
            trouble.begun[verb] += 1
        try:
            done = work(self, *args, **kwargs)
        finally:
            with trouble.changed:
                trouble.begun[verb] -= 1
                trouble.changed.notify_all()
        trouble.done[verb] += 1
        if trouble.after.get(verb) and (verb != "claim" or done.claims):
            trouble.after[verb] -= 1
            trouble.met[verb] += 1
            raise StoreError(f"the reply to {verb} was lost.")
        return done

    return call


def _with_trouble(kind: type[Store]) -> Any:
    return type(f"Faulty{kind.__name__}", (kind,), {v: _troubled(v, getattr(kind, v)) for v in VERBS})


FaultyMemory = _with_trouble(MemoryStore)
FaultyDatabase = _with_trouble(DatabaseStore)


def notice_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no database store notice what other processes write."""
    monkeypatch.setattr(type(DatabaseStore()), "change_detector", lambda self: None)


def elsewhere(work: Any) -> Any:
    """Run something on a thread, and so on a connection, of its own; return what it returned."""
    answers: list[Any] = []

    def run() -> None:
        try:
            answers.append(work())
        except BaseException as error:
            answers.append(error)
        finally:
            connections.close_all()

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(PATIENCE)
    assert answers, "it did not end"
    if isinstance(answers[0], BaseException):
        raise answers[0]
    return answers[0]


async def connection_of_the_orm() -> BaseDatabaseWrapper:
    """Use the ORM in async code, and return the connection of the thread that it ran on."""
    # Not at the top: another process reads this module before Django is set up, which models cannot bear.
    from django.contrib.auth.models import Group

    await Group.objects.acount()
    wrapper = await sync_to_async(lambda: connections["default"])()
    assert wrapper.connection is not None
    return wrapper
