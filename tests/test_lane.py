"""What a push, a claim, a settlement and a renewal say to a database: these statements and no others.

A capability that a queue or a job does not ask for costs neither a statement more nor a longer one. Whoever
means to change one of these texts changes it here too, with a measurement.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import connection, transaction

from jobify_django.conf import QueueSettings
from jobify_django.job import JobSpec, new_id
from jobify_django.outcome import succeeded
from jobify_django.stores.base import Store
from jobify_django.stores.database import DatabaseStore
from jobify_django.stores.database.listener import NOTIFY, NOTIFY_AT_COMMIT
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
                SELECT maxsize, "order", sequence, waiting, (SELECT min(eligible_at) FROM jobify_job WHERE
                queue = q.name AND status = 'delayed') FROM jobify_queue q WHERE name = %s""",
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
        "begin a push": [],
        "push": [
            """
                SET LOCAL statement_timeout = %s; SELECT pg_current_xact_id(),
                pg_advisory_xact_lock_shared('jobify_job'::regclass::oid::int4 # %s::integer,
                %s::integer); INSERT INTO jobify_job (id, queue, task, arguments, priority, status,
                sequence, order_key, pushed_at, eligible_at, flags, extra, attempt, crashes, pool,
                cancel_requested) SELECT new.id, new.queue, new.task, new.arguments, new.priority,
                new.status, new.n, CASE %s::text WHEN 'lifo' THEN -new.n WHEN 'fifo' THEN 0 ELSE 0 -
                new.priority END, new.pushed_at, new.eligible_at, new.flags, new.extra, 0, 0, '',
                FALSE FROM (SELECT %s::text AS id, %s::text AS queue, %s::text AS task, %s::text AS
                arguments, %s::integer AS priority, %s::text AS status, %s::double precision AS
                pushed_at, %s::double precision AS eligible_at, %s::integer AS flags, %s::text AS
                extra, nextval('jobify_job_number') AS n OFFSET 0) new WHERE new.n > %s::bigint AND
                new.n <= %s::bigint AND 'jobify_job'::regclass::oid::bigint = %s::bigint AND
                coalesce((SELECT concat(maxsize, ' ', "order") FROM jobify_queue WHERE name =
                %s::text), ' ') = %s::text AND current_setting('transaction_isolation') = 'read
                committed' ON CONFLICT (id) DO NOTHING RETURNING sequence""",
        ],
        "push many": [
            """
                SET LOCAL statement_timeout = %s; SELECT pg_current_xact_id(),
                pg_advisory_xact_lock_shared('jobify_job'::regclass::oid::int4 # %s::integer,
                %s::integer); INSERT INTO jobify_job (id, queue, task, arguments, priority, status,
                sequence, order_key, pushed_at, eligible_at, flags, extra, attempt, crashes, pool,
                cancel_requested) SELECT new.id, new.queue, new.task, new.arguments, new.priority,
                new.status, new.n, CASE %s::text WHEN 'lifo' THEN -new.n WHEN 'fifo' THEN 0 ELSE 0 -
                new.priority END, new.pushed_at, new.eligible_at, new.flags, new.extra, 0, 0, '',
                FALSE FROM (SELECT ARRAY(SELECT nextval('jobify_job_number') FROM generate_series(1,
                %s::integer)) AS numbers OFFSET 0) b CROSS JOIN LATERAL (SELECT v.*, %s::text AS
                queue, %s::double precision AS pushed_at FROM unnest(%s::text[], %s::text[],
                %s::text[], %s::integer[], %s::text[], %s::double precision[], %s::integer[],
                %s::text[], b.numbers) AS v (id, task, arguments, priority, status, eligible_at,
                flags, extra, n)) new WHERE b.numbers[1] > %s::bigint AND b.numbers[%s::integer] <=
                %s::bigint AND 'jobify_job'::regclass::oid::bigint = %s::bigint AND coalesce((SELECT
                concat(maxsize, ' ', "order") FROM jobify_queue WHERE name = %s::text), ' ') =
                %s::text AND current_setting('transaction_isolation') = 'read committed' ON CONFLICT
                (id) DO NOTHING RETURNING sequence""",
        ],
        "push and count": [
            """
                BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL statement_timeout = %s; SET LOCAL
                lock_timeout = %s; SET LOCAL plan_cache_mode = force_generic_plan; SET LOCAL
                enable_seqscan = off; SELECT set_config('jobify.numbers', c.numbers, true),
                set_config('jobify.others', c.others, true) FROM ( SELECT b.numbers::text AS
                numbers, ( SELECT coalesce(sum(l.objid::bigint & 4095), 0) FROM pg_locks l WHERE
                l.locktype = 'advisory' AND l.classid = ('jobify_job'::regclass::oid::int4 #
                %s::integer)::oid AND l.objsubid = 2 AND l.granted AND b.numbers[1] > 0 AND
                l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) AND
                l.pid IS DISTINCT FROM pg_backend_pid())::text AS others FROM ( SELECT ARRAY(SELECT
                nextval('jobify_job_number') FROM generate_series(1, %s::integer + length(a.made)))
                AS numbers FROM (SELECT
                pg_advisory_xact_lock_shared('jobify_job'::regclass::oid::int4 # %s::integer,
                %s::integer)::text || left(pg_current_xact_id()::text, 0) AS made OFFSET 0) a OFFSET
                0) b OFFSET 0) c; WITH c AS MATERIALIZED ( SELECT
                current_setting('jobify.numbers')::bigint[] AS numbers,
                current_setting('jobify.others')::bigint AS others, q.maxsize, q."order" AS line,
                (SELECT count(*) FROM jobify_job WHERE queue = %s::text AND status = 'waiting') AS
                waiting, (SELECT count(*) FROM jobify_job WHERE queue = %s::text AND status =
                'delayed' AND eligible_at <= %s::double precision) AS due, (SELECT count(*) FROM
                jobify_job WHERE queue = %s::text AND status = 'delayed') AS delayed FROM (SELECT 1)
                one LEFT JOIN jobify_queue q ON q.name = %s::text), b AS MATERIALIZED ( SELECT c.*,
                %s::integer = 0 OR waiting + due + others + %s::integer <= CASE WHEN maxsize BETWEEN
                1 AND 10000000 THEN maxsize ELSE %s::integer END AS fits FROM c), added AS ( INSERT
                INTO jobify_job (id, queue, task, arguments, priority, status, sequence, order_key,
                pushed_at, eligible_at, flags, extra, attempt, crashes, pool, cancel_requested)
                SELECT new.id, new.queue, new.task, new.arguments, new.priority, new.status, new.n,
                CASE CASE WHEN b.line IN ('priority', 'fifo', 'lifo') THEN b.line ELSE %s::text END
                WHEN 'lifo' THEN -new.n WHEN 'fifo' THEN 0 ELSE 0 - new.priority END, new.pushed_at,
                new.eligible_at, new.flags, new.extra, 0, 0, '', FALSE FROM b CROSS JOIN LATERAL
                (SELECT v.*, %s::text AS queue, %s::double precision AS pushed_at FROM
                unnest(%s::text[], %s::text[], %s::text[], %s::integer[], %s::text[], %s::double
                precision[], %s::integer[], %s::text[], b.numbers) AS v (id, task, arguments,
                priority, status, eligible_at, flags, extra, n)) new WHERE b.fits ON CONFLICT (id)
                DO NOTHING RETURNING status) SELECT 'jobify_job'::regclass::oid::bigint, b.numbers,
                b.waiting, b.due, b.delayed, b.others, b.maxsize, b.line, b.fits, (SELECT count(*)
                FROM added WHERE status = 'waiting'), NOT b.fits AND EXISTS (SELECT 1 FROM
                jobify_job WHERE id = ANY (%s::text[])) FROM b; COMMIT""",
        ],
        "push in a transaction": [
            """
                SELECT pg_current_xact_id(); WITH a AS MATERIALIZED ( SELECT CASE WHEN %s::integer =
                0 THEN TRUE WHEN coalesce(pg_sequence_last_value('jobify_job_number'), 0) +
                %s::integer <= %s::bigint AND 'jobify_job'::regclass::oid::bigint = %s::bigint AND
                coalesce((SELECT concat(maxsize, ' ', "order") FROM jobify_queue WHERE name =
                %s::text), ' ') = %s::text THEN
                pg_advisory_xact_lock_shared('jobify_job'::regclass::oid::int4 # %s::integer,
                %s::integer) IS NOT NULL END AS made), b AS MATERIALIZED ( SELECT ARRAY(SELECT
                nextval('jobify_job_number') FROM generate_series(1, %s::integer +
                length(left(a.made::text, 0)))) AS numbers FROM a WHERE a.made), added AS ( INSERT
                INTO jobify_job (id, queue, task, arguments, priority, status, sequence, order_key,
                pushed_at, eligible_at, flags, extra, attempt, crashes, pool, cancel_requested)
                SELECT new.id, new.queue, new.task, new.arguments, new.priority, new.status, new.n,
                CASE %s::text WHEN 'lifo' THEN -new.n WHEN 'fifo' THEN 0 ELSE 0 - new.priority END,
                new.pushed_at, new.eligible_at, new.flags, new.extra, 0, 0, '', FALSE FROM b CROSS
                JOIN LATERAL (SELECT v.*, %s::text AS queue, %s::double precision AS pushed_at FROM
                unnest(%s::text[], %s::text[], %s::text[], %s::integer[], %s::text[], %s::double
                precision[], %s::integer[], %s::text[], b.numbers) AS v (id, task, arguments,
                priority, status, eligible_at, flags, extra, n)) new WHERE b.numbers[1] > %s::bigint
                AND b.numbers[%s::integer] <= %s::bigint AND 'jobify_job'::regclass::oid::bigint =
                %s::bigint AND coalesce((SELECT concat(maxsize, ' ', "order") FROM jobify_queue
                WHERE name = %s::text), ' ') = %s::text ON CONFLICT (id) DO NOTHING RETURNING id)
                SELECT b.numbers[1] > %s::bigint AND b.numbers[%s::integer] <= %s::bigint AND
                'jobify_job'::regclass::oid::bigint = %s::bigint AND coalesce((SELECT
                concat(maxsize, ' ', "order") FROM jobify_queue WHERE name = %s::text), ' ') =
                %s::text, b.numbers[%s::integer], (SELECT count(*) FROM added) FROM b""",
        ],
        "push by statements": [
            """
                SELECT 'jobify_job'::regclass::oid::bigint, ARRAY(SELECT
                nextval('jobify_job_number') FROM generate_series(1, %s + length(a.made))) FROM
                (SELECT pg_advisory_xact_lock_shared('jobify_job'::regclass::oid::int4 # %s,
                %s)::text || left(pg_current_xact_id()::text, 0) AS made OFFSET 0) a""",
            """
                SELECT 'jobify_job'::regclass::oid::bigint, q.maxsize, q."order",
                current_setting('transaction_isolation') <> 'read committed', ( SELECT
                coalesce(sum(l.objid::bigint & 4095), 0) FROM pg_locks l WHERE l.locktype =
                'advisory' AND l.classid = ('jobify_job'::regclass::oid::int4 # %s)::oid AND
                l.objsubid = 2 AND l.granted AND l.database = (SELECT oid FROM pg_database WHERE
                datname = current_database()) AND l.pid IS DISTINCT FROM pg_backend_pid()) FROM
                (SELECT 1) one LEFT JOIN jobify_queue q ON q.name = %s""",
            """
                INSERT INTO jobify_job (id, queue, task, arguments, priority, status, sequence,
                order_key, pushed_at, eligible_at, flags, extra, attempt, crashes, pool,
                cancel_requested) SELECT id, queue, task, arguments, priority, status, sequence,
                order_key, pushed_at, eligible_at, flags, extra, 0, 0, '', FALSE FROM
                unnest(%s::text[], %s::text[], %s::text[], %s::text[], %s::integer[], %s::text[],
                %s::bigint[], %s::bigint[], %s::double precision[], %s::double precision[],
                %s::integer[], %s::text[]) AS new (id, queue, task, arguments, priority, status,
                sequence, order_key, pushed_at, eligible_at, flags, extra) ON CONFLICT (id) DO
                NOTHING RETURNING id""",
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


BY_STATEMENTS = "push by statements"
IN_MESSAGES = connection.vendor != "postgresql" or (
    connection.Database.__name__ == "psycopg"
    and not connection.settings_dict["OPTIONS"].get("server_side_binding")
)
in_messages = pytest.mark.skipif(
    connection.vendor != "postgresql" or not IN_MESSAGES, reason="about PostgreSQL and psycopg 3"
)


@pytest.fixture
def store(jobify: Any, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store that has been used: the queue's row is there, a server's clock is known, and so are the
    statements that it prepares.

    No notification is due, or one could be in the message of a push.
    """
    monkeypatch.setattr("jobify_django.stores.database.listener.DEBOUNCE", math.inf)
    if not getattr(connection, "mysql_is_mariadb", True):
        pytest.skip("MariaDB's are pinned; MySQL spells its waits for locks otherwise")
    store = DatabaseStore()
    for _ in range(2):  # what is said for the second time is prepared
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
        if sql not in (NOTIFY, NOTIFY_AT_COMMIT, "COMMIT", "ROLLBACK"):
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
    if IN_MESSAGES:
        store = counted()
    with said() as seen:
        push(store)
    assert seen == (expected("begin a push", "push") if IN_MESSAGES else expected("begin", BY_STATEMENTS))


def counted() -> Store:
    """A store that has counted once, and prepared nothing."""
    store = DatabaseStore()
    push(store)
    return store


@in_messages
def test_many_at_once(store: Store) -> None:
    store = counted()
    with said() as seen:
        push(store, 2)
    assert seen == expected("push many")


@in_messages
def test_a_push_that_counts(store: Store) -> None:
    fresh = DatabaseStore()
    fresh.stats([QUEUE])  # its server's clock is known
    with said() as seen:
        push(fresh)
    assert seen == expected("push and count")


@in_messages
def test_a_push_in_a_transaction(store: Store) -> None:
    with transaction.atomic(), said() as seen:
        push(store)
    assert seen == expected("push in a transaction")


@in_messages
def test_what_is_said_again_is_prepared(store: Store) -> None:
    for _ in range(2):
        push(store)
    with said() as seen:
        push(store)
    (message,) = seen
    executed = (
        r"SET LOCAL statement_timeout = %s; EXECUTE jobify_[a-z]+\(%s, %s\); EXECUTE jobify_[a-z]+\([%s, ]+\)"
    )
    assert re.fullmatch(executed, message)


@pytest.mark.skipif(connection.vendor != "postgresql", reason="about PostgreSQL's drivers")
def test_a_push_by_a_driver_that_sends_one_statement_at_a_time(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(connection.settings_dict["OPTIONS"], "server_side_binding", True)
    with said() as seen:
        push(store)
    assert seen == expected("begin", BY_STATEMENTS)


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
