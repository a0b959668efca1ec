"""A process that a test starts, listens to, signals, and never leaves behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

LAST_LINES = 2.0
"""Seconds to wait for the last lines of a process that has ended, at most."""

PATIENCE = 60.0
"""Seconds until something that should happen counts as never happening; machines may be slow."""


def until(happened: Callable[[], object], what: str = "it", patience: float = PATIENCE) -> None:
    """Wait until ``happened()`` is true."""
    deadline = time.monotonic() + patience
    while not happened():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not happen within {patience:g} s")
        time.sleep(0.01)


def is_stopped(pid: int) -> bool:
    """Whether every thread of a process is stopped by SIGSTOP."""
    threads = Path(f"/proc/{pid}/task").glob("*/stat")
    return all(thread.read_text().rpartition(")")[2].split()[0] == "T" for thread in threads)


class Child:
    """A Python process; its output is one stream of lines.

    Args:
        arguments: what follows ``python``.
        environment: all of its environment.
    """

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
        self.arguments = arguments
        self.lines: list[str] = []
        self._closed = False
        self._progress = threading.Condition()
        self.process = subprocess.Popen(
            [sys.executable, *arguments],
            env={**environment, "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __repr__(self) -> str:
        return f"<{' '.join(self.arguments)}>"

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def output(self) -> str:
        return "\n".join(self.lines)

    def wait_for(self, text: str, times: int = 1, after: int = 0) -> str:
        """Return the line that contains ``text``, printed for the ``times``-th time after line ``after``."""
        with self._progress:
            self._progress.wait_for(lambda: len(self._with(text, after)) >= times or self._closed, PATIENCE)
        found = self._with(text, after)
        assert len(found) >= times, f"no {text!r} in the output of {self}:\n{self.output}"
        return found[times - 1]

    def seen(self, text: str) -> int:
        """Return the place after the last line that contains ``text``."""
        return max(place for place, line in enumerate(self.lines, 1) if text in line)

    def send(self, number: int) -> None:
        """Send a signal to the process alone."""
        self.process.send_signal(number)

    def end(self, number: int | None = None, patience: float = PATIENCE) -> int:
        """Return the exit code once the process has ended, after a signal if one is given."""
        if number is not None:
            self.send(number)
        try:
            code = self.process.wait(patience)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self} goes on after {patience:g} s:\n{self.output}") from None
        # Its last lines may still be in the pipe, which a process that it started may hold open.
        self._reader.join(LAST_LINES)
        return code

    def read_out(self) -> None:
        """Wait until all of its output has been read, however slow the machine is."""
        self._reader.join(PATIENCE)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._kill_group()
        self.process.wait()
        self._reader.join()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def _kill_group(self) -> None:
        # Its workers too; it leads a session of its own.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def _with(self, text: str, after: int) -> list[str]:
        return [line for line in self.lines[after:] if text in line]

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._progress:
                self.lines.append(line.rstrip("\n"))
                self._progress.notify_all()
        with self._progress:
            self._closed = True
            self._progress.notify_all()
