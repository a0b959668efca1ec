"""A pool's exchange with PostgreSQL in one message: when it is one, what it reads, and what becomes of it
when the session is swapped or ended."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import OperationalError, connection, connections, transaction
from django.db.backends.utils import CursorWrapper

from jobify_django.exceptions import StoreUncertain
from jobify_django.job import Claim, JobSpec, JobStatus, new_id
from jobify_django.outcome import succeeded
from jobify_django.stores.base import Store
from jobify_django.stores.database import DatabaseStore
from jobify_django.stores.database.connection import array
from jobify_django.stores.value import Demand, Lane
from jobify_django.testing.conformance.ground import a_queue
from tests.child import until
from tests.claims import POOL, claim, die
from tests.test_collision import Beside
from tests.test_lane import TAKES_MESSAGES, expected, said, use
from tests.workshop import Configure, database, elsewhere

pytestmark = [
    database,
    pytest.mark.skipif(not TAKES_MESSAGES, reason="about PostgreSQL and psycopg 3"),
]
QUEUE = a_queue(maxsize=100_000)


@pytest.fixture
def store(jobify: Configure) -> Store:
    """A store that has prepared its statements while there were hardly any jobs."""
    store = DatabaseStore()
    for _ in range(2):
        use(store)
    return store


def push(store: Store, jobs: int = 1, **values: Any) -> list[str]:
    specs = [JobSpec(new_id(), "a.task", "[[],{}]", **values) for _ in range(jobs)]
    assert store.add(QUEUE, specs).taken == jobs
    return [spec.id for spec in specs]


def turn(store: Store, held: Sequence[Claim], want: int = 1, *queues: str) -> Sequence[Claim]:
    """End jobs, and claim the next ones."""
    lanes = {name: Lane(want, 60.0) for name in queues or ("default",)}
    claimed = store.claim(Demand(POOL, lanes), [succeeded(one) for one in held])
    assert list(claimed.refused) == []
    return claimed.claims


def ids(claims: Sequence[Claim]) -> list[str]:
    return [one.id for one in claims]


# When it is one message


def test_queues_of_any_number_take_one_message(store: Store) -> None:
    names = [f"queue {number}" for number in range(150)]
    pushed = [new_id() for _ in names]
    for name, id in zip(names, pushed, strict=True):
        store.add(a_queue(name), [JobSpec(id, "a.task", "[[],{}]")])
    with said() as seen:
        claims = turn(store, (), 2, *names)
    assert len(seen) == 1
    assert set(ids(claims)) == set(pushed)
    assert {one.queue for one in claims} == set(names)


def test_a_job_that_is_due_takes_the_long_way_with_the_outcomes(store: Store) -> None:
    (first,) = push(store)
    held = claim(store)
    (due,) = push(store, delay=60.0, priority=1)
    later = push(store)
    with connection.cursor() as cursor:
        cursor.execute("UPDATE jobify_job SET eligible_at = 0 WHERE id = %s", [due])
    with said() as seen:
        claims = turn(store, held, 2)
    assert ids(claims) == [due, *later]
    assert seen[:3] == expected("end and claim at once", "begin", "end")
    assert store.get([first])[first].status is JobStatus.SUCCESSFUL


def test_a_job_in_quarantine_is_claimed_alone_with_the_outcomes_of_others(store: Store) -> None:
    (crashed,) = push(store, priority=1)
    die(store)
    store.rescue()
    (first,) = push(store, priority=2)
    push(store)
    held = claim(store)
    assert ids(held) == [first]
    assert ids(turn(store, held, 2)) == [crashed]
    assert store.get([first])[first].status is JobStatus.SUCCESSFUL


def test_in_a_callers_transaction_nothing_is_sent_that_ends_it(store: Store) -> None:
    push(store, 2)
    with transaction.atomic():
        with said() as seen:
            (first,) = claim(store)
            turn(store, [first])
            store.renew(POOL, {first.id: first.attempt}, 60.0)
        assert not [one for one in seen if "EXECUTE" in one]
        transaction.set_rollback(True)
    assert len(claim(store, 2)) == 2


def test_a_connection_that_binds_on_the_server_takes_the_long_way(
    jobify: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(connections.settings["default"]["OPTIONS"], "server_side_binding", True)

    def work() -> list[str]:
        store = DatabaseStore()
        with said_here() as seen:
            use(store)
        return seen

    seen = elsewhere(work)
    assert not [one for one in seen if "EXECUTE" in one]


@contextmanager
def said_here() -> Iterator[list[str]]:
    """As ``said``, for the thread that asks."""
    seen: list[str] = []

    def note(execute: Callable[..., Any], sql: str, *rest: Any) -> Any:
        seen.append(sql)
        return execute(sql, *rest)

    with connections["default"].execute_wrapper(note):
        yield seen


# What it reads: the plan is made while the table is all but empty


def test_a_plan_that_is_kept_reads_no_more_as_the_table_grows(store: Store) -> None:
    messages = caught_of(store)
    with connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO jobify_job (id, queue, task, arguments, priority, status, sequence, order_key,
                                    pushed_at, eligible_at, attempt, crashes, pool, cancel_requested,
                                    ended_at, lease_until)
            SELECT 'old ' || n, 'default', 'a.task', '[[],{}]', 0, s.status,
                   nextval('jobify_job_number'), n %% 7, 0, 0, 0, 0, 'x', FALSE,
                   CASE s.status WHEN 'successful' THEN 1 END, CASE s.status WHEN 'running' THEN 1 END
            FROM generate_series(1, 6000) n
            JOIN (VALUES (0, 'waiting'), (1, 'running'), (2, 'successful')) s (part, status)
                ON s.part = n %% 3""",
            [],
        )
    for analyzed in (False, True):
        if analyzed:  # plans are made anew
            with connection.cursor() as cursor:
                cursor.execute("ANALYZE jobify_job")
        for name, (sql, values) in messages.items():
            nodes = list(explained(sql, values))
            # The jobs held, and those wanted.
            assert max(node["Actual Rows"] for node in nodes) <= 10, (name, analyzed)
            assert max(node.get("Rows Removed by Filter", 0) for node in nodes) <= 10, (name, analyzed)
            read = {node["Node Type"] for node in nodes if node.get("Relation Name") == "jobify_job"}
            assert read <= {"Index Scan", "Index Only Scan", "Tid Scan", "ModifyTable"}, (name, analyzed)
            locked = [node["Actual Rows"] for node in nodes if node["Node Type"] == "LockRows"]
            assert max(locked) <= (3 if name in ("jobify_claim", "jobify_turn") else 1)


