"""What every job does: note how long it waited, one record of 16 bytes in a file, whichever queue ran it."""

from __future__ import annotations

import asyncio
import os
import struct
import time
from collections.abc import Iterator
from pathlib import Path

RECORD = struct.Struct("<dd")
"""When the job began, in epoch seconds, and how many seconds after it was due to be pushed."""

WORK = float(os.environ.get("LONG_RUN_WORK_MS", "0")) / 1000
"""Seconds that a job takes."""

_file = -1


async def job(due: float) -> None:
    """Note that a job runs now that was due to be pushed then, in epoch seconds; and take its time."""
    global _file
    if _file < 0:
        _file = os.open(os.environ["LONG_RUN_STARTED"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    now = time.time()
    os.write(_file, RECORD.pack(now, now - due))
    if WORK:
        await asyncio.sleep(WORK)


class Started:
    """The records, read as they come.

    Args:
        file: where they are.
    """

    def __init__(self, file: Path) -> None:
        file.touch()
        self._stream = file.open("rb")
        self._rest = b""

    def new(self) -> Iterator[tuple[float, float]]:
        """Return those since the last call."""
        data = self._rest + self._stream.read()
        whole = len(data) - len(data) % RECORD.size
        self._rest = data[whole:]
        yield from RECORD.iter_unpack(data[:whole])
