"""Notifications that something may have changed, for the listeners in this process.

Three kinds: ``work`` (a job may be claimed, or a live value changed), ``room`` (a push may fit),
``ended`` (a job may have ended). A listener is called with the queue's name (``ended``: with the ids),
or with ``None`` when it comes from another process and could be about anything. Listeners run on the
thread that made the change: they only set something and return. A notification may be lost: whatever waits
for one polls, too.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Literal, get_args

from jobify_django.log import get_log, quoted
from jobify_django.repeated_failure import RepeatedFailure
from jobify_django.runtime import Runtime

Kind = Literal["work", "room", "ended"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Notification = tuple[Kind, str | None]
"""A notification from another process: its kind, and the queue it is about (``None``: any)."""

EVERY_KIND: Sequence[Notification] = tuple((kind, None) for kind in KINDS)

ChangeDetector = Callable[[], Collection[Notification]]
Listener = Callable[[object], None]

logger = get_log("jobify.store")


class Notifier:
    """The listeners of one store in this process.

    Args:
        alias: the store's name in messages.
        runtime: the machine it runs on.
    """

    def __init__(self, alias: str, runtime: Runtime) -> None:
        self._alias = alias
        self._listeners: dict[Kind, tuple[Listener, ...]] = {"work": (), "room": (), "ended": ()}
        self._lock = runtime.lock()
        self._failures = RepeatedFailure(runtime)

    def listen(self, kind: Kind, listener: Listener) -> Callable[[], None]:
        """Call ``listener`` at each notification of this kind until the returned function is called."""
        with self._lock:
            self._listeners[kind] = (*self._listeners[kind], listener)

        def stop() -> None:
            with self._lock:
                left = list(self._listeners[kind])
                if listener in left:
                    left.remove(listener)
                self._listeners[kind] = tuple(left)

        return stop

    def has_listeners(self, kind: Kind) -> bool:
        """Whether there are listeners of this kind."""
        return bool(self._listeners[kind])

    @property
    def idle(self) -> bool:
        """Whether there are no listeners at all."""
        return not any(self._listeners.values())

    def publish(self, kind: Kind, about: str | Sequence[str] | None) -> None:
        """Call the listeners of this kind: with a queue, with ids of jobs that have ended, or with
        ``None``."""
        for listener in self._listeners[kind]:
            try:
                listener(about)
            except Exception as error:  # the change is made: whoever made it must not take it for failed
                if (report := self._failures.fail(error)) is not None:
                    logger.error(
                        "event=notify-failed store=%s kind=%s times=%d",
                        quoted(self._alias),
                        kind,
                        report.times,
                        exc_info=report.new,
                    )