def caught_of(store: Store) -> Mapping[str, tuple[str, Sequence[Any]]]:
    """Return the messages of what a pool says, by the names of their statements, and their values."""
    caught: dict[str, tuple[str, Sequence[Any]]] = {}

    def note(execute: Callable[..., Any], sql: str, values: Any, *rest: Any) -> Any:
        if found := re.search(r"EXECUTE (jobify_[a-z]+)_\w+\(", sql):
            caught[found[1]] = sql, values
        return execute(sql, values, *rest)

    push(store, 6)
    with connection.execute_wrapper(note):
        held = claim(store, 3)
        store.renew(POOL, {one.id: one.attempt for one in held}, 60.0)
        store.settle([succeeded(one) for one in turn(store, held, 3)])
    assert set(caught) == {"jobify_claim", "jobify_renew", "jobify_turn", "jobify_end"}
    return caught


def explained(sql: str, values: Sequence[Any]) -> Iterator[dict[str, Any]]:
    """Yield the nodes of the plan by which a message's statement runs."""
    *settings, execute = sql.split("; ")
    with transaction.atomic(), connection.cursor() as cursor:
        for setting in settings[1:]:
            cursor.execute(setting)
        cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {execute}", values)
        (plan,) = cursor.fetchone()
        transaction.set_rollback(True)
    plans = [(plan if isinstance(plan, list) else json.loads(plan))[0]["Plan"]]
    while plans:
        node = plans.pop()
        yield node
        plans += node.get("Plans", ())


# Others in the way: what a statement waited for is looked at again, as it is then


