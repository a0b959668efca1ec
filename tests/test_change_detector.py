"""How a process notices others' commits to a SQLite file: when the kernel tells, and when it does not."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from django.db import connection, connections

from jobify_django import task
from jobify_django.runtime import MACHINE
from jobify_django.stores.database import DatabaseStore, change_detector, sqlite
from jobify_django.stores.database.change_detector import FileChangeDetector, InotifyWatch
from jobify_django.testing import FakeClock
from tests.child import PATIENCE, until
from tests.workshop import Configure, database

on_sqlite = pytest.mark.skipif(connection.vendor != "sqlite", reason="about SQLite")
tells = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has inotify")


@task
def note() -> None: ...


class File:
    """A SQLite file, and what one connection notices of the other's commits."""

    def __init__(self, path: Path, journal: str) -> None:
        self.path = path
        self._other = sqlite3.connect(path, isolation_level=None)
        self._other.execute(f"PRAGMA journal_mode={journal}")
        self._other.execute("CREATE TABLE note (value)")
        self._own = sqlite3.connect(path, isolation_level=None)
        self.log = path if journal == "delete" else path.with_name(f"{path.name}-wal")
        self.looks = 0

    def version(self) -> object:
        self.looks += 1
        return self._own.execute("PRAGMA data_version").fetchone()[0]

    def write(self) -> None:
        self._other.execute("INSERT INTO note VALUES (1)")

    def begin(self) -> None:
        """Write a page to the log without committing, as a transaction larger than the cache does."""
        self._other.executescript("PRAGMA cache_size=1; BEGIN IMMEDIATE")
        self._other.executemany("INSERT INTO note VALUES (?)", [("x" * 2000,)] * 50)

    def commit(self) -> None:
        self._other.execute("COMMIT")

    def close(self) -> None:
        self._own.close()
        self._other.close()


@pytest.fixture(params=["wal", "delete"])
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[File]:
    file = File(tmp_path / "db.sqlite3", request.param)
    yield file
    file.close()


@pytest.fixture
def wal(tmp_path: Path) -> Iterator[File]:
    file = File(tmp_path / "db.sqlite3", "wal")
    yield file
    file.close()


@pytest.fixture
def told(file: File) -> Iterator[FileChangeDetector]:
    """One that has looked once, and knows by the kernel from then on."""
    told = FileChangeDetector(file.version, lambda: InotifyWatch(file.log), MACHINE)
    assert told()
    yield told
    told.close()


def knows_by_the_kernel(one: Any) -> bool:
    """Whether it has a watch, and that has missed nothing: else it would look by the clock for a minute."""
    return bool(one.watches)


def silent() -> None:
    """No watch is to be had."""


