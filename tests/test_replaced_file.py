"""A SQLite file that is replaced while processes have it open, as by a restore with ``mv``."""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.db import OperationalError, connection, connections, transaction

from jobify_django import JobStatus, StoreError, queue, task
from jobify_django.file import has_open, log_beside
from jobify_django.models import Job as Row
from jobify_django.stores import stores
from tests.child import PATIENCE, until
from tests.workshop import Configure, at_work, database, held, pushed

pytestmark = [
    database,
    pytest.mark.skipif(connection.vendor != "sqlite", reason="about SQLite"),
]


@task
def note(value: int = 0) -> None: ...


class Place:
    """A database file of this test's own, that every thread's connections are made to."""

    def __init__(self, path: Path, journal: str) -> None:
        self.path = path
        self.journal = journal
        self.backup = path.with_name("backup.sqlite3")

    def save(self) -> None:
        """Make a backup, as one does while others write."""
        self.backup.unlink(missing_ok=True)
        with sqlite3.connect(self.path) as raw:
            raw.execute("VACUUM INTO ?", [str(self.backup)])
        raw.close()

    def restore(self) -> None:
        """Move the backup over the file, and remove the log of the one before."""
        os.replace(self.backup, self.path)
        self.remove_log()

    def remove_log(self) -> None:
        for name in ("-wal", "-shm"):
            self.path.with_name(f"{self.path.name}{name}").unlink(missing_ok=True)

    def ask(self, statement: str) -> list[Any]:
        """Ask what is in the file now, on a connection of nobody's."""
        raw = sqlite3.connect(f"file:{self.path}?mode=ro", uri=True)
        try:
            return raw.execute(statement).fetchall()
        finally:
            raw.close()

    def ids(self) -> set[str]:
        return {id for (id,) in self.ask("SELECT id FROM jobify_job")}


@pytest.fixture(params=["delete", "wal"])
def place(
    request: pytest.FixtureRequest, tmp_path: Path, jobify: Configure, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Place]:
    path = tmp_path / "db.sqlite3"
    with sqlite3.connect(connection.settings_dict["NAME"]) as raw:
        raw.execute("VACUUM INTO ?", [str(path)])
    raw.close()
    settings = connections.settings["default"]
    options = {**settings["OPTIONS"], "init_command": f"PRAGMA journal_mode={request.param}"}
    mine = {**settings, "NAME": str(path), "CONN_MAX_AGE": None, "OPTIONS": options}
    theirs = connection.settings_dict
    connection.close()
    monkeypatch.setitem(connections.settings, "default", mine)
    connection.settings_dict = mine
    stores.forget()
    yield Place(path, request.param)
    connection.close()
    connection.settings_dict = theirs
    stores.forget()


class Web:
    """A thread of a web server that keeps its connection open between requests."""

    def __init__(self) -> None:
        self._work: SimpleQueue[Callable[[], Any] | None] = SimpleQueue()
        self._answers: SimpleQueue[Any] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            try:
                self._answers.put(work())
            except Exception as error:
                self._answers.put(error)
        connections.close_all()

    def does(self, work: Callable[[], Any]) -> Any:
        """Do something on that thread."""
        self._work.put(work)
        answer = self._answers.get(timeout=PATIENCE)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def end(self) -> None:
        self._work.put(None)
        self._thread.join(PATIENCE)


@pytest.fixture
def web() -> Iterator[Web]:
    made = Web()
    yield made
    made.end()


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if "event=database-replaced" in record.message]


def test_a_push_on_an_open_connection_goes_to_the_file_that_is_there(
    place: Place, web: Web, caplog: pytest.LogCaptureFixture
) -> None:
    place.save()
    lost = web.does(lambda: note.push().id)
    place.restore()
    kept = web.does(lambda: note.push().id)
    assert place.ids() == {kept}
    assert lost != kept
    (line,) = said(caplog)
    assert repr(str(place.path)) in line
    assert caplog.records[[r.message for r in caplog.records].index(line)].levelno == logging.CRITICAL


def test_a_pool_goes_on_with_the_file_that_is_there(
    place: Place, web: Web, caplog: pytest.LogCaptureFixture
) -> None:
    first = pushed(lambda: 1)
    place.save()
    with at_work() as shop:
        first.wait(timeout=PATIENCE)
        lost, gate = held()
        gate.reached()
        connection.close()
        place.restore()
        shop.turn()  # the claim loop, the upkeep and the watcher find out, each on its own
        job = web.does(lambda: pushed(lambda: 2))
        until(
            lambda: place.ask(f"SELECT 1 FROM jobify_job WHERE id = '{job.id}' AND status = 'successful'"),
            "it",
        )
        # As in the backup: waiting, so it was run once more.
        (status,) = place.ask(f"SELECT status FROM jobify_job WHERE id = '{first.id}'")
        assert status == ("successful",)
        gate.open()
        until(
            lambda: "event=refused" in caplog.text or "event=lost" in caplog.text, "the end of the lost job"
        )
    assert lost.id not in place.ids()
    assert len(said(caplog)) == 1
    assert place.ask("SELECT count(*) FROM jobify_pool") == [(0,)]  # it said goodbye where it is known
    assert place.ask("PRAGMA integrity_check") == [("ok",)]


