"""What processes used, from /proc: processor time and memory of a tree, and of a PostgreSQL server."""

from __future__ import annotations

import os
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


def _stat(pid: int) -> list[str]:
    """Return the fields after the command's name: state, parent, ...; an ended process has none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def tree(pid: int) -> list[int]:
    """Return the process and everything below it, parents first."""
    below: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (fields := _stat(int(entry))):
            below.setdefault(int(fields[1]), []).append(int(entry))
    found = [pid]
    for parent in found:
        found += below.get(parent, [])
    return found


def group(pid: int) -> int | None:
    """Return the process group of a process, ``None`` if it has ended."""
    fields = _stat(pid)
    return int(fields[2]) if fields else None


def cpu_seconds(pid: int) -> float:
    """Return the processor time of a tree: of all that live, and of children that ended and were awaited."""
    return sum(_own_and_awaited(each) for each in tree(pid))


def _own_and_awaited(pid: int) -> float:
    fields = _stat(pid)
    return sum(int(field) for field in fields[11:15]) / _TICKS if fields else 0.0


def resident_bytes(pid: int) -> int:
    """Return what a tree holds: the root's resident set, and the pages that only a child has."""
    root, *children = tree(pid)
    total = int(Path(f"/proc/{root}/statm").read_text().split()[1]) * _PAGE
    for child in children:
        total += _private_bytes(child)
    return total


def _private_bytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private_"))


def postmaster(backend: int) -> int | None:
    """Return the process above a server process, if that one runs on this machine; else ``None``."""
    try:
        title = Path(f"/proc/{backend}/cmdline").read_bytes()
    except OSError:
        return None
    fields = _stat(backend)
    return int(fields[1]) if fields and b"postgres" in title else None
