"""A SQLite file that was replaced by another one while this process had it open."""

from __future__ import annotations

from jobify_django.exceptions import StoreError
from jobify_django.file import File, Identity, has_open, identity, log_beside
from jobify_django.log import get_log
from jobify_django.runtime import Runtime

logger = get_log("jobify.store")


class ReplacedFile:
    """The file of a database, and what this process knows of its replacement.

    Args:
        alias: the database's key in ``settings.DATABASES``.
        runtime: the machine this process runs on.
    """

    def __init__(self, alias: str, runtime: Runtime) -> None:
        self._alias = alias
        self._path = ""
        self._told: tuple[Identity | None, Identity | None] | None = None
        self._log: int | None = None
        self._index: Identity | None = None
        self._lock = runtime.lock()

    def leave(self, file: File) -> None:
        """Note that a file was replaced, or is gone, before a connection to it is closed; say so once."""
        with self._lock:
            now = identity(file.path)
            if self._told == (file.identity, now):
                return
            self._told = (file.identity, now)
            self._path = file.path
            # As long as the connection is open, no other file gets their numbers.
            same_log = file.wal is not None and identity(f"{file.path}-wal") == file.wal
            same_index = file.shm is not None and identity(f"{file.path}-shm") == file.shm
            self._log = log_beside(file.path) if same_log else None
            self._index = file.shm if same_index else None
        logger.critical(
            "event=database-replaced path=%r now=%s: this process had the file open that was there before. "
            "It leaves that one and goes on with what is there now; jobs that ran meanwhile may run again",
            file.path,
            "gone" if now is None else "another-file",
        )

    def check(self) -> None:
        """Raise ``StoreError`` where a new connection would do harm.

        A file that is gone would be made anew, and empty. Where SQLite keeps a write-ahead log, that of the
        file before still lies there: no connection removes it, and the new file would be read through it.
        """
        if not self._path:
            return
        if identity(self._path) is None:
            raise StoreError(f"database {self._alias!r}: its file {self._path!r} is gone. Put it back.")
        if self._log is not None and log_beside(self._path) != self._log:
            self._log = None
        # A new connection would begin the index anew, under the hands of those of this process that use it.
        index = f"{self._path}-shm"
        if self._index is not None and not (identity(index) == self._index and has_open(index)):
            self._index = None
        if self._log is not None or self._index is not None:
            raise StoreError(
                f"database {self._alias!r}: {self._path!r} was replaced, and beside it lies the write-ahead "
                "log of the file before, through which SQLite would read the new one. Remove the files there "
                "that end in -wal and -shm, and put the backup in its place once more; then this goes on by "
                "itself."
            )
