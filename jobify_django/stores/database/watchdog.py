"""Ending calls that a silent network would let wait for ever.

A socket whose other end has gone without a word looks like one that is about to answer. Shutting it down
from another thread makes the blocked call fail at once, and its caller takes a new connection.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
from collections.abc import Iterator
from typing import Any

from jobify_django.log import get_log
from jobify_django.repeated_failure import RepeatedFailure
from jobify_django.runtime import MACHINE, Runtime

logger = get_log("jobify.store")

CHECK_EVERY = 1.0


class Watchdog:
    """The calls under way in this process, and a thread that looks at them while there are any.

    Args:
        runtime: the machine this process runs on.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._numbers = itertools.count()
        self._calls: dict[int, tuple[float, Any]] = {}
        self._awake = runtime.event()
        self._thread: object = None
        self._lock = runtime.lock()
        self._no_thread = RepeatedFailure(runtime)

    @contextlib.contextmanager
    def limit(self, connection: Any, seconds: float) -> Iterator[None]:
        """Shut a connection's socket down if the block takes longer than so many seconds.

        Args:
            connection: a driver's connection that has a ``fileno()``.
            seconds: how long the block may take.
        """
        number = next(self._numbers)
        self._calls[number] = (self._runtime.monotonic() + seconds, connection)
        if not self._awake.is_set():
            self._wake()
        try:
            yield
        finally:
            self._calls.pop(number, None)

    def _wake(self) -> None:
        with self._lock:
            if self._thread is None:
                thread = self._runtime.thread(target=self._watch, name="jobify-watchdog", daemon=True)
                try:
                    thread.start()
                except (RuntimeError, MemoryError) as error:
                    # The system refuses a thread. The next call tries again.
                    if self._no_thread.fail(error) is not None:
                        logger.warning(
                            "event=no-thread error=%r: a call goes without its deadline", str(error)
                        )
                    return
                self._no_thread.recovered()
                self._thread = thread
        self._awake.set()

    def _watch(self) -> None:
        while True:
            self._awake.wait()
            # A clock that is stepped at a bad moment (libfaketime) makes it an invalid argument.
            with contextlib.suppress(OSError):
                self._runtime.sleep(CHECK_EVERY)
            now = self._runtime.monotonic()
            for number, (deadline, connection) in list(self._calls.items()):
                if now > deadline and self._calls.pop(number, None) is not None:
                    shut_down(connection)
            if not self._calls:
                self._awake.clear()
                if self._calls:  # one came in between
                    self._awake.set()

    def forget(self) -> None:
        """Begin anew in a child process, which has none of the parent's threads."""
        self.__init__(self._runtime)  # type: ignore[misc]


def shut_down(connection: Any) -> None:
    """Shut a connection's socket down, so that whoever waits for it gets an error."""
    logger.error("event=connection-silent: a database call took too long; its connection is ended")
    with contextlib.suppress(Exception), socket.socket(fileno=os.dup(connection.fileno())) as end:
        end.shutdown(socket.SHUT_RDWR)


# One for all stores, on the machine itself: sockets are the machine's, and go silent on its time.
watchdog = Watchdog(MACHINE)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=watchdog.forget)
