"""Notifying the listeners of this process of what other processes have changed.

One thread for each store, which runs only while there are listeners, and only for a store whose
``change_detector()`` returns something.
"""

from __future__ import annotations

from typing import Protocol

from jobify_django.log import get_log, quoted
from jobify_django.repeated_failure import RepeatedFailure
from jobify_django.runtime import Runtime
from jobify_django.stores.notifier import ChangeDetector, Notifier

logger = get_log("jobify.store")

RETRY = 1.0
"""Seconds until a store that could not be watched is tried again."""


class Watched(Protocol):
    """What is watched: a store."""

    alias: str
    notifier: Notifier

    def change_detector(self) -> ChangeDetector | None:
        """Return a function that waits for other processes' changes."""

    def open(self) -> None:
        """Prepare this thread."""

    def close(self) -> None:
        """Give back what this thread holds."""


class Watcher:
    """The thread that watches a store.

    Args:
        runtime: the machine it runs on.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._lock = runtime.lock()
        self._watching: object | None = None
        """Stands for the thread that watches."""
        self._detector: ChangeDetector | None = None
        self._no_thread, self._away = RepeatedFailure(runtime), RepeatedFailure(runtime)

    @property
    def hears(self) -> bool:
        """Whether others' changes are noticed within moments, as far as the change detector knows."""
        return bool(getattr(self._detector, "hears", False))

    def watch(self, store: Watched) -> None:
        """Begin, unless it watches already; it ends by itself when there are no listeners any more."""
        with self._lock:
            if self._watching is not None:
                return
            watching = object()
            name = f"jobify-watch-{store.alias}"
            thread = self._runtime.thread(target=self._run, args=(store, watching), name=name, daemon=True)
            try:
                thread.start()
            except (RuntimeError, MemoryError) as error:
                # The system refuses a thread. Polling covers the gap, and the next listener tries again.
                if self._no_thread.fail(error) is not None:
                    logger.warning(
                        "event=no-thread store=%s error=%r: polling instead", quoted(store.alias), str(error)
                    )
            else:
                self._no_thread.recovered()
                self._watching = watching

    def _is_done(self, store: Watched, watching: object) -> bool:
        """Whether there are no listeners any more; then this thread ends, and the next ``watch`` starts
        one."""
        with self._lock:
            if self._watching is watching and store.notifier.idle:
                self._watching = None
            return self._watching is not watching

    def _run(self, store: Watched, watching: object) -> None:
        store.open()
        try:
            while not self._is_done(store, watching):
                try:
                    if not self._follow(store, watching):
                        return
                except Exception as error:
                    # The database is away, which its users log. Polling covers the gap.
                    if (report := self._away.fail(error)) is not None:
                        logger.debug(
                            "store %s: cannot watch for changes (%d tries)",
                            quoted(store.alias),
                            report.times,
                            exc_info=report.new,
                        )
                    store.close()
                    self._runtime.sleep(RETRY)
        finally:
            store.close()

    def _follow(self, store: Watched, watching: object) -> bool:
        """Publish every change while there are listeners; return ``False`` if the store has no
        ``change_detector``."""
        change_detector = store.change_detector()
        if change_detector is None:
            return False
        self._detector = change_detector
        try:
            while not self._is_done(store, watching):
                for kind, queue in change_detector():
                    store.notifier.publish(kind, queue)
                if self._away.recovered():
                    logger.debug("store %s: watching for changes again", quoted(store.alias))
        finally:
            heard, self._detector = self.hears, None
            if heard:
                store.notifier.publish("work", None)  # or a pool would go on as if it were told of work
            close = getattr(change_detector, "close", None)
            if close is not None:
                close()
        return True
