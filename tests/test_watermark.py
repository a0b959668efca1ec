"""Claims on PostgreSQL while a session holds a snapshot, so that nothing that is dead can be removed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from django.db import connection, connections, transaction

from jobify_django import JobStatus, queue, task
from jobify_django.conf import QueueSettings
from jobify_django.job import Claim, JobSpec, new_id
from jobify_django.outcome import succeeded
from jobify_django.runtime import MACHINE, Runtime
from jobify_django.stores.base import Store
from jobify_django.stores.database import DatabaseStore, exchange, watermark
from jobify_django.stores.database.connection import Connection
from jobify_django.stores.database.watermark import Watermark, Watermarks
from tests.child import PATIENCE, until
from tests.claims import claim as take
from tests.claims import release
from tests.test_server import OpenPush
from tests.workshop import Configure, database, elsewhere

pytestmark = [
    database,
    pytest.mark.skipif(connection.vendor != "postgresql", reason="about PostgreSQL"),
]
NEVER = float("inf")
AN_HOUR = 3600.0


@task
def note(value: int = 0) -> None: ...


class Always(Watermarks):
    """Watermarks of every queue, which are as high as they can be at every claim."""

    def __contains__(self, queue: str) -> bool:
        return True

    def of(self, queue: str, db: Connection) -> Watermark | None:
        self.claimed(queue, NEVER)
        super().of(queue, db)  # only those whose number is known from a look before are not late
        return super().of(queue, db)


def be_patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let claims go by the watermarks however fast they are, and look for everybody at each of them."""
    for name, value in {"MANY_DEAD": -1, "RAISE_EVERY": 0.0, "LONGEST_PAUSE": 0.0}.items():
        monkeypatch.setattr(watermark, name, value)


