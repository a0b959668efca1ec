"""Which file a SQLite connection has open, and whether the path it was opened by leads to another one by now.

A restore by ``mv`` leaves every open connection at the old file, which has no name any more: what is written
there is lost, without a word. SQLite itself looks only where a rollback journal is about to be made.
"""

from __future__ import annotations

from os import listdir, stat
from typing import Any, NamedTuple

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

Identity = tuple[int, int]
"""A file's device and its number there."""

NOTED = "jobify_file"
"""The attribute of Django's connection that holds its ``File``."""

KEPT = "jobify_session"
"""The attribute of Django's connection that holds what the store keeps with it."""

WAL_HEADER = 32


class File(NamedTuple):
    """The file that a connection has open, and where SQLite keeps a write-ahead log, what lies beside it.

    Attributes:
        path: where it was opened.
        identity: which file that was.
        wal: which file was the log.
        shm: which file was the log's index.
    """

    path: str
    identity: Identity | None
    wal: Identity | None = None
    shm: Identity | None = None


def moved(connection: BaseDatabaseWrapper) -> File | None:
    """Return the file that a connection has open if its path leads to another one, or to none."""
    file: File | None = connection.__dict__.get(NOTED)
    if file is None or connection.connection is None or identity(file.path, file.identity) == file.identity:
        return None
    return file


def identity(path: str, unknown: Identity | None = None) -> Identity | None:
    """Return which file is there; ``None`` for none, ``unknown`` where the system does not tell."""
    try:
        found = stat(path)
    except FileNotFoundError:
        return None
    except OSError:
        return unknown
    return found.st_dev, found.st_ino


def note(connection: BaseDatabaseWrapper, **kwargs: object) -> None:
    """Note which file a new connection has opened; one in memory has none."""
    raw: Any = connection.connection
    if connection.vendor != "sqlite" or raw is None:
        return
    path = raw.execute("PRAGMA database_list").fetchone()[2]
    connection.__dict__[NOTED] = File(path, identity(path), *_beside(connection, path)) if path else None


def _beside(connection: Any, path: str) -> tuple[Identity | None, Identity | None]:
    raw = connection.connection
    # A look opens the log, as the first statement would. Where somebody holds the file, that one waits, not
    # this.
    (timeout,) = raw.execute("PRAGMA busy_timeout").fetchone()
    raw.execute("PRAGMA busy_timeout = 0")
    try:
        raw.execute("PRAGMA schema_version").fetchone()
        logs = raw.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    except connection.Database.Error:  # sqlite3's: a process with another database does without that module
        return None, None
    finally:
        raw.execute(f"PRAGMA busy_timeout = {timeout}")
    return (identity(f"{path}-wal"), identity(f"{path}-shm")) if logs else (None, None)


def log_beside(path: str) -> int | None:
    """Return a number that stays the same as long as the write-ahead log beside a database is one; ``None``
    without one, or one that holds nothing."""
    try:
        with open(f"{path}-wal", "rb") as file:
            header = file.read(WAL_HEADER)
    except OSError:
        return None
    if len(header) < WAL_HEADER:
        return None
    # Each time SQLite begins it anew, the number of checkpoints and the first salt both grow by one.
    checkpoints, salt = int.from_bytes(header[12:16], "big"), int.from_bytes(header[16:20], "big")
    return (salt - checkpoints) % (1 << 32)


def has_open(path: str) -> bool:
    """Whether this process has the file open that is there now; so it is taken to be without ``/proc``."""
    wanted = identity(path)
    try:
        numbers = listdir("/proc/self/fd")
    except OSError:
        return wanted is not None
    return wanted is not None and any(identity(f"/proc/self/fd/{number}") == wanted for number in numbers)


connection_created.connect(note, dispatch_uid="jobify_django.file")