def waits(pid: int) -> bool:
    """Whether a session waits for somebody's lock."""

    def look() -> bool:
        with connection.cursor() as cursor:
            cursor.execute("SELECT cardinality(pg_blocking_pids(%s)) > 0", [pid])
            return bool(cursor.fetchone()[0])

    return bool(elsewhere(look))


def session(cursor: CursorWrapper) -> int:
    cursor.execute("SELECT pg_backend_pid()")
    return int(cursor.fetchone()[0])


def while_it_waits(
    store: Store, held: str, work: Callable[[], Any], change: str, meanwhile: Callable[[], object]
) -> Any:
    """Return what some work returned that waited for a job which is changed so."""
    pids: list[int] = []

    def on_its_own() -> Any:
        with connection.cursor() as cursor:
            pids.append(session(cursor))
        return work()

    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute(f"UPDATE jobify_job SET {change} WHERE id = %s", [held])
        beside = Beside(on_its_own)
        until(lambda: bool(pids) and waits(pids[0]), "the wait for the job")
        elsewhere(meanwhile)
    return beside.result()


def test_an_end_that_waited_for_another_change_is_stored(store: Store) -> None:
    pushed = push(store, 4)
    held = claim(store, 3)
    claims = while_it_waits(
        store, held[1].id, lambda: turn(store, held), "cancel_requested = TRUE", lambda: None
    )
    assert ids(claims) == pushed[3:]
    found = store.get(pushed)
    assert {(found[id].status, found[id].attempt) for id in pushed[:3]} == {(JobStatus.SUCCESSFUL, 1)}
    assert [found[id].cancel_requested for id in pushed] == [False, True, False, False]


def test_an_end_that_waited_until_another_attempt_held_the_job_is_refused(store: Store) -> None:
    pushed = push(store, 2)
    held = claim(store, 2)

    def work() -> Any:
        return store.claim(
            Demand(POOL, {"default": Lane(1, 60.0)}), [succeeded(one, '"mine"') for one in held]
        )

    claimed = while_it_waits(store, pushed[0], work, "attempt = 2", lambda: None)
    assert [one.id for one in claimed.refused] == pushed[:1]
    assert {id: one.result for id, one in store.get(pushed).items()} == {pushed[0]: None, pushed[1]: '"mine"'}


@pytest.mark.parametrize("lost", [False, True])
def test_a_renewal_that_waited_goes_by_the_job_as_it_is_then(store: Store, lost: bool) -> None:
    pushed = push(store, 2)
    held = {one.id: one.attempt for one in claim(store, 2)}
    change = "pool = 'another'" if lost else "cancel_requested = TRUE"
    renewed = while_it_waits(store, pushed[1], lambda: store.renew(POOL, held, 600.0), change, lambda: None)
    assert list(renewed.lost) == (pushed[1:] if lost else [])
    assert list(renewed.cancel_requested) == ([] if lost else pushed[1:])


def test_a_job_that_moves_while_a_claim_is_under_way_is_left_for_the_next_one(store: Store) -> None:
    ended, *line = push(store, 4)
    held = claim(store)

    def meanwhile() -> None:
        with connection.cursor() as cursor:
            cursor.execute("UPDATE jobify_job SET order_key = 5 WHERE id = %s", [line[0]])
            cursor.execute("UPDATE jobify_job SET status = 'cancelled' WHERE id = %s", [line[1]])

    claims = while_it_waits(store, ended, lambda: turn(store, held, 2), "cancel_requested = TRUE", meanwhile)
    assert ids(claims) == line[2:]
    assert store.get([ended])[ended].status is JobStatus.SUCCESSFUL
    assert ids(claim(store, 2)) == line[:1]


# The session


def test_a_session_that_has_lost_what_was_prepared_prepares_it_anew(store: Store) -> None:
    push(store, 2)
    with connection.cursor() as cursor:
        cursor.execute("DEALLOCATE ALL")
    (first,) = claim(store)
    with connection.cursor() as cursor:
        cursor.execute("DEALLOCATE ALL")
    assert len(turn(store, [first])) == 1


def test_a_session_on_which_another_process_has_prepared_it_is_used(store: Store) -> None:
    push(store, 3)
    other = DatabaseStore("another")
    claim(other)  # once is not enough to prepare it
    with said() as seen:
        (first,) = claim(other)
    assert [("PREPARE" in one) for one in seen[-2:]] == [True, False]
    assert len(turn(other, [first])) == 1


