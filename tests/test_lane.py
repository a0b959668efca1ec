"""What a push, a claim, a settlement and a renewal say to a database: these statements and no others.

A capability that a queue or a job does not ask for costs neither a statement more nor a longer one. Whoever
means to change one of these texts changes it here too, with a measurement.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import connection

from jobify_django.conf import QueueSettings
from jobify_django.job import JobSpec, new_id
from jobify_django.outcome import succeeded
from jobify_django.stores.base import Store
from jobify_django.stores.database import DatabaseStore
from jobify_django.stores.value import Demand, Lane
from jobify_django.testing.conformance.ground import a_queue
from tests.claims import POOL, claim
from tests.workshop import database

pytestmark = database

# What PostgreSQL is sent in one message: a transaction by itself, whose statement was prepared before.
AT_ONCE = (
    "SET TRANSACTION ISOLATION LEVEL READ COMMITTED; SET LOCAL statement_timeout = '15s'; "
    "SET LOCAL plan_cache_mode = force_generic_plan; SET LOCAL enable_seqscan = off; "
    "SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off; EXECUTE"
)
TAKES_MESSAGES = connection.vendor == "postgresql" and connection.Database.__name__ == "psycopg"
TEXTS: dict[str, dict[str, list[str]]] = {
    "sqlite": {
        "begin a push": [],
        "push": [
            """
                SELECT maxsize, "order", sequence, waiting, (SELECT count(*) FROM jobify_job WHERE queue =
                %(queue)s AND status = 'delayed' AND eligible_at <= %(now)s) FROM jobify_queue WHERE name =
                %(queue)s""",
            """
                INSERT INTO jobify_job (id, queue, task, arguments, priority, status, sequence, order_key,
                pushed_at, eligible_at, flags, extra, attempt, crashes, pool, cancel_requested) VALUES (%s,
                %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, 0, 0, '', FALSE) ON CONFLICT (id) DO NOTHING""",
            "UPDATE jobify_queue SET waiting = waiting + %s, sequence = %s WHERE name = %s",
        ],
        "begin": [],
        "look": [
            """
                SELECT w.queue, version, workers, maxsize, "order", paused, reordering, CASE WHEN w.skipped
                = 1 THEN '' ELSE (SELECT CASE j.crashes WHEN 0 THEN '' ELSE j.id END FROM jobify_job j WHERE
                j.queue = w.queue AND j.status = 'waiting' ORDER BY j.order_key, j.sequence LIMIT 1) END,
                (SELECT min(eligible_at) FROM jobify_job j WHERE j.queue = w.queue AND j.status = 'delayed')
                FROM (SELECT %s AS queue, 0 AS skipped) w LEFT JOIN jobify_queue q ON q.name = w.queue""",
        ],
        "start": [
            """
                UPDATE jobify_job SET status = 'running', attempt = attempt + 1, pool = %s, started_at = %s,
                lease_until = %s WHERE rowid IN (SELECT rowid FROM jobify_job WHERE queue = %s AND status =
                'waiting' AND crashes = 0 ORDER BY order_key, sequence LIMIT %s) RETURNING order_key,
                sequence, id, attempt, queue, task, arguments, priority, pushed_at, eligible_at, started_at,
                crashes, flags, extra""",
            "UPDATE jobify_queue SET waiting = waiting + %s WHERE name = %s",
        ],
        "end": [
            """
                UPDATE jobify_job SET status = %s, result = %s, error = %s, ended_at = %s, lease_until =
                NULL WHERE (id, attempt) IN (VALUES (%s, %s)) AND status = 'running' RETURNING id, attempt""",
        ],
        "renew": [
            """
                UPDATE jobify_job SET lease_until = %s WHERE (id, attempt) IN (VALUES (%s, %s)) AND pool =
                %s AND status = 'running' RETURNING id, cancel_requested""",
        ],
        "sync": [
            """
                SELECT NULL AS id, name, version, workers, maxsize, "order", paused, reordering FROM
                jobify_queue WHERE name IN (%s) UNION ALL SELECT id, NULL, version, workers, maxsize,
                "order", paused, reordering FROM jobify_job LEFT JOIN jobify_queue ON 1 = 0 WHERE status =
                'running' AND pool = %s AND cancel_requested""",
        ],
        "limit": [
            """
                SELECT count(*) FROM jobify_job WHERE queue = %s AND status = 'running' AND lease_until >=
                %s""",
        ],
        "lock": [
            """
                SELECT id, queue, task, arguments, priority, status, sequence, attempt, crashes, pushed_at,
                eligible_at, started_at, ended_at, lease_until, pool, cancel_requested, result, error,
                history, flags, extra FROM jobify_job WHERE id IN (%s) ORDER BY id""",
        ],
    },
    "postgresql": {
        "begin a push": [
            """
                BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL statement_timeout = '15s'; SET LOCAL
                idle_in_transaction_session_timeout = '15s'""",
        ],
        "push": [
            """
                SELECT 'jobify_job'::regclass::oid::bigint, ARRAY(SELECT nextval('jobify_job_number') FROM
                generate_series(1, %s + length(a.made))) FROM (SELECT
                pg_advisory_xact_lock_shared('jobify_job'::regclass::oid::int4 # %s, %s)::text ||
                left(pg_current_xact_id()::text, 0) AS made OFFSET 0) a""",
            """
                SELECT 'jobify_job'::regclass::oid::bigint, q.maxsize, q."order",
                current_setting('transaction_isolation') <> 'read committed', ( SELECT
                coalesce(sum(l.objid::bigint & 4095), 0) FROM pg_locks l WHERE l.locktype = 'advisory' AND
                l.classid = ('jobify_job'::regclass::oid::int4 # %s)::oid AND l.objsubid = 2 AND l.granted
                AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) AND l.pid
                <> pg_backend_pid()) FROM (SELECT 1) one LEFT JOIN jobify_queue q ON q.name = %s""",
            """
                SELECT (SELECT count(*) FROM jobify_job WHERE queue = %(queue)s AND status = 'waiting'),
                (SELECT count(*) FROM jobify_job WHERE queue = %(queue)s AND status = 'delayed' AND
                eligible_at <= %(now)s), (SELECT count(*) FROM jobify_job WHERE queue = %(queue)s AND status
                = 'delayed')""",
            """
                INSERT INTO jobify_job (id, queue, task, arguments, priority, status, sequence, order_key,
                pushed_at, eligible_at, flags, extra, attempt, crashes, pool, cancel_requested) VALUES (%s,
                %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, 0, 0, '', FALSE) ON CONFLICT (id) DO NOTHING
                RETURNING id""",
        ],
        "begin": [
            """
                BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL statement_timeout = '15s'; SET LOCAL
                idle_in_transaction_session_timeout = '15s'""",
        ],
        "look": [
            """
                SELECT w.queue, version, workers, maxsize, "order", paused, reordering, CASE WHEN w.skipped
                = 1 THEN '' ELSE (SELECT CASE j.crashes WHEN 0 THEN '' ELSE j.id END FROM jobify_job j WHERE
                j.queue = w.queue AND j.status = 'waiting' ORDER BY j.order_key, j.sequence LIMIT 1) END,
                (SELECT min(eligible_at) FROM jobify_job j WHERE j.queue = w.queue AND j.status = 'delayed')
                FROM (SELECT %s AS queue, 0 AS skipped) w LEFT JOIN jobify_queue q ON q.name = w.queue""",
        ],
        "start": [
            """
                WITH next AS MATERIALIZED ( SELECT id FROM jobify_job WHERE queue = %s AND status =
                'waiting' AND crashes = 0 ORDER BY order_key, sequence LIMIT %s FOR UPDATE SKIP LOCKED)
                UPDATE jobify_job j SET status = 'running', attempt = attempt + 1, pool = %s, started_at =
                %s, lease_until = %s FROM next WHERE j.id = next.id RETURNING order_key, sequence, j.id,
                attempt, queue, task, arguments, priority, pushed_at, eligible_at, started_at, crashes,
                flags, extra""",
        ],
        "end": [
            """
                WITH held AS MATERIALIZED ( SELECT v.* FROM ( SELECT * FROM unnest(%s::text[],
                %s::integer[], %s::text[], %s::text[], %s::text[]) v (id, attempt, status, result, error)
                ORDER BY id) v CROSS JOIN LATERAL (SELECT FROM jobify_job j WHERE j.id = v.id AND j.attempt
                = v.attempt AND j.status || '' = 'running' FOR NO KEY UPDATE) j), ended AS ( UPDATE
                jobify_job j SET status = held.status, result = held.result, error = held.error, ended_at =
                %s::double precision, lease_until = NULL FROM held WHERE j.id = held.id RETURNING j.id,
                j.attempt) SELECT id, attempt FROM ended""",
        ],
        "renew": [
            """
                WITH held AS MATERIALIZED ( SELECT v.id FROM (SELECT * FROM unnest(%s::text[],
                %s::integer[]) v (id, attempt) ORDER BY id) v CROSS JOIN LATERAL ( SELECT FROM jobify_job j
                WHERE j.pool = %s::text AND j.id = v.id AND j.attempt = v.attempt AND j.status || '' =
                'running' FOR NO KEY UPDATE) j) UPDATE jobify_job j SET lease_until = %s::double precision
                FROM held WHERE j.id = held.id RETURNING j.id, cancel_requested""",
        ],
        "claim at once": [f"{AT_ONCE} jobify_claim(%s, %s, %s, %s, %s)"],
        "end and claim at once": [f"{AT_ONCE} jobify_turn(%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"],
        "end at once": [f"{AT_ONCE} jobify_end(%s, %s, %s, %s, %s, %s)"],
        "renew at once": [f"{AT_ONCE} jobify_renew(%s, %s, %s, %s)"],
        "sync": [
            """
                SELECT NULL AS id, name, version, workers, maxsize, "order", paused, reordering FROM
                jobify_queue WHERE name IN (%s) UNION ALL SELECT id, NULL, version, workers, maxsize,
                "order", paused, reordering FROM jobify_job LEFT JOIN jobify_queue ON 1 = 0 WHERE status =
                'running' AND pool = %s AND cancel_requested""",
        ],
        "limit": [
            "SELECT pg_advisory_xact_lock('jobify_job'::regclass::oid::int4 # %s, 0)",
            """
                SELECT count(*) FROM jobify_job WHERE queue = %s AND status = 'running' AND lease_until >=
                %s""",
        ],
        "lock": [
            """
                SELECT id, queue, task, arguments, priority, status, sequence, attempt, crashes, pushed_at,
                eligible_at, started_at, ended_at, lease_until, pool, cancel_requested, result, error,
                history, flags, extra FROM jobify_job WHERE id IN (%s) ORDER BY id FOR UPDATE""",
        ],
    },
    "mysql": {
        "begin a push": [
            "SET TRANSACTION ISOLATION LEVEL READ COMMITTED",
            "START TRANSACTION",
        ],
        "push": [
            """
                SET STATEMENT innodb_lock_wait_timeout = 10 FOR SELECT maxsize, `order`, sequence FROM
                jobify_queue WHERE name = %s
                AND (SELECT id FROM jobify_job WHERE FALSE FOR UPDATE) IS NULL FOR UPDATE""",
            """
                SELECT (SELECT count(*) FROM jobify_job WHERE queue = %(queue)s AND status = 'waiting'),
                (SELECT count(*) FROM jobify_job WHERE queue = %(queue)s AND status = 'delayed' AND
                eligible_at <= %(now)s)""",
            "SELECT id FROM jobify_job WHERE id IN (%s)",
            """
                INSERT INTO jobify_job (id, queue, task, arguments, priority, status, sequence, order_key,
                pushed_at, eligible_at, flags, extra, attempt, crashes, pool, cancel_requested) VALUES (%s,
                %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, 0, 0, '', FALSE)""",
            "UPDATE jobify_queue SET sequence = %s WHERE name = %s",
        ],
        "begin": [
            "SET TRANSACTION ISOLATION LEVEL READ COMMITTED",
            "START TRANSACTION",
        ],
        "look": [
            """
                SELECT w.queue, version, workers, maxsize, `order`, paused, reordering, CASE WHEN w.skipped
                = 1 THEN '' ELSE (SELECT CASE j.crashes WHEN 0 THEN '' ELSE j.id END FROM jobify_job j WHERE
                j.queue = w.queue AND j.status = 'waiting' ORDER BY j.order_key, j.sequence LIMIT 1) END,
                (SELECT min(eligible_at) FROM jobify_job j WHERE j.queue = w.queue AND j.status = 'delayed')
                FROM (SELECT %s AS queue, 0 AS skipped) w LEFT JOIN jobify_queue q ON q.name = w.queue""",
        ],
        "start": [
            """
                SELECT id, attempt + 1, queue, task, arguments, priority, pushed_at, eligible_at, 0e0,
                crashes, flags, extra FROM jobify_job WHERE queue = %s AND status = 'waiting' AND crashes =
                0 ORDER BY order_key, sequence LIMIT %s FOR UPDATE SKIP LOCKED""",
            """
                UPDATE jobify_job SET status = 'running', attempt = attempt + 1, pool = %s, started_at = %s,
                lease_until = %s WHERE id IN (%s)""",
        ],
        "end": [
            """
                UPDATE jobify_job SET status = %s, result = %s, error = %s, ended_at = %s, lease_until =
                NULL WHERE id = %s AND attempt = %s AND status = 'running'""",
        ],
        "renew": [
            """
                SELECT id, attempt, cancel_requested FROM jobify_job WHERE id IN (%s) AND pool = %s AND
                status = 'running' ORDER BY id FOR UPDATE""",
            "UPDATE jobify_job SET lease_until = %s WHERE id IN (%s)",
        ],
        "sync": [
            """
                SELECT NULL AS id, name, version, workers, maxsize, `order`, paused, reordering FROM
                jobify_queue WHERE name IN (%s) UNION ALL SELECT id, NULL, version, workers, maxsize,
                `order`, paused, reordering FROM jobify_job LEFT JOIN jobify_queue ON 1 = 0 WHERE status =
                'running' AND pool = %s AND cancel_requested""",
        ],
        "limit": [
            """
                SET STATEMENT innodb_lock_wait_timeout = 10 FOR SELECT maxsize, `order`, sequence FROM
                jobify_queue WHERE name = %s
                AND (SELECT id FROM jobify_job WHERE FALSE FOR UPDATE) IS NULL FOR UPDATE""",
            """
                SELECT count(*) FROM jobify_job WHERE queue = %s AND status = 'running' AND lease_until >=
                %s""",
        ],
        "lock": [
            """
                SELECT id, queue, task, arguments, priority, status, sequence, attempt, crashes, pushed_at,
                eligible_at, started_at, ended_at, lease_until, pool, cancel_requested, result, error,
                history, flags, extra FROM jobify_job WHERE id IN (%s) ORDER BY id FOR UPDATE WAIT 10""",
        ],
    },
}


@pytest.fixture
def store(jobify: Any) -> Store:
    """A store that has been used: the queue's row is there, a server's clock is known, and so are the
    statements that it prepares."""
    if not getattr(connection, "mysql_is_mariadb", True):
        pytest.skip("MariaDB's are pinned; MySQL spells its waits for locks otherwise")
    store = DatabaseStore()
    use(store)
    return store


QUEUE: QueueSettings = a_queue()


def use(store: Store) -> None:
    """Let a store do once what it does all the time."""
    push(store, 2)
    (first,) = claim(store)
    store.renew(POOL, {first.id: first.attempt}, 60.0)
    (second,) = store.claim(Demand(POOL, {"default": Lane(1, 60.0)}), [succeeded(first)]).claims
    store.settle([succeeded(second)])


def push(store: Store, jobs: int = 1, **values: Any) -> None:
    specs = [JobSpec(new_id(), "a.task", "[[],{}]", **values) for _ in range(jobs)]
    assert store.add(QUEUE, specs).taken == jobs


def plain(statement: str) -> str:
    """A statement on one line; the name of a prepared one without the number that is made from its text."""
    return re.sub(r"\b(jobify_[a-z]+)_[0-9a-f]{8}\(", r"\1(", " ".join(statement.split()))


@contextmanager
def said() -> Iterator[list[str]]:
    """What is said to the database in the block, without notifications, and transactions' ends."""
    seen: list[str] = []

    def note(execute: Callable[..., Any], sql: str, *rest: Any) -> Any:
        if "pg_notify" not in sql and sql not in ("COMMIT", "ROLLBACK"):
            seen.append(plain(sql))
        return execute(sql, *rest)

    with connection.execute_wrapper(note):
        yield seen


def expected(*names: str, at_once: str = "") -> list[str]:
    """The statements of these names; the one ``at_once`` where there is one that does it all."""
    texts = TEXTS[connection.vendor]
    chosen = [at_once] if at_once and TAKES_MESSAGES else names
    return [plain(text) for name in chosen for text in texts[name]]


def test_a_push(store: Store) -> None:
    with said() as seen:
        push(store)
    assert seen == expected("begin a push", "push")


def test_a_claim_without_limits(store: Store) -> None:
    push(store, 2)
    with said() as seen:
        assert len(claim(store)) == 1
    assert seen == expected("look", "begin", "look", "start", at_once="claim at once")


def test_a_settlement_with_the_next_claim(store: Store) -> None:
    push(store, 2)
    (held,) = claim(store)
    with said() as seen:
        claimed = store.claim(Demand(POOL, {"default": Lane(1, 60.0)}), [succeeded(held)])
        assert len(claimed.claims) == 1
    assert seen == expected("begin", "end", "look", "start", at_once="end and claim at once")


def test_a_settlement_alone(store: Store) -> None:
    push(store)
    held = claim(store)
    with said() as seen:
        assert list(store.settle([succeeded(one) for one in held])) == []
    assert seen == expected("begin", "end", at_once="end at once")


def test_a_renewal(store: Store) -> None:
    push(store)
    (held,) = claim(store)
    with said() as seen:
        assert list(store.renew(POOL, {held.id: held.attempt}, 60.0).lost) == []
    assert seen == expected("begin", "renew", at_once="renew at once")


def test_a_claim_with_nothing_to_take(store: Store) -> None:
    with said() as seen:
        assert claim(store) == []
    assert seen == expected("look", at_once="claim at once")


def test_what_a_pool_must_know_of_what_others_did(store: Store) -> None:
    with said() as seen:
        store.sync("a-pool", ["default"])
    assert seen == expected("sync")


def test_a_limit_costs_its_own_statements_and_no_others(store: Store) -> None:
    push(store, 2)
    claim(store, max_running=1)  # whatever it counts by is there
    with said() as seen:
        assert len(claim(store, 2, max_running=2)) == 1
    assert seen == expected("look", "begin", "look", "limit", "start")


def test_a_flagged_job_costs_one_statement_more_when_it_ends(store: Store) -> None:
    push(store, flags=1)
    held = claim(store)
    assert [one.flags for one in held] == [1]
    with said() as seen:
        assert list(store.settle([succeeded(one) for one in held])) == []
    assert seen == expected("begin", "lock", "end")