def by_the_watermark(alias: str, runtime: Runtime = MACHINE) -> DatabaseStore:
    """Return a store whose claims go by the watermarks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exchange, "Watermarks", Always)
        return DatabaseStore(alias, runtime)


class Clock:
    """The machine's time, and more of it when the test says so."""

    ahead = 0.0

    def monotonic(self) -> float:
        return MACHINE.monotonic() + self.ahead


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(jobify: Configure, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> DatabaseStore:
    """A store whose claims go by the watermarks."""
    be_patient(monkeypatch)
    jobify(MAXSIZE=100_000)
    return by_the_watermark("database", replace(MACHINE, monotonic=clock.monotonic))


@pytest.fixture
def snapshot(jobify: Configure) -> Iterator[threading.Event]:
    """A session holds one, until this is set."""
    holding, go = threading.Event(), threading.Event()

    def hold() -> None:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            cursor.execute("SELECT count(*) FROM jobify_job")
            holding.set()
            go.wait(PATIENCE)
        connections.close_all()

    thread = threading.Thread(target=hold)
    thread.start()
    assert holding.wait(PATIENCE)
    yield go
    go.set()
    thread.join(PATIENCE)


def settings() -> QueueSettings:
    return queue().settings


def push(store: Store, *priorities: int, **values: Any) -> list[str]:
    specs = [JobSpec(new_id(), note.name, "[[],{}]", priority=priority, **values) for priority in priorities]
    assert store.add(settings(), specs).taken == len(specs)
    return [spec.id for spec in specs]


def claim(store: Store, want: int = 100) -> list[Claim]:
    return take(store, want)


def claimed(store: Store, want: int = 100) -> list[str]:
    return [one.id for one in take(store, want)]


def work_off(store: Store, jobs: int, *, at_once: int = 500) -> None:
    """Let so many jobs of five priorities be pushed, run and end."""
    for start in range(0, jobs, at_once):
        push(store, *(number % 5 for number in range(start, start + at_once)))
        claims = take(store, at_once)
        assert len(claims) == at_once
        store.settle([succeeded(one) for one in claims])


def walked(work: Callable[[], Any], status: str = "waiting") -> int:
    """Return how many entries of the index of waiting (or running) jobs something reads."""

    def entries() -> int:
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT pg_stat_get_xact_tuples_returned('jobify_job_{status}'::regclass)")
            return int(cursor.fetchone()[0])

    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SET LOCAL enable_seqscan = off")  # the table is small
        before = entries()
        work()
        return entries() - before


# What it is for


def test_a_claim_enters_the_index_past_what_is_dead(
    store: DatabaseStore, snapshot: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    work_off(store, 3_000)
    first, second, third = push(store, 2, 2, 1)
    usual = DatabaseStore("usual")
    assert claimed(store, 1) == [first]
    monkeypatch.setattr(watermark, "RAISE_EVERY", NEVER)
    monkeypatch.setattr(watermark, "LONGEST_PAUSE", NEVER)
    assert claimed(store, 1) == [second]  # the last look

    assert walked(lambda: claimed(store)) < 20
    assert store.get([third])[third].status is JobStatus.RUNNING
    assert walked(lambda: claimed(usual)) > 3_000


def test_whether_jobs_wait_is_left_to_the_claim(store: DatabaseStore, snapshot: threading.Event) -> None:
    work_off(store, 1_000)

    push(store, 0)
    queue().pause()  # so that the claim does nothing but look

    assert walked(lambda: claimed(store)) == 0
    assert walked(lambda: claimed(DatabaseStore("usual"))) > 1_000


def test_what_runs_is_found_by_its_id_whatever_the_statistics_say(
    store: DatabaseStore, snapshot: threading.Event
) -> None:
    work_off(store, 3_000)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE jobify_job")
    push(store, 0, 0)
    first, second = claim(store)
    ends = [succeeded(one) for one in (first, second)]

    assert walked(lambda: store.renew("a-pool", {first.id: 1, second.id: 1}, 60.0), "running") == 0
    assert walked(lambda: store.settle(ends), "running") == 0


def test_slow_claims_go_by_the_watermark_as_long_as_there_is_much_to_pass_by(
    jobify: Configure, snapshot: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobify(MAXSIZE=100_000)
    made: list[Watermarks] = []
    monkeypatch.setattr(exchange, "Watermarks", lambda *given: made.append(Watermarks(*given)) or made[-1])
    store = DatabaseStore("database")
    (watermarks,) = made
    monkeypatch.setattr(watermark, "MANY_DEAD", 400)
    monkeypatch.setattr(watermark, "SLOW", NEVER)
    work_off(store, 1_000)
    assert "default" not in watermarks

    monkeypatch.setattr(watermark, "RAISE_EVERY", 0.0)
    monkeypatch.setattr(watermark, "SLOW", -1.0)
    work_off(store, 2, at_once=1)
    assert "default" in watermarks

    monkeypatch.setattr(watermark, "SLOW", NEVER)
    monkeypatch.setattr(watermark, "LONGEST_PAUSE", 0.0)
    work_off(store, 10, at_once=1)
    assert "default" in watermarks
    snapshot.set()

    def gone() -> bool:
        work_off(store, 1, at_once=1)  # what it reads and nobody sees any more it marks, and then passes by
        return "default" not in watermarks

    until(gone, "a full look that reads little")


def test_claims_that_are_slow_for_another_reason_go_the_usual_way(
    jobify: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watermark, "SLOW", -1.0)
    store = DatabaseStore("database")
    push(store, *[0] * 500)
    looks: list[bool] = []
    look = Watermark.refresh

    def watched(mark: Watermark, db: Connection) -> bool:
        looks.append(look(mark, db))
        return looks[-1]

    monkeypatch.setattr(Watermark, "refresh", watched)

    assert [len(take(store, 1)) for _ in range(5)] == [1] * 5
    assert looks == [False]


# Everybody is found


def test_new_priorities_are_found_at_once_and_in_order(store: DatabaseStore) -> None:
    work_off(store, 500)
    lowest, usual, highest, between = push(store, -100, 3, 100, 50)

    assert claimed(store) == [highest, between, usual, lowest]


def test_a_claim_takes_what_it_wants_and_no_more(store: DatabaseStore) -> None:
    work_off(store, 500)
    ids = push(store, *[1, 2] * 5)
    line = [*ids[1::2], *ids[::2]]

    assert claimed(store, 3) == line[:3]
    assert claimed(store, 4) == line[3:7]
    assert claimed(store, 4) == line[7:]


def test_a_claim_locks_only_what_it_takes(store: DatabaseStore) -> None:
    first, second, third, fourth = push(store, 3, 2, 2, 1)
    with transaction.atomic():
        assert claimed(store, 2) == [first, second]
        others = elsewhere(lambda: claimed(by_the_watermark("other")))
    assert others == [third, fourth]


Below = Callable[[DatabaseStore, DatabaseStore], str]


def released(store: DatabaseStore, other: DatabaseStore) -> str:
    (id,) = push(store, 0)
    (held,) = take(other)
    work_off(store, 500)
    release(other, [held])
    return id


def rescued(store: DatabaseStore, other: DatabaseStore) -> str:
    (id,) = push(store, 0)
    take(other, pool="dead-pool", lease=-1.0)
    work_off(store, 500)
    assert [one.id for one in other.rescue()] == [id]
    return id


def retried(store: DatabaseStore, other: DatabaseStore) -> str:
    (id,) = push(store, 0)
    other.cancel([id])
    work_off(store, 500)
    other.retry([id])
    return id


def come_due(store: DatabaseStore, other: DatabaseStore) -> str:
    first, second = push(store, 0, 0, delay=60)
    work_off(store, 500)
    now = other.clock()
    other.clock = lambda: now + 60
    assert claimed(other, 1) == [first]
    return second


def reordered(store: DatabaseStore, other: DatabaseStore) -> str:
    (id,) = push(store, -100)
    work_off(store, 500)
    other.tune(settings(), {"order": "fifo"}, actor="ada", source="code")
    return id


@pytest.mark.parametrize("below", [released, rescued, retried, come_due, reordered])
def test_who_comes_back_to_a_place_below_the_watermark_is_found_by_a_full_look(
    store: DatabaseStore, clock: Clock, monkeypatch: pytest.MonkeyPatch, below: Below
) -> None:
    monkeypatch.setattr(watermark, "LONGEST_PAUSE", AN_HOUR)
    monkeypatch.setattr(watermark, "PAUSE_FACTOR", NEVER)
    id = below(store, DatabaseStore("other"))
    later, lowest = push(store, 0, -1)
    assert claimed(store, 1) == [later]

    clock.ahead += AN_HOUR

    # A rescued job is a suspect, and claimed alone.
    assert claimed(store) + claimed(store) == [id, lowest]


def test_a_push_whose_transaction_takes_long_is_found_by_a_full_look(
    store: DatabaseStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watermark, "LONGEST_PAUSE", AN_HOUR)
    monkeypatch.setattr(watermark, "PAUSE_FACTOR", NEVER)
    open_push = OpenPush()
    work_off(store, 500)
    open_push.end()
    assert claimed(store) == []

    clock.ahead += AN_HOUR

    assert len(claimed(store)) == 1


def test_whom_this_process_lets_come_due_it_need_not_look_for(
    store: DatabaseStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watermark, "LONGEST_PAUSE", NEVER)
    monkeypatch.setattr(watermark, "PAUSE_FACTOR", NEVER)
    early = push(store, 0, 0, 0, delay=60)
    work_off(store, 500)
    (late,) = push(store, 0)
    now = store.clock()
    store.clock = lambda: now + 60

    assert claimed(store, 2) == early[:2]
    assert claimed(store, 2) == [early[2], late]


def test_when_very_many_come_back_it_begins_afresh(
    store: DatabaseStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watermark, "MOST_LATE_ARRIVALS", 20)
    other = DatabaseStore("other")
    ids = push(store, *[0] * 50)
    held = claim(other)
    work_off(store, 500)
    release(other, held)

    assert claimed(store, 30) == ids[:30]
    assert claimed(store, 30) == ids[30:]


def test_a_queue_that_becomes_lifo_is_served_the_usual_way(store: DatabaseStore) -> None:
    work_off(store, 500)
    store.tune(settings(), {"order": "lifo"}, actor="ada", source="code")
    ids = push(store, 1, 2, 3)

    assert claimed(store, 2) == [ids[2], ids[1]]
    assert claimed(store, 2) == [ids[0]]


def test_two_processes_start_each_job_once_and_in_order(store: DatabaseStore) -> None:
    work_off(store, 500)
    ids = push(store, *(number % 7 for number in range(300)))
    found: list[list[str]] = [[], []]

    stores = [by_the_watermark(f"process-{process}") for process in range(2)]

    def work(process: int) -> None:
        mine = stores[process]
        while some := claimed(mine, 7):
            found[process] += some
        connections.close_all()

    threads = [threading.Thread(target=work, args=(process,)) for process in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    line = sorted(range(300), key=lambda number: -(number % 7))
    assert sorted(found[0] + found[1]) == sorted(ids)
    for part in found:
        places = [line.index(ids.index(id)) for id in part]
        assert places == sorted(places)