def test_the_watcher_hears_of_what_is_written_to_the_new_file(place: Place) -> None:
    store = queue().store
    place.save()
    heard = threading.Event()
    stop = store.listen("work", lambda _: heard.set())
    try:
        until(heard.is_set, "the first look")
        connection.close()
        place.restore()

        def written() -> bool:
            heard.clear()
            with sqlite3.connect(place.path, timeout=PATIENCE) as raw:
                raw.execute("UPDATE jobify_queue SET version = version")
                raw.execute("INSERT INTO auth_group (name) VALUES (hex(randomblob(9)))")
            raw.close()
            return heard.wait(0.1)

        until(written, "a notification of a write to the new file")
    finally:
        stop()


def test_the_next_job_of_a_worker_finds_its_own_connection_on_the_new_file(place: Place) -> None:
    def group() -> None:
        Group.objects.create(name=f"{Row.objects.count()}-{os.urandom(4).hex()}")

    place.save()
    with at_work(workers=1):
        pushed(group).wait(timeout=PATIENCE)
        connection.close()
        place.restore()
        job = pushed(group)
        until(
            lambda: place.ask(f"SELECT 1 FROM jobify_job WHERE id = '{job.id}' AND ended_at > 0"), "its end"
        )
    assert len(place.ask("SELECT name FROM auth_group")) == 1


def test_a_transaction_that_began_on_the_old_file_stays_there_whole(place: Place, web: Web) -> None:
    place.save()

    def both() -> None:
        with transaction.atomic():
            Group.objects.create(name="before")
            place.restore()
            note.push()

    # SQLite itself refuses to begin a rollback journal for a file without a name.
    with contextlib.suppress(StoreError, OperationalError):
        web.does(both)
    assert place.ids() == set()
    kept = web.does(lambda: note.push().id)
    assert place.ids() == {kept}


def test_a_file_that_is_gone_is_not_made_anew(
    place: Place, web: Web, caplog: pytest.LogCaptureFixture
) -> None:
    web.does(note.push)
    place.save()
    connection.close()
    place.path.unlink()
    place.remove_log()
    for _ in range(2):
        with pytest.raises(StoreError, match=r"its file '.*db\.sqlite3' is gone"):
            web.does(note.push)
    assert not place.path.exists()
    (line,) = said(caplog)
    assert "now=gone" in line
    place.restore()
    web.does(note.push)
    assert len(place.ids()) == 2


def test_a_log_that_belongs_to_the_old_file_is_not_read_as_the_new_ones(place: Place, web: Web) -> None:
    if place.journal != "wal":
        pytest.skip("about write-ahead logs")
    other = Web()
    place.save()
    web.does(note.push)
    other.does(note.push)
    connection.close()
    os.replace(place.backup, place.path)
    for thread in (web, other, web):
        with pytest.raises(StoreError, match="beside it lies the write-ahead log of the file before"):
            thread.does(note.push)
    place.remove_log()
    kept = {web.does(note.push).id, other.does(note.push).id}
    assert place.ids() == kept
    assert place.ask("PRAGMA integrity_check") == [("ok",)]
    other.end()


def test_the_index_of_a_log_is_not_taken_from_those_that_have_it_open(place: Place, web: Web) -> None:
    if place.journal != "wal":
        pytest.skip("about write-ahead logs")
    other = Web()
    place.save()
    other.does(note.push)
    web.does(note.push)
    connection.close()
    web.does(lambda: connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall())
    os.replace(place.backup, place.path)
    with pytest.raises(StoreError, match="write-ahead log"):
        web.does(note.push)
    other.end()
    kept = web.does(note.push).id
    assert place.ids() == {kept}


def test_a_log_of_the_new_file_is_no_hindrance(place: Place, web: Web) -> None:
    if place.journal != "wal":
        pytest.skip("about write-ahead logs")
    place.save()
    web.does(note.push)
    connection.close()
    place.restore()
    other = sqlite3.connect(place.path, isolation_level=None)
    other.execute("PRAGMA journal_mode=wal")
    other.execute("INSERT INTO auth_group (name) VALUES ('theirs')")
    try:
        kept = web.does(note.push).id
    finally:
        other.close()
    assert place.ids() == {kept}
    assert place.ask("SELECT name FROM auth_group") == [("theirs",)]


def test_sqlites_own_restore_goes_on_in_the_same_file(
    place: Place, web: Web, caplog: pytest.LogCaptureFixture
) -> None:
    kept = web.does(lambda: pushed(lambda: 1).id)
    place.save()
    with at_work():
        lost = web.does(lambda: pushed(lambda: 2))
        lost.wait(timeout=PATIENCE)
        backup, file = sqlite3.connect(place.backup), sqlite3.connect(place.path, timeout=PATIENCE)
        backup.backup(file)
        file.close()
        backup.close()
        after = web.does(lambda: pushed(lambda: 3))
        after.wait(timeout=PATIENCE)
        until(lambda: len(place.ask("SELECT 1 FROM jobify_job WHERE status = 'successful'")) == 2, "both")
    assert place.ids() == {kept, after.id}
    assert said(caplog) == []


def test_a_database_that_is_no_file_is_never_replaced(jobify: Configure) -> None:
    raw = sqlite3.connect(":memory:")
    assert raw.execute("PRAGMA database_list").fetchone()[2] == ""
    raw.close()
    assert log_beside("/nowhere/at/all") is None
    assert not has_open("/nowhere/at/all")


def test_a_look_at_the_file_is_no_statement(place: Place, web: Web) -> None:
    seen: list[str] = []

    def push() -> None:
        note.push()
        connection.connection.set_trace_callback(seen.append)
        note.push()
        connection.connection.set_trace_callback(None)

    web.does(push)
    assert not [statement for statement in seen if "database_list" in statement]
    assert JobStatus.WAITING in {row.status for row in Row.objects.all()}