def test_sessions_that_are_swapped_all_the_time_are_served_without_preparing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(store, 2)
    execute = CursorWrapper.execute

    def swap(cursor: Any, sql: str, *values: Any) -> Any:
        """The next message comes to a session where all is the other way round."""
        if found := re.search(r"PREPARE (jobify_\w+)\(", sql):
            execute(cursor, f"PREPARE {found[1]} AS SELECT 1")
        elif "; EXECUTE" in sql:
            execute(cursor, "DEALLOCATE ALL")
        return execute(cursor, sql, *values)

    monkeypatch.setattr(CursorWrapper, "execute", swap)
    with said() as seen:
        (first,) = claim(store)
    assert [("PREPARE" in one, "EXECUTE" in one) for one in seen[-2:]] == [(False, True), (False, False)]
    assert len(turn(store, [first])) == 1


def test_a_connection_that_was_ended_is_replaced_for_the_next_claim(store: Store) -> None:
    pushed = push(store, 2)
    (first,) = claim(store)
    end_session()
    assert ids(turn(store, [first])) == pushed[1:]
    end_session()
    assert claim(store) == []


def end_session() -> None:
    """End this thread's session, and wait until it is gone."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        (pid,) = cursor.fetchone()

    def end() -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(%s, 10000)", [pid])

    elsewhere(end)


@pytest.mark.parametrize("verb", ["settle", "renew", "claim"])
def test_a_lost_reply_may_be_a_commit(store: Store, monkeypatch: pytest.MonkeyPatch, verb: str) -> None:
    push(store)
    (held,) = claim(store)
    execute = CursorWrapper.execute

    def lose(cursor: Any, sql: str, *values: Any) -> Any:
        answer = execute(cursor, sql, *values)
        if "; EXECUTE" in sql:
            cursor.db.close()
            raise OperationalError("server closed the connection unexpectedly")
        return answer

    calls: Mapping[str, Callable[[], object]] = {
        "settle": lambda: store.settle([succeeded(held)]),
        "renew": lambda: store.renew(POOL, {held.id: held.attempt}, 600.0),
        "claim": lambda: turn(store, [held]),
    }
    with monkeypatch.context() as patch:
        patch.setattr(CursorWrapper, "execute", lose)
        with pytest.raises(StoreUncertain):
            calls[verb]()
    stored = store.get([held.id])[held.id]
    assert stored.status is (JobStatus.RUNNING if verb == "renew" else JobStatus.SUCCESSFUL)


def test_what_the_server_refuses_was_not_done(store: Store) -> None:
    push(store)
    (held,) = claim(store)
    with connection.cursor() as cursor:
        cursor.execute(
            "ALTER TABLE jobify_job ADD CONSTRAINT tests_no_end CHECK (status <> 'successful') NOT VALID"
        )
    try:
        with pytest.raises(Exception, match="tests_no_end") as error:
            turn(store, [held])
        assert not isinstance(error.value, StoreUncertain)
    finally:
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE jobify_job DROP CONSTRAINT tests_no_end")
    assert store.get([held.id])[held.id].status is JobStatus.RUNNING
    assert list(turn(store, [held])) == []


# Values


ODD = ["", "NULL", "null", "a,b", "{a}", '"', "\\", '\\"', "a b ", "Zürich 🚀", "'", "%s", "$1", "\n"]


def test_odd_texts_come_back_as_they_were(jobify: Configure) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT %s::text[], %s::integer[]", [array([None, *ODD]), array([1, None, -2])])
        assert cursor.fetchone() == ([None, *ODD], [1, None, -2])


def test_odd_results_are_stored_as_they_are(store: Store) -> None:
    push(store, len(ODD))
    held = claim(store, len(ODD))
    results = [json.dumps(text) for text in ODD]
    store.claim(
        Demand(POOL, {"default": Lane(1, 60.0)}),
        [succeeded(one, result) for one, result in zip(held, results, strict=True)],
    )
    stored = store.get(ids(held))
    assert [stored[id].result for id in ids(held)] == results
