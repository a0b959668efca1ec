"""PostgreSQL: a push that its own number admits, in one message, whatever others do meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import connection, transaction

from jobify_django import JobStatus, QueueFull, queue
from jobify_django.exceptions import StoreBusy
from jobify_django.job import JobSpec, new_id
from jobify_django.models import Job
from jobify_django.stores.database import DatabaseStore
from jobify_django.stores.database.ticket import good_for
from jobify_django.testing.conformance.ground import a_queue
from tests.child import until
from tests.claims import claim, release
from tests.test_lane import said
from tests.test_server import OpenPush, note, postgresql, the_store
from tests.workshop import Configure, database, elsewhere

pytestmark = [database, postgresql]

psycopg3 = pytest.mark.skipif(
    getattr(connection, "Database", None) is None
    or connection.Database.__name__ != "psycopg"
    or bool(connection.settings_dict["OPTIONS"].get("server_side_binding")),
    reason="about messages of several statements",
)

QUEUE = a_queue()


def specs(jobs: int, **values: Any) -> list[JobSpec]:
    return [JobSpec(new_id(), "a.task", '[["it\'s \\\\ {\\"}, NULL"],{}]', **values) for _ in range(jobs)]


def waiting() -> int:
    return queue().stats().waiting


def run(*statements: str) -> None:
    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


def counts(seen: Sequence[str]) -> int:
    """Return how many statements have counted the jobs that wait."""
    return sum("count(*) FROM jobify_job" in statement or "others" in statement for statement in seen)


# One message


@psycopg3
@pytest.mark.parametrize("jobs", [1, 20])
def test_a_push_far_from_the_bound_is_one_message_and_counts_nothing(jobify: Configure, jobs: int) -> None:
    store = DatabaseStore()
    for _ in range(3):  # counts, says it in full, and prepares it
        store.add(QUEUE, specs(jobs))
    with said() as seen:
        assert store.add(QUEUE, specs(jobs)).taken == jobs
    assert len(seen) == 1
    assert "count(*)" not in seen[0]
    assert seen[0].count("EXECUTE ") == 2
    assert waiting() == 4 * jobs


@psycopg3
@pytest.mark.parametrize("jobs", [1, 20])
def test_a_push_that_counts_is_one_message_too(jobify: Configure, jobs: int) -> None:
    store = DatabaseStore()
    store.stats([QUEUE])  # so that the server's clock is known
    with said() as seen:
        assert store.add(QUEUE, specs(jobs)).taken == jobs
    assert len(seen) == 1
    with said() as seen:
        assert store.add(a_queue(maxsize=jobs), specs(1)).taken == 0
    assert len(seen) == 1


@psycopg3
def test_a_push_in_a_transaction_is_one_message(jobify: Configure) -> None:
    store = DatabaseStore()
    store.add(QUEUE, specs(1))
    with transaction.atomic():
        for _ in range(3):
            with said() as seen:
                store.add(QUEUE, specs(2))
            assert len(seen) == 1
    assert waiting() == 7


@psycopg3
def test_beside_a_busy_queue_a_small_bound_is_counted_without_a_ticket_first(jobify: Configure) -> None:
    """All queues share the numbers, so the tickets of its books are used up by the next push."""
    store, other, bounded = DatabaseStore(), DatabaseStore(), a_queue("small", maxsize=30)
    messages = []
    for _ in range(20):
        other.add(QUEUE, specs(40))
        with said() as seen:
            store.add(bounded, specs(1))
        messages.append(len([one for one in seen if "jobify_" in one]))
    settled = messages[6:]  # both stores prepare what they say on one connection
    assert set(settled) <= {1, 2}
    assert settled.count(2) < 5
    assert store.add(bounded, specs(20)).taken == 10


def test_what_a_message_inserts_is_what_is_read(jobify: Configure) -> None:
    store = DatabaseStore()
    store.add(QUEUE, specs(1))
    ways: list[Callable[[Sequence[JobSpec]], object]] = [
        lambda some: [store.add(QUEUE, [one]) for one in some],
        lambda some: store.add(QUEUE, some),
        lambda some: DatabaseStore().add(QUEUE, some),
        in_transaction(lambda some: store.add(QUEUE, some)),
        in_transaction(lambda some: DatabaseStore().add(QUEUE, some)),
    ]
    for way in ways:
        some = [*specs(1, priority=7, flags=3, extra='{"a": "\\""}'), *specs(1, delay=60.0), *specs(1)]
        way(some)
        found = store.get([one.id for one in some])
        for one in some:
            record = found[one.id]
            assert (record.arguments, record.priority, record.flags, record.extra) == one[2:4] + one[6:]
            assert (record.status == JobStatus.DELAYED) == bool(one.delay)
            assert record.eligible_at == record.pushed_at + one.delay
        numbers = [found[one.id].sequence for one in some]
        assert numbers == sorted(numbers)


def in_transaction(way: Callable[[Any], object]) -> Callable[[Any], object]:
    def inside(some: Any) -> None:
        with transaction.atomic():
            way(some)

    return inside


# The bound


@pytest.mark.parametrize("jobs", [1, 3])
def test_two_processes_that_have_counted_keep_one_bound(jobify: Configure, jobs: int) -> None:
    stores = [DatabaseStore(), DatabaseStore()]
    bounded = a_queue(maxsize=20)
    refused = 0
    while refused < 4:
        for store in stores:
            added = store.add(bounded, specs(jobs))
            refused += added.taken == 0
    assert waiting() == 20


def test_a_number_that_was_rolled_back_is_given_back_by_the_next_count(jobify: Configure) -> None:
    store, bounded = DatabaseStore(), a_queue(maxsize=20)
    store.add(bounded, specs(1))
    with transaction.atomic():
        store.add(bounded, specs(15))
        transaction.set_rollback(True)
    for _ in range(19):
        assert store.add(bounded, specs(1)).taken == 1
    assert store.add(bounded, specs(1)).taken == 0


def test_what_comes_back_after_a_count_is_in_the_ceiling(jobify: Configure) -> None:
    store, bounded = DatabaseStore(), a_queue(maxsize=10)
    store.add(bounded, specs(5))
    held = claim(store, 5)
    pushing = DatabaseStore()
    pushing.add(bounded, specs(1))  # counts one
    release(store, held)
    for _ in range(8):
        pushing.add(bounded, specs(1))
    assert waiting() == 10


def test_what_a_rolled_back_transaction_had_cancelled_is_in_the_ceiling(jobify: Configure) -> None:
    store, bounded = DatabaseStore(), a_queue(maxsize=10)
    some = specs(6)
    store.add(bounded, some)
    pushing = DatabaseStore()
    with transaction.atomic():
        store.cancel([one.id for one in some])
        pushing.add(bounded, specs(1))
        transaction.set_rollback(True)
    for _ in range(10):
        pushing.add(bounded, specs(1))
    assert waiting() == 10


def test_what_becomes_due_after_a_count_is_in_the_ceiling(jobify: Configure) -> None:
    store, bounded = DatabaseStore(), a_queue(maxsize=10)
    store.add(bounded, specs(5, delay=60.0))
    pushing = DatabaseStore()
    pushing.add(bounded, specs(1))  # counts one that waits, and five that are delayed
    ahead = store.clock() + 3600
    store.clock = lambda: ahead
    assert len(claim(store)) == 1
    assert waiting() == 5
    for _ in range(12):
        pushing.add(bounded, specs(1))
    assert waiting() == 10


def test_a_job_that_is_known_is_accepted_and_added_once(jobify: Configure) -> None:
    store, bounded = DatabaseStore(), a_queue(maxsize=6)
    some = specs(3)
    assert store.add(bounded, some).taken == 3
    for again in (some[:1], some, [*some, *specs(1)]):
        assert store.add(bounded, again).taken == len(again)
    with transaction.atomic():
        assert store.add(bounded, some).taken == 3
    store.add(bounded, specs(2))
    assert waiting() == 6
    for again in (some[:1], some, [*some, *specs(1)]):  # while it is full
        assert store.add(bounded, again).taken == 3 if len(again) > 1 else 1
    assert waiting() == 6


def test_of_many_jobs_as_many_are_added_as_fit(jobify: Configure) -> None:
    store, bounded = DatabaseStore(), a_queue(maxsize=6)
    store.add(bounded, specs(2))
    assert store.add(bounded, specs(3), all_or_nothing=True).taken == 3
    assert store.add(bounded, specs(3), all_or_nothing=True).taken == 0
    assert store.add(bounded, specs(3)).taken == 1
    assert waiting() == 6


def test_a_delayed_job_needs_no_room(jobify: Configure) -> None:
    store, bounded = DatabaseStore(), a_queue(maxsize=2)
    for _ in range(3):
        added = store.add(bounded, specs(1, delay=60.0))
        assert (added.taken, added.maxsize) == (1, 2)
    assert store.add(bounded, specs(2)).taken == 2
    assert store.add(bounded, specs(2, delay=60.0)).taken == 2
    with transaction.atomic():
        assert store.add(bounded, specs(1, delay=60.0)).taken == 1
    assert store.add(bounded, specs(1)).taken == 0


def test_a_bound_that_was_tuned_is_in_force_for_the_next_push(jobify: Configure) -> None:
    store, other = DatabaseStore(), DatabaseStore()
    store.add(QUEUE, specs(2))
    other.tune(QUEUE, {"maxsize": 3}, actor="", source="")
    assert store.add(QUEUE, specs(1)).taken == 1
    assert store.add(QUEUE, specs(1)).taken == 0
    other.tune(QUEUE, {"maxsize": 5}, actor="", source="")
    assert store.add(QUEUE, specs(2)).taken == 2
    with transaction.atomic():
        assert store.add(QUEUE, specs(1), all_or_nothing=True).taken == 0


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_order_that_was_tuned_places_the_next_push(jobify: Configure, jobs: int) -> None:
    store, other = DatabaseStore(), DatabaseStore()
    store.add(QUEUE, specs(1))
    for order, last in (("lifo", True), ("fifo", False), ("priority", False), ("lifo", True)):
        other.tune(QUEUE, {"order": order}, actor="", source="")
        some = specs(jobs, priority=5)
        assert store.add(QUEUE, some[:1]).order == order
        if jobs > 1:
            store.add(QUEUE, some[1:])
        keys = set(Job.objects.filter(id__in=[one.id for one in some]).values_list("order_key", "sequence"))
        assert {key for key, _ in keys} == (
            {-number for _, number in keys} if last else {0 if order == "fifo" else -5}
        )


def test_a_connection_that_was_closed_for_good_takes_its_count_with_it(jobify: Configure) -> None:
    store = DatabaseStore()
    store.add(QUEUE, specs(1))
    store.close()
    with said() as seen:
        store.add(QUEUE, specs(1))
    assert counts(seen) >= 1


# In whose session it is said


@psycopg3
def test_a_session_that_was_swapped_costs_a_repetition(jobify: Configure) -> None:
    """As behind a pooler: what was prepared is not there, or is there already."""
    store = DatabaseStore()
    for _ in range(3):
        store.add(QUEUE, specs(1))
    run("DEALLOCATE ALL")
    assert store.add(QUEUE, specs(1)).taken == 1
    assert store.add(QUEUE, specs(1)).taken == 1
    other = DatabaseStore()  # knows nothing of what this connection has prepared
    for _ in range(4):
        assert other.add(QUEUE, specs(1)).taken == 1
    assert waiting() == 9


@psycopg3
def test_where_sessions_are_swapped_all_the_time_nothing_is_prepared(jobify: Configure) -> None:
    store = DatabaseStore()
    for _ in range(12):
        store.add(QUEUE, specs(1))
        run("DEALLOCATE ALL")
    with said() as seen:
        store.add(QUEUE, specs(1))
    assert len(seen) == 1
    assert "EXECUTE" not in seen[0]
    assert waiting() == 13


@contextmanager
def setting(name: str, value: str) -> Iterator[None]:
    run(f"SET {name} = '{value}'")
    try:
        yield
    finally:
        run(f"RESET {name}")


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_whatever_level_a_session_begins_with_a_push_goes_by_what_is_committed(
    jobify: Configure, level: str
) -> None:
    store, bounded = DatabaseStore(), a_queue(maxsize=12)
    with setting("default_transaction_isolation", level):
        for _ in range(6):
            assert store.add(bounded, specs(1)).taken == 1
        with transaction.atomic():
            assert store.add(bounded, specs(2)).taken == 2
            elsewhere(lambda: DatabaseStore().add(bounded, specs(2)))
            assert store.add(bounded, specs(1), all_or_nothing=True).taken == 1
        assert store.add(bounded, specs(2)).taken == 1
    assert waiting() == 12


def test_a_push_beside_an_open_transaction_is_refused_and_leaves_nothing(jobify: Configure) -> None:
    jobify(MAXSIZE=2, PUSH_TIMEOUT=0)
    open_push = OpenPush(2)
    try:
        for _ in range(2):
            with pytest.raises(QueueFull):
                elsewhere(note.push)
    finally:
        open_push.end()
    assert waiting() == 2
    assert len(claim(the_store(), 2)) == 2
    note.push()
    assert waiting() == 1


def test_what_a_transaction_has_changed_itself_is_in_no_count_of_others(jobify: Configure) -> None:
    store, bounded = DatabaseStore(), a_queue(maxsize=10)
    assert store.add(bounded, specs(8)).taken == 8
    store.close()  # so that the next push counts
    with transaction.atomic():
        Job.objects.all().delete()
        assert store.add(bounded, specs(1)).taken == 1
        transaction.set_rollback(True)
    assert store.add(bounded, specs(5)).taken == 2
    assert waiting() == 10


@psycopg3
def test_a_notification_that_fails_after_the_commit_takes_no_push_back(jobify: Configure) -> None:
    store = DatabaseStore()
    store.add(QUEUE, specs(1))
    spoilt: list[str] = []

    def spoil(execute: Callable[..., Any], sql: str, *rest: Any) -> Any:
        if "COMMIT;" in sql:
            spoilt.append(sql)
        return execute(sql.replace("pg_notify(", "pg_notify_of_nobody("), *rest)

    def push_is_spoilt() -> bool:
        assert store.add(QUEUE, specs(1)).taken == 1
        return bool(spoilt)

    with connection.execute_wrapper(spoil):
        until(push_is_spoilt)  # it is due again in a moment
    assert len(spoilt) == 1


@psycopg3
def test_a_column_that_is_altered_meanwhile_stops_nobody(jobify: Configure) -> None:
    store = DatabaseStore()
    for _ in range(4):
        store.add(QUEUE, specs(1))
        claim(store)
    run("ALTER TABLE jobify_job ALTER COLUMN task TYPE text")
    try:
        assert store.add(QUEUE, specs(1)).taken == 1
        assert len(claim(store)) == 1
        assert len(claim(store, expected=True)) == 0
    finally:
        run("ALTER TABLE jobify_job ALTER COLUMN task TYPE varchar(255)")


@psycopg3
def test_a_push_that_counts_is_planned_once_also_on_a_large_analyzed_table(jobify: Configure) -> None:
    ended = (
        "INSERT INTO jobify_job (id, queue, task, arguments, priority, status, sequence, order_key, "
        "pushed_at, eligible_at, ended_at, attempt, crashes, pool, cancel_requested) "
        "SELECT 'e' || i, 'other', 't', '', 0, 'successful', i, 0, 0, 0, 0, 1, 0, '', FALSE "
        "FROM generate_series(1, 20000) i"
    )
    run(ended, "ANALYZE jobify_job")
    store = DatabaseStore()
    for _ in range(12):
        assert store.add(a_queue(maxsize=1), specs(1)).taken == 1
        run("UPDATE jobify_job SET status = 'successful', ended_at = 0 WHERE status = 'waiting'")
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT custom_plans, generic_plans > 5 FROM pg_prepared_statements "
            "WHERE name ~ '^jobify_(look|addcounted)_'"
        )
        assert cursor.fetchall() == [(0, True), (0, True)]


@psycopg3
def test_a_ticket_that_waited_for_a_lock_leaves_the_rest_of_the_wait_to_the_count(jobify: Configure) -> None:
    store = DatabaseStore()
    store.add(QUEUE, specs(1))
    allowed: list[int] = []

    def note(execute: Callable[..., Any], sql: str, values: Any, *rest: Any) -> Any:
        if "lock_timeout" in sql:
            allowed.append(values[1])
        return execute(sql, values, *rest)

    def push() -> None:
        with connection.execute_wrapper(note), pytest.raises(StoreBusy):
            store.add(QUEUE, specs(1), lock_timeout=0)

    with transaction.atomic():
        run("LOCK TABLE jobify_job")
        elsewhere(push)
    assert allowed == [1]  # a millisecond: what 0 means to the server is for ever


@psycopg3
def test_a_push_whose_connection_is_lost_while_it_waits_for_a_lock_is_made_again(jobify: Configure) -> None:
    store = DatabaseStore()
    store.add(QUEUE, specs(1))
    broken: list[str] = []

    def spoil(execute: Callable[..., Any], sql: str, *rest: Any) -> Any:
        if "COMMIT;" in sql and not broken:  # a ticket that notifies begins its transaction itself
            broken.append(sql)
            execute("BEGIN", None, *rest[1:])
            execute("SET LOCAL statement_timeout = 1", None, *rest[1:])
            return execute("SELECT pg_sleep(60)", None, *rest[1:])
        if broken and sql == "ROLLBACK" and len(broken) == 1:
            broken.append(sql)
            connection.connection.close()
        return execute(sql, *rest)

    def push_is_spoilt() -> bool:
        assert store.add(QUEUE, specs(1)).taken == 1
        return bool(broken)

    with connection.execute_wrapper(spoil):
        until(push_is_spoilt)  # a notification is due again in a moment
    assert broken[1:] == ["ROLLBACK"]


@pytest.mark.parametrize(("took", "good"), [(0.001, 5.0), (0.2, 20.0), (10.0, 60.0)])
def test_a_count_is_used_the_longer_the_longer_it_took(jobify: Configure, took: float, good: float) -> None:
    assert good_for(took) == pytest.approx(good)
