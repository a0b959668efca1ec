"""Claiming: the first jobs of each line are started, as many as the pool asks for."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

from jobify_django.job import Claim
from jobify_django.outcome import Outcome
from jobify_django.stores.database.columns import STATE, to_state
from jobify_django.stores.database.connection import Connection, chunks, placeholders
from jobify_django.stores.database.reading import timestamp_or_none
from jobify_django.stores.database.settle import Settled, Settling
from jobify_django.stores.value import Claimed, Demand, QueueState

QUEUES = 100
"""Queues that one statement looks at; a compound SELECT of SQLite has 500 terms at most."""

# Statuses stand in the text of statements, not as parameters: only then does SQLite use a partial index.
PEEK = f"""
    SELECT w.queue, {STATE},
           CASE WHEN w.skipped = 1 THEN '' ELSE
               (SELECT CASE j.crashes WHEN 0 THEN '' ELSE j.id END FROM jobify_job j
                WHERE j.queue = w.queue AND j.status = 'waiting' %s
                ORDER BY j.order_key, j.sequence LIMIT 1) END,
           (SELECT min(eligible_at) FROM jobify_job j WHERE j.queue = w.queue AND j.status = 'delayed')
    FROM (%s) w LEFT JOIN jobify_queue q ON q.name = w.queue"""
DUE = "UPDATE jobify_job SET status = 'waiting' WHERE queue = ? AND status = 'delayed' AND eligible_at <= ?"
RUNNING_NOW = "SELECT count(*) FROM jobify_job WHERE queue = ? AND status = 'running' AND lease_until >= ?"


class Selection(NamedTuple):
    """Which jobs of a queue are started: the first ``want`` that are not in quarantine and whose tasks are
    not ``unknown_tasks``, or ``alone`` the one that is."""

    queue: str
    want: int
    unknown_tasks: Sequence[str] = ()
    alone: str = ""

    @property
    def condition(self) -> str:
        """The condition that these jobs of the queue meet."""
        but = f"AND task NOT IN {placeholders(self.unknown_tasks)}" if self.unknown_tasks else ""
        return f"queue = ? AND status = 'waiting' AND {'id = ?' if self.alone else 'crashes = 0'} {but}"

    @property
    def values(self) -> Sequence[str]:
        """The values of the condition."""
        return [self.queue, *([self.alone] if self.alone else []), *self.unknown_tasks]


class Peek(NamedTuple):
    """A queue as a claim finds it: live values, the job that is first in it (its id if it is in quarantine,
    otherwise an empty text; ``None`` without one), and when the next delayed one is due."""

    state: QueueState
    head: str | None
    due: float | None

    def claimable(self, demand: Demand, now: float) -> bool:
        """Whether anything can be claimed of it."""
        if self.state.paused or demand.lanes[self.state.queue].want <= 0:
            return False
        return self.head is not None or (self.due is not None and self.due <= now)


class Claiming(Settling):
    """The verb ``claim``."""

    def claim(self, demand: Demand, outcomes: Sequence[Outcome] = ()) -> Claimed:
        expected = bool(outcomes) or demand.expected
        found = self._claim_at_once(demand, outcomes) if expected else None
        if found is None and not outcomes:
            now = self.clock()
            peeks = self._read(partial(self._peek, demand))
            if not any(peek.claimable(demand, now) for peek in peeks):
                return claimed_of(peeks, now)._replace(empty=True)
            if not expected:
                found = self._claim_at_once(demand, outcomes)
        claimed, settled = found or self._write(partial(self._claim, demand, outcomes))
        self._notify_settled(settled)
        self._notify_room(claim.queue for claim in claimed.claims)
        limited = {name for name, lane in demand.lanes.items() if lane.max_running is not None}
        if limited:  # other pools may go on below the limit
            self._notify_work(one.queue for one in outcomes if one.queue in limited)
        return claimed

    def _claim(self, demand: Demand, outcomes: Sequence[Outcome], db: Connection) -> tuple[Claimed, Settled]:
        now = self.clock()
        settled = self._settle(outcomes, db)
        peeks = self._peek(demand, db)
        if self._let_due_wait([peek for peek in peeks if peek.claimable(demand, now)], now, db):
            peeks = self._peek(demand, db)
        room = self._may_start(peeks, demand, now, db)
        unknown_tasks = sorted(demand.unknown_tasks)
        heads = {peek.state.queue: peek.head for peek in peeks}
        heads |= {
            queue: self._first_in_quarantine(db, queue, unknown_tasks)
            for queue in room
            if self._skip_peek(queue)
        }
        alone = [Selection(queue, 1, unknown_tasks, head) for queue in room if (head := heads[queue])]
        if alone and demand.quarantine == "defer":
            return claimed_of(peeks, now, refused=settled.refused, deferred=True), settled

        def start(selection: Selection) -> list[Claim]:
            return self._start(db, demand.pool, selection, now, now + demand.lanes[selection.queue].lease)

        claims = start(alone[0]) if alone and demand.quarantine == "alone" else []
        # Another pool may have started it meanwhile.
        claims = claims or [
            claim for queue, want in room.items() for claim in start(Selection(queue, want, unknown_tasks))
        ]
        return claimed_of(peeks, now, claims, settled.refused), settled

    def _peek(self, demand: Demand, db: Connection) -> list[Peek]:
        unknown_tasks = sorted(demand.unknown_tasks)
        but = f"AND j.task NOT IN {placeholders(unknown_tasks)}" if unknown_tasks else ""
        found: dict[str, Peek] = {}
        for part in chunks(list(demand.lanes), QUEUES):
            lines = " UNION ALL ".join(
                f"SELECT ? AS queue, {int(self._skip_peek(name))} AS skipped" for name in part
            )
            for queue, *state, head, due in db.execute(
                PEEK % (but, lines), (*unknown_tasks, *part)
            ).fetchall():
                found[queue] = Peek(to_state(queue, *state), head, timestamp_or_none(due))
        return [found[name] for name in demand.lanes]

    def _let_due_wait(self, peeks: Sequence[Peek], now: float, db: Connection) -> bool:
        """Let the jobs that are due wait; return whether there were any."""
        due = [peek.state.queue for peek in peeks if peek.due is not None and peek.due <= now]
        for queue in due:
            self._promote(db, queue, now)
        return bool(due)

    def _may_start(self, peeks: Sequence[Peek], demand: Demand, now: float, db: Connection) -> dict[str, int]:
        """Return how many jobs may start, for each queue of which any may."""
        room: dict[str, int] = {}
        for peek in peeks:
            if peek.claimable(demand, now):
                queue = peek.state.queue
                lane = demand.lanes[queue]
                room[queue] = lane.want
                if lane.max_running is not None:
                    self._lock_claims(db, queue)
                    (running,) = db.execute(RUNNING_NOW, (queue, now)).fetchone()
                    room[queue] = min(lane.want, lane.max_running - running)
        return {queue: want for queue, want in room.items() if want > 0}

    # What databases do in their own ways

    def _claim_at_once(self, demand: Demand, outcomes: Sequence[Outcome]) -> tuple[Claimed, Settled] | None:
        """Do what ``claim`` is to do in one step; ``None``, having done nothing, where it takes more."""
        return None

    def _start(
        self, db: Connection, pool: str, selection: Selection, now: float, until: float
    ) -> list[Claim]:
        """Start jobs, and return them in claim order."""
        raise NotImplementedError

    def _promote(self, db: Connection, queue: str, now: float) -> None:
        self._note_waiting(db, queue, db.execute(DUE, (queue, now)).rowcount)

    def _skip_peek(self, queue: str) -> bool:
        """Return whether to claim without a peek first, because finding the first waiting job takes long."""
        return False

    def _first_in_quarantine(self, db: Connection, queue: str, unknown_tasks: Sequence[str]) -> str:
        """Return the id of the job that is first in such a queue, if it is in quarantine."""
        return ""

    def _lock_claims(self, db: Connection, queue: str) -> None:
        """Wait until no other claim of a queue whose running jobs are counted is under way. There is nothing
        to do where only one transaction writes at a time."""


def claimed_of(
    peeks: Sequence[Peek],
    now: float,
    claims: Sequence[Claim] = (),
    refused: Sequence[Outcome] = (),
    *,
    deferred: bool = False,
) -> Claimed:
    """Return what a claim gave, of queues as it found them."""
    states = {peek.state.queue: peek.state for peek in peeks}
    # A job that is due and was not taken waits for something else than time: its queue is paused, say.
    dues = [peek.due - now for peek in peeks if peek.due is not None and peek.due > now]
    return Claimed(claims, refused, states, min(dues, default=None), deferred)
