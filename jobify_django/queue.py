"""``queue(name)``: looking at a queue, and tuning it while it runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

from jobify_django.conf import QueueSettings, expected_maxsize, expected_order, expected_workers, get_settings
from jobify_django.exceptions import InvalidTuning
from jobify_django.ordering import Order
from jobify_django.signals import queue_changed
from jobify_django.stores import StoreHandler, reachable, stores
from jobify_django.stores.base import Store
from jobify_django.stores.value import QueueState, QueueStats
from jobify_django.waiting.waker import off_loop

T = TypeVar("T")

UNSET: Any = object()

_EXPECTED = {"workers": expected_workers, "maxsize": expected_maxsize, "order": expected_order}


def queue(name: str = "default") -> Queue:
    """Return a queue by name; raises ``UnknownQueue``."""
    return Queue(get_settings().queue(name))


def stats_of_queues() -> Mapping[str, QueueStats | Exception]:
    """Return every queue of the settings at this moment, with one look at each store; of a store that fails,
    its error."""
    by_store, failed = reachable()
    found: dict[str, QueueStats | Exception] = {**failed}
    for store, queues in by_store.items():
        try:
            found.update(store.stats(queues))
        except Exception as error:
            found.update({one.name: error for one in queues})
    return {name: found[name] for name in get_settings().queues}


class Queue:
    """A configured queue. Live values are stored, win over the settings, and reach every pool in 2 s.

    Args:
        settings: those of the queue.
        stores: where its store is looked for; by default among those of this process.
    """

    def __init__(self, settings: QueueSettings, stores: StoreHandler = stores) -> None:
        self.settings = settings
        self._stores = stores

    def __repr__(self) -> str:
        return f"<Queue {self.name}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return queue, (self.name,)  # its settings are those of the process that it is read in

    @property
    def name(self) -> str:
        """The queue's name."""
        return self.settings.name

    @property
    def store(self) -> Store:
        """Where its jobs wait."""
        return self._stores.of(self.settings)

    def stats(self) -> QueueStats:
        """Return the queue at this moment, as one value."""
        return self.store.stats([self.settings])[self.name]

    async def astats(self) -> QueueStats:
        """Return the same, in async code."""
        return await self._ask(self.stats)

    def tune(
        self,
        *,
        workers: int | None = UNSET,
        maxsize: int | None = UNSET,
        order: Order | None = UNSET,
        actor: str = "",
        source: str = "code",
        expected: int | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> QueueState:
        """Change live values; ``None`` gives one back to the settings.

        Lowering ``maxsize`` drops nothing: pushes wait until the queue is shorter. Lowering ``workers`` lets
        running jobs finish. A new order applies to the jobs that wait already: they are moved in parts, and
        until all are, the state that is returned and shown is ``reordering``.

        Args:
            workers: how many jobs each process runs at once.
            maxsize: how many jobs may wait.
            order: ``"priority"``, ``"fifo"`` or ``"lifo"``.
            actor: who does it, for the audit trail.
            source: through which door: ``"code"``, ``"admin"`` or ``"command"``.
            expected: the version that the change is made from (``stats().state.version``, ``state.version``
                of the last change). The store compares it in the transaction that makes the change.
            progress: called with how many jobs a new order has moved so far, after each part.

        Raises ``InvalidTuning`` for a value out of range, or without any value; ``StaleVersion`` if the queue
        has another version than ``expected``.
        """
        given = {"workers": workers, "maxsize": maxsize, "order": order}
        changes = {key: value for key, value in given.items() if value is not UNSET}
        if not changes:
            raise InvalidTuning("nothing to tune: give workers, maxsize or order.")
        for key, value in changes.items():
            if value is not None and (wanted := _EXPECTED[key](value)):
                raise InvalidTuning(f"{key} of queue {self.name!r} cannot be {value!r}: it must be {wanted}.")
        return self._change(changes, actor, source, expected, progress)

    async def atune(self, **values: Any) -> QueueState:
        """Tune as ``tune`` does, in async code."""
        return await self._ask(partial(self.tune, **values))

    def reset(
        self,
        *,
        actor: str = "",
        source: str = "code",
        expected: int | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> QueueState:
        """Give ``workers``, ``maxsize`` and ``order`` back to the settings. A paused queue stays paused.

        ``expected`` and ``progress`` are as in ``tune``.
        """
        changes = {"workers": None, "maxsize": None, "order": None}
        return self._change(changes, actor, source, expected, progress)

    async def areset(
        self, *, actor: str = "", source: str = "code", expected: int | None = None
    ) -> QueueState:
        """Reset as ``reset`` does, in async code."""
        return await self._ask(partial(self.reset, actor=actor, source=source, expected=expected))

    def pause(self, *, actor: str = "", source: str = "code", expected: int | None = None) -> QueueState:
        """Start no more jobs of this queue, in any process; running ones finish, pushes are still taken.

        ``expected`` is as in ``tune``.
        """
        return self._change({"paused": True}, actor, source, expected)

    async def apause(
        self, *, actor: str = "", source: str = "code", expected: int | None = None
    ) -> QueueState:
        """Pause as ``pause`` does, in async code."""
        return await self._ask(partial(self.pause, actor=actor, source=source, expected=expected))

    def resume(self, *, actor: str = "", source: str = "code", expected: int | None = None) -> QueueState:
        """Start jobs again; ``expected`` is as in ``tune``."""
        return self._change({"paused": False}, actor, source, expected)

    async def aresume(
        self, *, actor: str = "", source: str = "code", expected: int | None = None
    ) -> QueueState:
        """Resume as ``resume`` does, in async code."""
        return await self._ask(partial(self.resume, actor=actor, source=source, expected=expected))

    def _change(
        self,
        changes: dict[str, Any],
        actor: str,
        source: str,
        expected: int | None,
        progress: Callable[[int], None] | None = None,
    ) -> QueueState:
        state = self.store.tune(
            self.settings, changes, actor=actor, source=source, expected=expected, progress=progress
        )
        queue_changed.send(sender=self.name, state=state, actor=actor)
        return state

    async def _ask(self, call: Callable[[], T]) -> T:
        if not self.store.blocking:
            return call()
        return await off_loop(call, self.store.runtime)
