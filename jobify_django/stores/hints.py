"""Hints that something may have changed, to whoever listens in this process.

Three kinds: ``work`` (a job may be claimed, or a live value changed), ``room`` (a push may fit),
``ended`` (a job may have ended). A listener is called with the queue's name (``ended``: with the ids),
or with ``None`` when the hint comes from outside and could be about anything. Listeners run on the
thread that made the change: they only set something and return.

Other processes' writes are noticed by one watcher thread, which runs only while somebody listens and
only for a store that has something to ``probe()``.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Literal, get_args

from jobify_django.log import get_log, quoted
from jobify_django.outage import Outage

if TYPE_CHECKING:
    from jobify_django.stores.base import Store

Kind = Literal["work", "room", "ended"]
KINDS: tuple[Kind, ...] = get_args(Kind)
News = tuple[Kind, str | None]
"""A hint from another process: its kind, and the queue it is about (``None``: any)."""

EVERYTHING: Sequence[News] = tuple((kind, None) for kind in KINDS)

Probe = Callable[[], Collection[News]]
Listener = Callable[[object], None]

logger = get_log("jobify.store")

RETRY = 1.0


class Hints:
    """The listeners of one store in this process."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._listeners: dict[Kind, tuple[Listener, ...]] = {"work": (), "room": (), "ended": ()}
        self._lock = threading.Lock()
        self._watcher: threading.Thread | None = None
        self._quit = threading.Event()
        self._deaf, self._threadless, self._away = Outage(), Outage(), Outage()

    def subscribe(self, kind: Kind, listener: Listener) -> Callable[[], None]:
        """Call ``listener`` at each hint of this kind until the returned function is called."""
        with self._lock:
            self._listeners[kind] = (*self._listeners[kind], listener)
            self._start_watching()

        def unsubscribe() -> None:
            with self._lock:
                left = list(self._listeners[kind])
                if listener in left:
                    left.remove(listener)
                self._listeners[kind] = tuple(left)
                if not any(self._listeners.values()):
                    self._quit.set()
                    self._watcher = None

        return unsubscribe

    def heard(self, kind: Kind) -> bool:
        """Whether anybody in this process listens for hints of this kind."""
        return bool(self._listeners[kind])

    def work(self, queue: str | None) -> None:
        """Say that a queue may have a job to claim, or new live values."""
        self._tell("work", queue)

    def room(self, queue: str | None) -> None:
        """Say that a queue may have room."""
        self._tell("room", queue)

    def ended(self, ids: Sequence[str] | None) -> None:
        """Say that jobs have ended."""
        self._tell("ended", ids)

    def _tell(self, kind: Kind, about: object) -> None:
        for listener in self._listeners[kind]:
            try:
                listener(about)
            except Exception as error:  # the change is made: whoever made it must not take it for failed
                if (word := self._deaf.fail(error)) is not None:
                    logger.error(
                        "event=hint-failed store=%s kind=%s times=%d",
                        quoted(self._store.alias),
                        kind,
                        word.times,
                        exc_info=word.new,
                    )

    def _start_watching(self) -> None:
        if self._watcher is not None or not self._store.shared:
            return
        self._quit = threading.Event()
        watcher = threading.Thread(
            target=self._watch, args=(self._quit,), name=f"jobify-watch-{self._store.alias}", daemon=True
        )
        try:
            watcher.start()
        except (RuntimeError, MemoryError) as error:
            # The system refuses a thread. Polling covers the gap, and whoever listens next tries again.
            if self._threadless.fail(error) is not None:
                logger.warning(
                    "event=no-thread store=%s error=%r: polling instead",
                    quoted(self._store.alias),
                    str(error),
                )
        else:
            self._threadless.over()
            self._watcher = watcher

    def _watch(self, quit: threading.Event) -> None:
        self._store.open()
        try:
            while not quit.is_set():
                try:
                    if not self._follow(quit):
                        return
                except Exception as error:
                    # The database is away; whoever needs it finds out and says so. Polling covers the gap.
                    if (word := self._away.fail(error)) is not None:
                        logger.debug(
                            "store %s: cannot watch for changes (%d tries)",
                            quoted(self._store.alias),
                            word.times,
                            exc_info=word.new,
                        )
                    self._store.close()
                    quit.wait(RETRY)
        finally:
            self._store.close()

    def _follow(self, quit: threading.Event) -> bool:
        """Hint at every change until ``quit`` is set; return ``False`` if the store has nothing to probe."""
        probe = self._store.probe()
        if probe is None:
            return False
        give: dict[Kind, Callable[[str | None], None]] = {
            "work": self.work,
            "room": self.room,
            "ended": lambda queue: self.ended(None),
        }
        try:
            while not quit.is_set():
                for kind, queue in probe():
                    give[kind](queue)
                if self._away.over():
                    logger.debug("store %s: watching for changes again", quoted(self._store.alias))
        finally:
            close = getattr(probe, "close", None)
            if close is not None:
                close()
        return True
