"""Child processes that run this command, and the sockets that connect each of them with its parent.

The child sends how far it is. When the parent ends, in whatever way, the child reads the end of the stream.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Mapping

from django.utils import autoreload

PASSED_ON = ("SIGTERM", "SIGINT", "SIGQUIT", "SIGHUP", "SIGUSR1")
"""The signals that a parent passes on to its children."""

OPTION = "--child"

EXIT_JOBS_LEFT = 4
"""What ``--batch`` exits with when jobs wait that it could not run. 3 is what a reloader means by "again"."""


def handled_signals(names: Iterable[str]) -> list[int]:
    """Return the numbers of those signals that this system has and this process is to listen to.

    ``nohup`` lets a process ignore HUP, so it goes on to ignore it. The others are ignored by what a shell
    starts in the background, which nobody means.
    """
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    hangup = getattr(signal, "SIGHUP", None)
    return [number for number in numbers if number != hangup or signal.getsignal(number) != signal.SIG_IGN]


LISTENING, READY, HEARTBEAT = b"l", b"r", b"b"
"""What a child sends: its signal handlers are there; its pools are about to start; they still turn."""


class Child:
    """A process that runs this command, as its parent sees it.

    Args:
        number: which of several it is; 0 if there is one at a time.
        environment: what is added to its environment.

    Attributes:
        started: when it was started, on the monotonic clock.
        listening: whether it handles signals.
        ready: whether its pools run, or are about to.
        last_heartbeat: when its last heartbeat arrived, on the monotonic clock.
    """

    def __init__(self, number: int = 0, environment: Mapping[str, str] | None = None) -> None:
        self.number = number
        self.started = time.monotonic()
        self.listening = False
        self.ready = False
        self.last_heartbeat = 0.0
        self._socket, theirs = socket.socketpair()
        self._socket.setblocking(False)
        with theirs:
            # Windows hands no socket down: there it does without.
            inherited = [theirs.fileno()] if os.name == "posix" else []
            named = [OPTION, f"{number}:{theirs.fileno()}"] if inherited else []
            self.process = subprocess.Popen(
                [*autoreload.get_child_arguments(), *named],
                env={**os.environ, **(environment or {})},
                pass_fds=inherited,
                # Or a terminal's Ctrl+C would reach it twice, and a second one means "now".
                start_new_session=True,
            )

    def send(self, number: int) -> None:
        """Send it a signal, if it has not ended."""
        self.receive()
        if number == getattr(signal, "SIGHUP", None):
            number = signal.SIGTERM  # the terminal has gone
        if number == signal.SIGINT and not self.listening:
            number = signal.SIGTERM  # or it would raise KeyboardInterrupt in the middle of an import
        if number == getattr(signal, "SIGUSR1", None) and not self.listening:
            return  # it would end of it
        self.process.send_signal(number)

    def receive(self) -> None:
        """Read what it has sent."""
        with contextlib.suppress(OSError):  # there is no more, or the child has gone
            while received := self._socket.recv(4096):
                self.listening = True
                self.ready = self.ready or READY in received
                if HEARTBEAT in received:
                    self.last_heartbeat = time.monotonic()

    def wait(self) -> int:
        """Return its exit code once it has ended."""
        return self.process.wait()

    def close(self) -> None:
        """Read the rest of what it has sent, and close the socket."""
        self.receive()
        self._socket.close()


class ParentLink:
    """The parent process, as its child sees it.

    Args:
        descriptor: the number of the socket that the child was given.

    Raises ``OSError`` if there is none.
    """

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)
        self._socket.set_inheritable(False)  # what jobs start is no business of the parent

    def send(self, what: bytes) -> None:
        """Send something to the parent, unless it is gone or has not read for long."""
        with contextlib.suppress(OSError):
            self._socket.send(what, socket.MSG_DONTWAIT)

    def when_parent_ends(self, act: Callable[[], None]) -> None:
        """Call ``act`` on a thread of its own once the parent is gone."""

        def watch() -> None:
            with contextlib.suppress(OSError):
                while self._socket.recv(1):
                    pass
            act()

        threading.Thread(target=watch, name="jobify-parent", daemon=True).start()
