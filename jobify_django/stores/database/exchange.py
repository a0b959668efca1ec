"""What a pool exchanges with PostgreSQL turn by turn, each in one message: how jobs ended and which start, or
whose leases go on.

A turn takes nearly always the short way here: one statement ends jobs, looks at the queues and starts their
first jobs. All of its parts see one snapshot, so it starts nothing that it has ended. Where more than that is
to be done it does nothing at all, and the claim goes the long way (``claim``): when a job is due, when one in
quarantine is first in its queue, and for what asks for more than ends and starts.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from django.db.backends.utils import CursorWrapper

from jobify_django.job import Claim
from jobify_django.outcome import Outcome
from jobify_django.stores.database.claim import Claiming, Peek, claimed_of
from jobify_django.stores.database.columns import STATE, STATE_NAMES, to_claim, to_state
from jobify_django.stores.database.connection import CHUNK, Connection, Held, Row, array, chunks, lock_wait
from jobify_django.stores.database.message import BY_INDEX, OneMessage, Statement
from jobify_django.stores.database.reading import text_of, timestamp_or_none
from jobify_django.stores.database.renew import Renewing
from jobify_django.stores.database.server import STATEMENT_TIMEOUT
from jobify_django.stores.database.settle import End, Settled, Settling
from jobify_django.stores.database.watermark import Watermarks
from jobify_django.stores.value import Claimed, Demand

MOST = CHUNK
"""Jobs that one statement starts or ends."""

BEGIN = (
    "SET TRANSACTION ISOLATION LEVEL READ COMMITTED; "
    f"SET LOCAL statement_timeout = '{STATEMENT_TIMEOUT}s'; "
    f"{BY_INDEX}SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off; "
)
"""READ COMMITTED whatever the project uses, as in all transactions of our own. To plan a turn takes 0.8 ms,
to run one of ten jobs 0.5, so it is planned once.
"""

# Spelt so that PostgreSQL finds by its id what is looked for by its id. When its statistics have seen no
# running job it takes the index of running jobs for empty; but a held snapshot fills that with dead entries.
# Jobs of one pool are renewed by one thread and ended by another. Both lock them one by one, in the order of
# their ids, so that neither waits for what the other waits for.
HELD = "j.id = v.id AND j.attempt = v.attempt AND j.status || '' = 'running' FOR NO KEY UPDATE"

RENEW = Statement(
    "renew",
    f"""
    WITH held AS MATERIALIZED (
        SELECT v.id FROM (SELECT * FROM unnest($1, $2) v (id, attempt) ORDER BY id) v CROSS JOIN LATERAL (
            SELECT FROM jobify_job j WHERE j.pool = $3 AND {HELD}) j)
    UPDATE jobify_job j SET lease_until = $4
    FROM held WHERE j.id = held.id
    RETURNING j.id, cancel_requested""",
    ("text[]", "integer[]", "text", "double precision"),
)
ENDS = ("text[]", "integer[]", "text[]", "text[]", "text[]")
END_ALL = f"""
    held AS MATERIALIZED (
        SELECT v.* FROM (
            SELECT * FROM unnest(%s) v (id, attempt, status, result, error) %s ORDER BY id) v
        CROSS JOIN LATERAL (SELECT FROM jobify_job j WHERE {HELD}) j),
    ended AS (
        UPDATE jobify_job j
        SET status = held.status, result = held.result, error = held.error, ended_at = %s, lease_until = NULL
        FROM held WHERE j.id = held.id
        RETURNING j.id, j.attempt)"""
END = Statement(
    "end",
    f"WITH {END_ALL % ('$1, $2, $3, $4, $5', '', '$6')} SELECT id, attempt FROM ended",
    (*ENDS, "double precision"),
)

# Without the columns whose values are known: no job in quarantine is started, and all at one time.
STARTED = (
    "order_key",
    "sequence",
    *(name for name in Claim._fields if name not in ("started_at", "crashes")),
)
LOOKED = ("queue", *STATE_NAMES, "head", "due")
# Whether to go the short way is seen first. "head" is as in PEEK.
LOOK = f"""
    look AS MATERIALIZED (
        SELECT w.queue, w.want, {STATE},
               (SELECT CASE j.crashes WHEN 0 THEN '' ELSE j.id END FROM jobify_job j
                WHERE j.queue = w.queue AND j.status = 'waiting'
                ORDER BY j.order_key, j.sequence LIMIT 1) AS head,
               (SELECT min(eligible_at) FROM jobify_job j
                WHERE j.queue = w.queue AND j.status = 'delayed') AS due
        FROM unnest($1, $2) w (queue, want) LEFT JOIN jobify_queue q ON q.name = w.queue),
    verdict AS MATERIALIZED (
        SELECT NOT EXISTS (
            SELECT FROM look WHERE paused IS NOT TRUE AND (head <> '' OR due <= $4)) AS short)"""
# Before anything starts, for whoever waits for a lock must hold none on jobs that wait.
ENDS_FIRST = f"""
    {END_ALL % ("$6, $7, $8, $9, $10", "WHERE (SELECT short FROM verdict)", "$4")},
    done AS MATERIALIZED (SELECT count(*) AS jobs, clock_timestamp() AS at FROM ended)"""
NO_ENDS = "done AS MATERIALIZED (SELECT 0 AS jobs, clock_timestamp() AS at FROM verdict)"
# What is known of a limit only when the statement runs is taken by the planner for a tenth of all there are,
# and in a deep queue for so much work that compiling it pays (JIT); so there is a fixed one below it. No more
# is locked than is asked for, for rows are locked one by one. Jobs are started by their places in the table:
# joined by their ids, the planner would read the whole table for them. A job that moves meanwhile (it is
# being re-ordered, say) is passed over as one that is locked.
START = f"""
    next AS MATERIALIZED (
        SELECT n.place FROM look CROSS JOIN LATERAL (
            SELECT place FROM (
                SELECT j.ctid AS place FROM jobify_job j
                WHERE j.queue = look.queue AND j.status = 'waiting' AND j.crashes = 0
                ORDER BY j.order_key, j.sequence LIMIT {MOST} FOR UPDATE SKIP LOCKED) line
            LIMIT look.want) n
        WHERE look.paused IS NOT TRUE AND (SELECT short AND jobs >= 0 FROM verdict, done)),
    started AS (
        UPDATE jobify_job j
        SET status = 'running', attempt = attempt + 1, pool = $5, started_at = $4,
            lease_until = ($3)[array_position($1, queue::text)]
        WHERE ctid = ANY (ARRAY(SELECT place FROM next))
        RETURNING {", ".join(STARTED)})
    SELECT {", ".join(STARTED)}, {", ".join(["NULL"] * len(LOOKED))},
           NULL AS short, NULL AS ended, NULL AS seconds FROM started
    UNION ALL
    SELECT {", ".join(["NULL"] * len(STARTED))}, queue, {STATE}, head, due, short, %s,
           extract(epoch FROM clock_timestamp() - at)::double precision
    FROM look, verdict, done"""
# Only where some did not hold their jobs.
ENDED = "CASE WHEN jobs < cardinality($6) THEN ARRAY(SELECT id || ' ' || attempt FROM ended) END"
DEMAND = ("text[]", "integer[]", "double precision[]", "double precision", "text")
CLAIM = Statement("claim", f"WITH {LOOK}, {NO_ENDS}, {START % 'NULL::text[]'}", DEMAND)
TURN = Statement("turn", f"WITH {LOOK}, {ENDS_FIRST}, {START % ENDED}", (*DEMAND, *ENDS))
AFTER_STARTED, AFTER_LOOKED = len(STARTED), len(STARTED) + len(LOOKED)
KNOWN = STARTED.index("eligible_at") + 1
"""Where, in a claim, the values stand that ``STARTED`` leaves out."""


class Exchanging(Claiming, Renewing, Settling, OneMessage):
    """``claim``, ``settle`` and ``renew`` in one message each, where that is possible."""

    def _set_up(self) -> None:
        super()._set_up()
        self._watermarks = Watermarks(self.runtime)

    def _claim_at_once(self, demand: Demand, outcomes: Sequence[Outcome]) -> tuple[Claimed, Settled] | None:
        if not (self._is_short(demand) and _only_end(outcomes)):
            return None
        names = list(demand.lanes)
        wants = [max(0, lane.want) for lane in demand.lanes.values()]
        asked, ends = (array(names), array(wants)), _ends(outcomes)
        moments: list[float] = []

        def values() -> Row:
            now = self.clock()
            moments.append(now)
            until = array([now + lane.lease for lane in demand.lanes.values()])
            return (*asked, until, now, demand.pool, *ends)

        rows = self._exchange(TURN if outcomes else CLAIM, values)
        if rows is None:
            return None
        looks = [row[AFTER_STARTED:] for row in rows if row[AFTER_STARTED] is not None]
        *_, short, ended, seconds = looks[0]
        if not short:
            return None
        for name in names:
            self._watermarks.claimed(name, seconds)
        now = moments[-1]
        found = {
            queue: Peek(to_state(queue, *state), head, timestamp_or_none(due))
            for queue, *state, head, due in (look[: len(LOOKED)] for look in looks)
        }
        started = sorted(row[:AFTER_STARTED] for row in rows if row[AFTER_STARTED] is None)
        claims = [to_claim((*row[2:KNOWN], now, 0, *row[KNOWN:])) for row in started]
        settled = _settled(outcomes, None if ended is None else set(map(_attempt, ended)))
        peeks = [found[name] for name in names]
        claimed = claimed_of(peeks, now, claims, settled.refused)
        empty = not any(peek.claimable(demand, now) for peek in peeks)
        return claimed._replace(empty=empty), settled

    def _exchange(self, statement: Statement, values: Callable[[], Row]) -> list[Row] | None:
        """Run a statement in a transaction of its own, and return its rows; ``None``, having done nothing,
        where it cannot be sent so. ``values`` is called again for each try.

        Raises as ``_in_one_message`` does.
        """
        if self.in_transaction() or not self._sends_messages:
            return None

        def send(cursor: CursorWrapper, wait: float) -> list[Row]:
            return self._messages.send(cursor, [(statement, values())], begin=BEGIN)

        return self._in_one_message(send, self.runtime.monotonic() + lock_wait(None), may_repeat=False)

    def _is_short(self, demand: Demand) -> bool:
        """Whether nothing is asked for but the first jobs of each queue."""
        return (
            not demand.unknown_tasks
            and demand.quarantine != "skip"
            and len(demand.lanes) > 0
            and sum(max(0, lane.want) for lane in demand.lanes.values()) <= MOST
            and all(lane.max_running is None for lane in demand.lanes.values())
            and not any(map(self._skip_peek, demand.lanes))
        )

    def _skip_peek(self, queue: str) -> bool:
        return queue in self._watermarks

    def _settle_all(self, outcomes: Sequence[Outcome]) -> Settled:
        if _only_end(outcomes):
            rows = self._exchange(END, lambda: (*_ends(outcomes), self.clock()))
            if rows is not None:
                return _settled(outcomes, {(id, attempt) for id, attempt in rows})
        return super()._settle_all(outcomes)

    def _end(self, db: Connection, ends: Sequence[End]) -> set[tuple[str, int]]:
        return {
            (id, attempt)
            for part in chunks(ends)
            for id, attempt in db.execute(END.plain, END.in_order(_end_values(part))).fetchall()
        }

    def _renew_all(self, pool: str, held: Held, lease: float) -> dict[str, bool]:
        if len(held) <= MOST:
            attempts = _arrays(held)
            rows = self._exchange(RENEW, lambda: (*attempts, pool, self.clock() + lease))
            if rows is not None:
                return dict(rows)
        return super()._renew_all(pool, held, lease)

    def _renew(self, db: Connection, pool: str, held: Held, until: float) -> dict[str, bool]:
        found: list[Row] = []
        for part in chunks(held):
            found += db.execute(RENEW.plain, RENEW.in_order((*_arrays(part), pool, until))).fetchall()
        return dict(found)


def _only_end(outcomes: Sequence[Outcome]) -> bool:
    return len(outcomes) <= MOST and all(one.needs_no_row for one in outcomes)


def _ends(outcomes: Sequence[Outcome]) -> Row:
    """Return the first five values of ``ENDS``."""
    rows = [(one.id, one.attempt, one.status, one.result, text_of(one.error)) for one in outcomes]
    return _arrays(rows)


def _end_values(ends: Sequence[End]) -> Row:
    rows = [(id, attempt, status, result, error) for status, result, error, _, id, attempt in ends]
    return (*_arrays(rows), ends[0][3])


def _arrays(rows: Sequence[Row]) -> Row:
    return tuple([array(column) for column in zip(*rows, strict=True)])


def _settled(outcomes: Sequence[Outcome], ended: Collection[tuple[str, int]] | None) -> Settled:
    """Return what was stored of outcomes that end their jobs; ``None`` stands for all of them."""
    if ended is None or len(ended) == len(outcomes):
        return Settled([one.id for one in outcomes], refused=[])
    stored = [(one.id, one.attempt) in ended for one in outcomes]
    return Settled(
        [one.id for one, is_stored in zip(outcomes, stored, strict=True) if is_stored],
        refused=[one for one, is_stored in zip(outcomes, stored, strict=True) if not is_stored],
    )


def _attempt(ended: str) -> tuple[str, int]:
    id, _, number = ended.rpartition(" ")
    return id, int(number)
