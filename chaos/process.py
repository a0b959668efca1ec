"""Processes that are started here, and never outlive the campaign."""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

PARENT_DIES = 1  # PR_SET_PDEATHSIG


def start(
    arguments: Sequence[str | Path],
    environment: Mapping[str, str],
    log: Path,
    *,
    user: str | None = None,
) -> subprocess.Popen[bytes]:
    """Start a process whose output goes to ``log``; it is killed when this one dies."""
    libc = ctypes.CDLL(None)

    def die_with_parent() -> None:
        with contextlib.suppress(AttributeError):
            libc.prctl(PARENT_DIES, signal.SIGKILL)

    as_user = {"user": user, "group": user, "extra_groups": []} if user else {}
    with log.open("ab") as output:
        return subprocess.Popen(
            [str(argument) for argument in arguments],
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            preexec_fn=die_with_parent,
            **as_user,  # type: ignore[call-overload]
        )


def end(process: subprocess.Popen[bytes], number: int = signal.SIGTERM, patience: float = 60.0) -> int:
    """Send a signal, and return the exit code; a process that does not heed it is killed."""
    if process.poll() is None:
        process.send_signal(number)
        # A stopped one would never see it.
        process.send_signal(signal.SIGCONT)
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            process.kill()
    return process.wait()


def wait(seconds: float) -> None:
    """Let the campaign go on for so long."""
    # time.sleep fails (EINVAL) where libfaketime has put the clock back.
    select.select([], [], [], max(0.0, seconds))


def resident(pid: int) -> int:
    """Return the bytes of memory a process holds."""
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