@tells
def test_a_commit_is_noticed_because_the_kernel_tells(
    told: FileChangeDetector, file: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(change_detector, "WAIT", PATIENCE)
    for _ in range(3):
        file.write()
        until(told, "the noticing of a commit")
    assert knows_by_the_kernel(told)


@tells
def test_one_who_is_told_of_nothing_hardly_looks(
    told: FileChangeDetector, file: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(change_detector, "WAIT", 0.05)
    file.looks = 0
    for _ in range(3):
        assert not told()
    assert file.looks == 3


@tells
def test_a_write_whose_commit_comes_later_is_looked_for_again(
    wal: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = FileChangeDetector(wal.version, lambda: InotifyWatch(wal.log), MACHINE)
    assert one()
    monkeypatch.setattr(change_detector, "WAIT", PATIENCE)
    monkeypatch.setattr(change_detector, "POLL_AFTER_WRITE", 3600.0)
    wal.begin()
    wal.looks = 0
    for _ in range(5):
        assert not one()
    wal.commit()
    until(one, "the noticing of the commit")
    assert knows_by_the_kernel(one)
    one.close()


class Deaf:
    """A kernel that tells nothing the first time it is asked, as on a file system of another machine: the log
    is written, and it does not know."""

    def __init__(self, file: File, other: Path) -> None:
        other.touch()
        self._watched = [other, file.log]
        self.asked = 0

    def watch(self) -> InotifyWatch:
        self.asked += 1
        return InotifyWatch(self._watched[self.asked - 1])


@pytest.fixture
def deaf(wal: File, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Deaf:
    monkeypatch.setattr(change_detector, "WAIT", 0.01)
    monkeypatch.setattr(change_detector, "POLL_AFTER_WRITE", 0.0)
    return Deaf(wal, tmp_path / "other")


def one_that_has_missed_a_write(wal: File, deaf: Deaf, monkeypatch: pytest.MonkeyPatch) -> FileChangeDetector:
    """Return a change detector that goes by the clock, because its watch did not tell of a write."""
    one = FileChangeDetector(wal.version, deaf.watch, MACHINE)
    assert one()
    wal.write()
    assert one()

    monkeypatch.setattr(change_detector, "WAIT", PATIENCE)
    assert not knows_by_the_kernel(one)
    return one


@tells
def test_a_watcher_that_misses_a_write_goes_by_the_clock(
    wal: File, deaf: Deaf, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = one_that_has_missed_a_write(wal, deaf, monkeypatch)
    wal.write()
    assert one()
    assert not one()
    assert deaf.asked == 1
    one.close()


@tells
def test_a_watcher_that_has_missed_a_write_asks_the_kernel_again_later(
    wal: File, deaf: Deaf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(change_detector, "WATCH_AGAIN_AFTER", 0.0)
    one = one_that_has_missed_a_write(wal, deaf, monkeypatch)
    one()
    assert deaf.asked == 2
    wal.write()
    until(one, "the noticing of a commit")
    assert knows_by_the_kernel(one)
    one.close()


@tells
def test_what_was_written_while_the_watch_was_made_is_looked_for(
    wal: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    def watch() -> InotifyWatch:
        wal.write()
        return InotifyWatch(wal.log)

    monkeypatch.setattr(change_detector, "WAIT", PATIENCE)
    one = FileChangeDetector(wal.version, watch, MACHINE)
    assert one()
    until(one, "the noticing of a commit that the kernel does not tell of")
    wal.write()
    until(one, "the noticing of one that it tells of")
    assert knows_by_the_kernel(one)
    one.close()


def test_without_the_kernel_it_goes_by_the_clock(file: File) -> None:
    one = FileChangeDetector(file.version, silent, MACHINE)
    assert one()
    assert not one()
    file.write()
    assert one()
    assert not one()
    one.close()


def test_only_traffic_makes_the_clock_fast(file: File) -> None:
    slept: list[float] = []
    clock = FakeClock(0.0)
    one = FileChangeDetector(file.version, silent, replace(MACHINE, monotonic=clock, sleep=slept.append))
    one()
    for commits, expected in [
        (1, change_detector.QUIET_POLL),
        (1, change_detector.POLL),
        (0, change_detector.QUIET_POLL),
    ]:
        clock.now += change_detector.QUIET_AFTER * (0.5 if expected == change_detector.POLL else 2)
        for _ in range(commits):
            file.write()
        one()
        one()
        assert slept[-1] == expected


def test_a_file_that_is_not_there_cannot_be_watched(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        InotifyWatch(tmp_path / "none")


def test_on_another_system_nothing_can_be_watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr("sys.platform", "win32")
    monkeypatch.delattr("ctypes.CDLL")  # with None, as for inotify, it raises a TypeError there
    with pytest.raises(OSError, match="only Linux"):
        InotifyWatch(tmp_path / "file")


def watches_open() -> set[str]:
    """Return the numbers of this process's files by which the kernel tells of writes."""
    opened: set[str] = set()
    for file in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # closed meanwhile, as the one that lists them is
            if "inotify" in os.readlink(file):
                opened.add(file.name)
    return opened


@tells
def test_a_watch_that_failed_leaves_no_file_open(tmp_path: Path) -> None:
    before = watches_open()
    with pytest.raises(OSError):
        InotifyWatch(tmp_path / "none")
    assert watches_open() <= before


@tells
@on_sqlite
@database
def test_the_store_is_told_of_what_others_write(jobify: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    detector = DatabaseStore().change_detector()
    assert detector()
    monkeypatch.setattr(change_detector, "WAIT", PATIENCE)
    # A busy machine may take long from the write to the commit.
    monkeypatch.setattr(change_detector, "POLL_AFTER_WRITE", PATIENCE)

    def write() -> None:
        note.push()
        connections.close_all()

    writing = threading.Thread(target=write)
    writing.start()
    until(detector, "the noticing of a push")
    writing.join()
    assert knows_by_the_kernel(detector)
    detector.close()  # type: ignore[attr-defined]


def test_a_database_in_memory_is_looked_at_by_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    watched: list[Path] = []
    monkeypatch.setattr(sqlite, "InotifyWatch", watched.append)
    with contextlib.closing(sqlite3.connect(":memory:")) as raw:
        monkeypatch.setattr(sqlite, "raw_connection", lambda wrapper: raw)
        detector = DatabaseStore().change_detector()
        assert detector()
        assert not detector()
    assert watched == []
