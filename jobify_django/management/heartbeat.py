"""The sign that a worker process still turns: a file that it touches, or a message to its parent process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

from jobify_django.log import get_log, quoted
from jobify_django.management.child import HEARTBEAT, ParentLink
from jobify_django.pool import Service
from jobify_django.pool.pool import Pool
from jobify_django.repeated_failure import RepeatedFailure

logger = get_log("jobify.worker")

EVERY = 1.0


class Heartbeat(ABC):
    """Shows each second that in it the event loop has turned, and each pool's claim loop if a turn was due.

    A database that is away doesn't stop the loops, so it doesn't stop the heartbeat: a restart would not
    bring it back.
    """

    @abstractmethod
    def show(self) -> None:
        """Show it once."""

    @abstractmethod
    def end(self) -> None:
        """Take back what was shown: the process stops."""

    async def show_while_turning(self, service: Service) -> None:
        """Show it for as long as the pools turn."""
        seen: Sequence[int] = ()
        while True:
            turns = [pool.turns for pool in service.pools]
            if not seen or all(map(_turns, service.pools, turns, seen)):
                seen = turns
                self.show()
            await asyncio.sleep(EVERY)


def _turns(pool: Pool, turns: int, seen: int) -> bool:
    return turns != seen or pool.rests


class ParentHeartbeat(Heartbeat):
    """Sends it to the parent process."""

    def __init__(self, parent: ParentLink) -> None:
        self._parent = parent

    def show(self) -> None:
        self._parent.send(HEARTBEAT)

    def end(self) -> None:
        pass  # the parent notices the end of the process itself


class HeartbeatFile(Heartbeat):
    """Touches a file.

    Args:
        path: the file. It is made with mode 0600; a symbolic link, or anything but a file, is refused.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._touch_failures = RepeatedFailure()

    def touch(self) -> None:
        """Make the file, or set its time to now; raises ``OSError``."""
        # In /tmp, say, others choose what is there: touch nothing it links to, and don't hang on a pipe.
        flags = os.O_WRONLY | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
        file = os.open(self._path, flags, 0o600)
        try:
            if not stat.S_ISREG(os.fstat(file).st_mode):
                raise OSError(f"{str(self._path)!r} is not a regular file")
            os.utime(file if os.utime in os.supports_fd else self._path)
        finally:
            os.close(file)

    def show(self) -> None:
        try:
            self.touch()
        except OSError as error:
            if self._touch_failures.fail(error) is not None:
                logger.warning("event=heartbeat-failed path=%s error=%r", quoted(str(self._path)), str(error))
        else:
            if self._touch_failures.recovered():
                logger.info("event=heartbeat-back path=%s", quoted(str(self._path)))

    def end(self) -> None:
        """Remove the file: the process stops."""
        with contextlib.suppress(OSError):
            self._path.unlink()
