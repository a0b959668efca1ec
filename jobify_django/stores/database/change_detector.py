"""How a process notices what others have committed to a SQLite file.

``PRAGMA data_version`` tells whether another connection has committed. Reading it takes microseconds; waking
up to read it takes more. On Linux the kernel tells when a file was written (inotify(7)), and the watcher
sleeps until then. Elsewhere, and where the kernel misses writes, it looks every few milliseconds.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import sys
from collections.abc import Callable, Collection
from pathlib import Path

from jobify_django.log import get_log
from jobify_django.runtime import Runtime
from jobify_django.stores.notifier import EVERY_KIND, Notification

logger = get_log("jobify.store")

POLL = 0.004
"""Seconds between two looks while there is traffic."""

QUIET_POLL = 0.008
"""Seconds between two looks otherwise, where the kernel does not tell."""

QUIET_AFTER = 1.0
"""Two changes within these seconds are traffic; one alone is perhaps a pool's own heartbeat."""

WAIT = 0.25
"""Seconds after which a watcher looks although the kernel has told of no write."""

POLL_AFTER_WRITE = 0.1
"""Seconds in which a watcher that was told of a write looks again and again: SQLite writes first and commits
then, and the kernel tells of several writes as one. Once it has seen a commit it looks less and less often:
what it waits for then is only a second one that was told of together with the first."""

COMMIT_TIME = 0.0003
"""Seconds in which most transactions have committed after their first write."""

WATCH_AGAIN_AFTER = 60.0
"""Seconds until the kernel is asked again after it has missed a write."""


class FileChangeDetector:
    """Waits until another connection has committed, at most a quarter of a second.

    Args:
        version: reads ``PRAGMA data_version``.
        watch: begins to watch the file; returns ``None`` where the kernel does not tell.
        runtime: the machine this process runs on.
    """

    def __init__(
        self, version: Callable[[], object], watch: Callable[[], InotifyWatch | None], runtime: Runtime
    ) -> None:
        self._sleep, self._monotonic = runtime.sleep, runtime.monotonic
        self._version = version
        self._new_watch = watch
        self._watch: InotifyWatch | None = None
        self._watch_from = 0.0
        self._seen: object = None
        self._changed = False
        self._changed_at = self._busy_until = self._poll_until = 0.0
        self._pause = self._longest_pause = POLL

    @property
    def watches(self) -> bool:
        """Whether the kernel tells of writes to the file, and is believed; otherwise it goes by the clock."""
        return self._watch is not None

    hears = True
    """What one look misses the next one finds: they ask the file itself."""

    def __call__(self) -> Collection[Notification]:
        """Wait, look, and return notifications of all that may have changed."""
        if self._watch is None:
            self._changed = self._wait_by_clock()
            # Only now, for the first look opens the file that is to be watched.
            if self._monotonic() >= self._watch_from:
                self._watch = self._new_watch()
                self._watch_from = self._monotonic() + WATCH_AGAIN_AFTER
                self._poll_soon()  # it was perhaps written since that look
        else:
            self._changed = self._wait_for_write(self._watch)
        return EVERY_KIND if self._changed else ()

    def close(self) -> None:
        """Watch no more."""
        if self._watch is not None:
            self._watch.close()
            self._watch = None

    def _look(self) -> bool:
        before, self._seen = self._seen, self._version()
        return self._seen != before

    def _wait_by_clock(self) -> bool:
        # Not Event.wait(): a lock for each look would cost as much as the look.
        self._sleep(POLL if self._monotonic() < self._busy_until else QUIET_POLL)
        changed = self._look()
        if changed:
            now = self._monotonic()
            if now - self._changed_at < QUIET_AFTER:
                self._busy_until = now + QUIET_AFTER
            self._changed_at = now
        return changed

    def _wait_for_write(self, watch: InotifyWatch) -> bool:
        if self._changed:
            self._sleep(POLL)  # under traffic every write would wake this thread
        polling = self._monotonic() < self._poll_until
        written = watch.wait(self._pause if polling else WAIT)
        if written:
            self._sleep(COMMIT_TIME)
            watch.drain()
        changed = self._look()
        if written:
            self._poll_soon()
        elif not changed:
            self._pause = min(self._pause * 2, self._longest_pause)
        elif not polling and not watch.wait(0.0):
            # A file system that does not tell, a log that is another file now, or a slow disk.
            logger.debug("the kernel did not tell of a write; looking every %g s for now", QUIET_POLL)
            self.close()
            self._watch_from = self._monotonic() + WATCH_AGAIN_AFTER
        if changed:
            self._longest_pause = WAIT
        return changed

    def _poll_soon(self) -> None:
        self._poll_until = self._monotonic() + POLL_AFTER_WRITE
        self._pause, self._longest_pause = COMMIT_TIME, POLL


class InotifyWatch:
    """A watch of inotify(7) for writes to a file, by the C library that Python itself uses.

    Raises:
        OSError: there is no such file, or no watch to be had.
    """

    IN_MODIFY = 0x2
    EVENTS = 65536

    def __init__(self, path: Path) -> None:
        if sys.platform != "linux":
            raise OSError("only Linux has inotify")
        library = ctypes.CDLL(None, use_errno=True)
        self._file = _checked(library.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
        try:
            _checked(library.inotify_add_watch(self._file, os.fsencode(path), self.IN_MODIFY))
        except OSError:
            self.close()
            raise
        self._poll = select.poll()
        self._poll.register(self._file, select.POLLIN)

    def wait(self, seconds: float) -> bool:
        """Wait at most so many seconds; return whether the file was written since the last ``drain``."""
        return bool(self._poll.poll(seconds * 1000))

    def drain(self) -> None:
        """Forget the writes until now."""
        with contextlib.suppress(BlockingIOError):
            while len(os.read(self._file, self.EVENTS)) == self.EVENTS:
                pass

    def close(self) -> None:
        """Watch no more."""
        os.close(self._file)


def _checked(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result
