"""Files of lines that many processes append to, and no kill can tear: one ``write`` of one line each.

``pushes`` says what producers tried (T) and were told: acknowledged (A), refused (R), unknown (K), or left
alone (X); ``jobs`` says when each attempt started (S) and ended (E). Times are of the machine's monotonic
clock, which all its processes share and no step of the clock moves.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple


def directory() -> Path:
    """Return where this campaign keeps its files."""
    return Path(os.environ["CHAOS_DIRECTORY"])


class Entry(NamedTuple):
    """A line: what happened, when, and to what."""

    what: str
    at: float
    fields: tuple[str, ...]


class Ledger:
    """One of the files, to write to."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._file: int | None = None

    def write(self, what: str, *fields: object) -> None:
        """Append a line; the last field may contain spaces."""
        if self._file is None:
            self._file = os.open(directory() / self._name, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        line = " ".join([what, f"{time.monotonic():.6f}", *(str(field) for field in fields)])
        os.write(self._file, f"{line}\n".encode())


def read(name: str) -> Iterator[Entry]:
    """Yield the lines of a file; it need not be there."""
    path = directory() / name
    if path.exists():
        with path.open() as file:
            for line in file:
                what, at, *fields = line.split()
                yield Entry(what, float(at), tuple(fields))
