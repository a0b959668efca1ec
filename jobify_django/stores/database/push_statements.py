"""What a push says to PostgreSQL in one message, and the values it gives: see ``ticketing``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jobify_django.conf import MAX_MAXSIZE
from jobify_django.job import JobSpec
from jobify_django.ordering import ORDERS
from jobify_django.stores.database.announcement import ANNOUNCED, BEGUN, CLASS, TABLE, TYPES
from jobify_django.stores.database.columns import INTO_JOB, JOB, NewJob
from jobify_django.stores.database.connection import array
from jobify_django.stores.database.message import BY_INDEX, Statement
from jobify_django.stores.database.ticket import LIVE

GIVEN = [name for name in NewJob._fields if name not in ("sequence", "order_key")]
"""The columns whose values a push gives, from ``$1`` on; the others have theirs from its number."""

FOR_ALL = ("queue", "pushed_at")
"""Those in which jobs that are pushed at once are alike."""


def _place(name: str, array: str = "") -> str:
    return f"${GIVEN.index(name) + 1}::{TYPES.get(name, 'text')}{array}"


def _inserted(order: str) -> str:
    computed = {
        "sequence": "new.n",
        "order_key": f"CASE {order} WHEN 'lifo' THEN -new.n WHEN 'fifo' THEN 0 ELSE 0 - new.priority END",
    }
    columns = ((name, column.new) for name, column in JOB.items() if column.new)
    return ", ".join(computed.get(name) or new.replace("?", f"new.{name}") for name, new in columns)


MANY = [name for name in GIVEN if name not in FOR_ALL]
# One job, and many with the numbers that ``b`` has taken for them.
ONE_NEW = "SELECT {}, nextval('jobify_job_number') AS n OFFSET 0".format(
    ", ".join(f"{_place(name)} AS {name}" for name in GIVEN)
)
NEW = "SELECT v.*, {} FROM unnest({}, b.numbers) AS v ({}, n)".format(
    ", ".join(f"{_place(name)} AS {name}" for name in FOR_ALL),
    ", ".join(_place(name, "[]") for name in MANY),
    ", ".join(MANY),
)
ORDER, FIRST, LIMIT = "$11::text", "$12::bigint", "$13::bigint"
# The book is this table's, and of the bound and the order that are in force.
OF_THIS_QUEUE = f"{TABLE}::bigint = $14::bigint AND {LIVE % _place('queue')} = $15::text"
JOBS = "$16::integer"
# A snapshot from before the transaction had its number would read the order too early.
EACH_ITS_SNAPSHOT = "current_setting('transaction_isolation') = 'read committed'"
ADMITTED = f"b.numbers[1] > {FIRST} AND b.numbers[{JOBS}] <= {LIMIT} AND {OF_THIS_QUEUE}"

# Before a number is taken, in a statement of its own, so that what follows has a later snapshot.
SHARED_LOCK = f"pg_advisory_xact_lock_shared({CLASS.replace('?', '$1::integer')}, $2::integer)"
ANNOUNCE = Statement("announce", f"SELECT pg_current_xact_id(), {SHARED_LOCK}")
ADD_ONE = Statement(
    "add",
    f"""
    INSERT {INTO_JOB} SELECT {_inserted(ORDER)} FROM ({ONE_NEW}) new
    WHERE new.n > {FIRST} AND new.n <= {LIMIT} AND {OF_THIS_QUEUE} AND {EACH_ITS_SNAPSHOT}
    ON CONFLICT (id) DO NOTHING RETURNING sequence""",
)
ADD_MANY = Statement(
    "addmany",
    f"""
    INSERT {INTO_JOB} SELECT {_inserted(ORDER)}
    FROM (SELECT ARRAY(SELECT nextval('jobify_job_number') FROM generate_series(1, {JOBS})) AS numbers
          OFFSET 0) b
    CROSS JOIN LATERAL ({NEW}) new WHERE {ADMITTED} AND {EACH_ITS_SNAPSHOT}
    ON CONFLICT (id) DO NOTHING RETURNING sequence""",
)

# In a caller's transaction: announced only where there seems to be room, for an announcement stands until
# that ends; and not at all where it has announced enough before.
LOCK_INSIDE = SHARED_LOCK.replace("$1:", "$17:").replace("$2:", "$18:")
ADD_INSIDE = Statement(
    "addinside",
    f"""
    WITH a AS MATERIALIZED (
        SELECT CASE WHEN $18::integer = 0 THEN TRUE
            WHEN coalesce(pg_sequence_last_value('jobify_job_number'), 0) + {JOBS} <= {LIMIT}
                AND {OF_THIS_QUEUE}
            THEN {LOCK_INSIDE} IS NOT NULL
            END AS made),
    b AS MATERIALIZED (
        SELECT ARRAY(SELECT nextval('jobify_job_number')
                     FROM generate_series(1, {JOBS} + length(left(a.made::text, 0)))) AS numbers
        FROM a WHERE a.made),
    added AS (
        INSERT {INTO_JOB} SELECT {_inserted(ORDER)} FROM b CROSS JOIN LATERAL ({NEW}) new WHERE {ADMITTED}
        ON CONFLICT (id) DO NOTHING RETURNING id)
    SELECT {ADMITTED}, b.numbers[{JOBS}], (SELECT count(*) FROM added) FROM b""",
)

# Without a book: what others have announced is added up once this push has announced and taken its numbers,
# and the jobs are counted in a later snapshot. The settings of the transaction hand it on.
DOOR = Statement("door", f"SELECT pg_advisory_xact_lock({CLASS.replace('?', '$1::integer')}, 0)")
ANNOUNCED_BY_NOW = ANNOUNCED.replace("?", "$1::integer").replace("granted", "granted AND b.numbers[1] > 0")
LOOK = Statement(
    "look",
    f"""
    SELECT set_config('jobify.numbers', c.numbers, true), set_config('jobify.others', c.others, true)
    FROM (
        SELECT b.numbers::text AS numbers, {ANNOUNCED_BY_NOW}::text AS others
        FROM (
            SELECT ARRAY(SELECT nextval('jobify_job_number')
                         FROM generate_series(1, $3::integer + length(a.made))) AS numbers
            FROM (SELECT {SHARED_LOCK}::text || {BEGUN} AS made OFFSET 0) a OFFSET 0) b OFFSET 0) c""",
)
_known_order = "CASE WHEN b.line IN ({}) THEN b.line ELSE {} END".format(
    ", ".join(f"'{order}'" for order in ORDERS), ORDER
)
ADD_COUNTED = Statement(
    "addcounted",
    f"""
    WITH c AS MATERIALIZED (
        SELECT current_setting('jobify.numbers')::bigint[] AS numbers,
               current_setting('jobify.others')::bigint AS others, q.maxsize, q."order" AS line,
               (SELECT count(*) FROM jobify_job WHERE queue = {_place("queue")} AND status = 'waiting')
                   AS waiting,
               (SELECT count(*) FROM jobify_job
                WHERE queue = {_place("queue")} AND status = 'delayed'
                  AND eligible_at <= {_place("pushed_at")})
                   AS due,
               (SELECT count(*) FROM jobify_job WHERE queue = {_place("queue")} AND status = 'delayed')
                   AS delayed
        FROM (SELECT 1) one LEFT JOIN jobify_queue q ON q.name = {_place("queue")}),
    b AS MATERIALIZED (
        SELECT c.*, $13::integer = 0 OR waiting + due + others + $13::integer <= CASE
            WHEN maxsize BETWEEN 1 AND {MAX_MAXSIZE} THEN maxsize ELSE $12::integer END AS fits FROM c),
    added AS (
        INSERT {INTO_JOB} SELECT {_inserted(_known_order)}
        FROM b CROSS JOIN LATERAL ({NEW}) new WHERE b.fits
        ON CONFLICT (id) DO NOTHING RETURNING status)
    SELECT {TABLE}::bigint, b.numbers, b.waiting, b.due, b.delayed, b.others, b.maxsize, b.line, b.fits,
           (SELECT count(*) FROM added WHERE status = 'waiting'),
           NOT b.fits AND EXISTS (SELECT 1 FROM jobify_job WHERE id = ANY ({_place("id", "[]")}))
    FROM b""",
)

BEGIN = "BEGIN ISOLATION LEVEL READ COMMITTED; "
TIMEOUT = "SET LOCAL statement_timeout = %s; "
# Left to itself the server plans the count anew for each push once the table is large and analyzed, for it
# takes a plan for one queue to be cheaper by more than that is: 200 microseconds.
COUNTED_BY = "SET LOCAL lock_timeout = %s; " + BY_INDEX
COMMIT = "; COMMIT"


def values_of(
    queue: str, specs: Sequence[JobSpec], now: float, *, many: bool = False
) -> tuple[Sequence[Any], int]:
    """Return the values of ``GIVEN``, as arrays for many jobs, and how many of the jobs wait at once."""
    if len(specs) == 1 and not many:
        (s,) = specs
        at = s.eligible_at(now)
        status = "delayed" if at > now else "waiting"
        one = (s.id, queue, s.task, s.arguments, s.priority, status, now, at, s.flags, s.extra)
        return one, int(status == "waiting")
    due = [spec.eligible_at(now) for spec in specs]
    statuses = ["delayed" if at > now else "waiting" for at in due]
    columns = {
        "queue": queue,
        "status": array(statuses),
        "pushed_at": now,
        "eligible_at": array(due),
    }
    values = [
        columns[name] if name in columns else array(getattr(spec, name) for spec in specs) for name in GIVEN
    ]
    return values, statuses.count("waiting")
