"""The database store: the contract in SQL."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from typing import Any, Literal, NamedTuple

from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from django.utils.module_loading import import_string

from jobify_django.conf import MAX_MAXSIZE, QueueSettings, get_settings
from jobify_django.exceptions import StoreError
from jobify_django.job import Claim, Interruption, JobError, JobRecord, JobSpec, JobStatus
from jobify_django.log import get_log, quoted
from jobify_django.ordering import Order, order_key
from jobify_django.outcome import CRASH_LIMIT, LEASE_RAN_OUT, RAN_OUT_AWAY, Outcome, crash_error
from jobify_django.stores.base import Store
from jobify_django.stores.database.database import (
    Connection,
    Crowded,
    Database,
    Row,
    Which,
    chunks,
    marks,
)
from jobify_django.stores.database.rows import (
    RECORD,
    STATE,
    error_text,
    interruption_text,
    moment,
    order_from,
    queues_text,
    to_claim,
    to_pool,
    to_record,
    to_state,
    within,
)
from jobify_django.stores.hints import Probe
from jobify_django.stores.value import (
    POOL_ALIVE,
    Added,
    Claimed,
    PoolRecord,
    QueueState,
    QueueStats,
    Renewed,
    Rescued,
    Trouble,
)

PART = 1_000
"""Jobs that one transaction of our own cancels or retries: each has a time limit, however many there are."""

logger = get_log("jobify.store")

QUEUES = 100
"""Queues that one statement looks at; a compound SELECT of SQLite has 500 terms at most."""

REORDER_PART = 5_000
"""Jobs that are re-ordered in one transaction."""

FORGET_POOLS = 600.0
"""Seconds after which a pool that died without a word is deleted."""

# Statuses stand in the text of statements, not as parameters: only then does SQLite use a partial index.
LOOK = f"""
    SELECT w.queue, {STATE},
           CASE WHEN w.blind = 1 THEN '' ELSE
               (SELECT CASE j.crashes WHEN 0 THEN '' ELSE j.id END FROM jobify_job j
                WHERE j.queue = w.queue AND j.status = 'waiting' %s
                ORDER BY j.order_key, j.sequence LIMIT 1) END,
           (SELECT min(eligible_at) FROM jobify_job j WHERE j.queue = w.queue AND j.status = 'delayed')
    FROM (%s) w LEFT JOIN jobify_queue q ON q.name = w.queue"""
OF = "FROM jobify_job j WHERE j.queue = w.queue AND j.status ="
STATS = f"""
    SELECT w.queue, (SELECT count(*) {OF} 'waiting'), (SELECT count(*) {OF} 'delayed'),
           (SELECT count(*) {OF} 'delayed' AND eligible_at <= ?), (SELECT count(*) {OF} 'running'),
           (SELECT min(eligible_at) {OF} 'waiting'), (SELECT min(eligible_at) {OF} 'delayed')
    FROM (%s) w"""
# Two SELECTs, each one look-up in the index: SQLite reads all running rows for both in one.
LEASES = """
    SELECT (SELECT min(lease_until) FROM jobify_job WHERE status = 'running'),
           (SELECT max(lease_until) FROM jobify_job WHERE status = 'running')"""
EXPIRED = "FROM jobify_job WHERE status = 'running' AND lease_until < ?"
AHEAD = "status = 'running' AND lease_until > ?"
# The rows are locked since they were read. A status here would let a planner go by its index instead of the
# ids, and wait for rows that others have locked. An attempt's number would leave out one that is no number,
# and one job whose crashes the column cannot count on would hold up all that come back with it.
COME_BACK = """
    UPDATE jobify_job SET status = ?, ended_at = ?, pool = ?, error = ?, history = %s, lease_until = NULL,
                          crashes = CASE WHEN crashes < 32767 THEN crashes + ? ELSE crashes END
    WHERE id IN """
DATABASES = {
    "sqlite": "jobify_django.stores.database.sqlite.SQLite",
    "postgresql": "jobify_django.stores.database.postgresql.PostgreSQL",
    "mysql": "jobify_django.stores.database.mysql.MySQL",
}
# Not "-priority": the least number that the column holds has no opposite there.
KEYS: Mapping[Order, str] = {"priority": "0 - priority", "lifo": "-sequence", "fifo": "0"}


class DatabaseStore(Store):
    """Jobs in the tables of ``jobify_django.models``, on the database ``JOBIFY["DATABASE"]``."""

    def __init__(
        self,
        alias: str = "database",
        clock: Callable[[], float] | None = None,
        *,
        database: str | None = None,
    ) -> None:
        self._db = open_database(database or get_settings().database)
        super().__init__(alias, clock or self._db.time)

    # A job's way

    def add(
        self,
        queue: QueueSettings,
        specs: Sequence[JobSpec],
        *,
        whole: bool = False,
        patience: float | None = None,
    ) -> Added:
        try:
            # Twice is once: the ids are the producer's.
            added = self._db.write(partial(self._add, queue, specs, whole), again=True, patience=patience)
        except Crowded as crowded:
            added = crowded.args[0]
        if added.taken:
            self._db.after_commit(partial(self._tell, "work", queue.name, specs))
        return added

    def _add(self, queue: QueueSettings, specs: Sequence[JobSpec], whole: bool, db: Connection) -> Added:
        now = self.clock()
        # Delayed jobs find room in a full queue too.
        least = 0 if any(spec.eligible_at(now) > now for spec in specs) else len(specs) if whole else 1
        room = self._db.room(db, queue, len(specs), now, least)
        maxsize = within(room.maxsize, MAX_MAXSIZE) or queue.maxsize
        order = order_from(room.order) or queue.order
        fitting = len(specs)
        if room.depth + room.reserved + fitting > maxsize:
            fitting = self._fitting(db, maxsize - room.depth - room.reserved, specs, now)
            if not fitting or (whole and fitting < len(specs)):
                if room.depth + len(specs) <= maxsize:
                    raise Crowded(Added(0, room.depth, maxsize, (), order, now))
                return Added(0, room.depth, maxsize, (), order, now)
        rows = [
            self._row(queue.name, order, spec, number, now)
            for spec, number in zip(specs[:fitting], room.numbers, strict=False)
        ]
        fresh = self._db.insert(db, queue.name, rows)
        waiting = sum(row[5] == "waiting" for row in rows if row[0] in fresh)
        return Added(fitting, room.depth + waiting, maxsize, (), order, now)

    @staticmethod
    def _row(queue: str, order: Order, spec: JobSpec, number: int, now: float) -> Row:
        at = spec.eligible_at(now)
        status = "delayed" if at > now else "waiting"
        key = order_key(order, spec.priority, number)
        return (spec.id, queue, spec.task, spec.arguments, spec.priority, status, number, key, now, at)

    def _fitting(self, db: Connection, room: int, specs: Sequence[JobSpec], now: float) -> int:
        known = {id for (id,) in _by_ids(db, "SELECT id FROM jobify_job WHERE id IN ", [s.id for s in specs])}
        for fitting, spec in enumerate(specs):
            if spec.eligible_at(now) > now or spec.id in known:
                continue
            if room <= 0:
                return fitting
            room -= 1
        return len(specs)

    def claim(
        self,
        pool: str,
        wants: Mapping[str, int],
        lease: Mapping[str, float],
        outcomes: Sequence[Outcome] = (),
        *,
        caps: Mapping[str, int] = {},
        unknown: Collection[str] = (),
        suspects: Suspects = "start",
    ) -> Claimed:
        if not outcomes:
            now = self.clock()
            looks = self._db.read(partial(self._look, wants, unknown))
            if not any(look.claimable(wants, now) for look in looks):
                return self._claimed(looks, now)
        work = partial(self._claim, pool, wants, lease, outcomes, caps, sorted(unknown), suspects)
        claimed = self._db.write(work)
        self._tell_ended([outcome for outcome in outcomes if outcome not in claimed.refused])
        self._tell_room(claim.queue for claim in claimed.claims)
        if caps:
            # Other pools may go on under the cap.
            self._tell_work(outcome.queue for outcome in outcomes if outcome.queue in caps)
        return claimed

    def _claim(
        self,
        pool: str,
        wants: Mapping[str, int],
        lease: Mapping[str, float],
        outcomes: Sequence[Outcome],
        caps: Mapping[str, int],
        unknown: Sequence[str],
        suspects: Suspects,
        db: Connection,
    ) -> Claimed:
        now = self.clock()
        refused = self._finish(outcomes, db)
        looks = self._look(wants, unknown, db)
        if self._promote([look for look in looks if look.claimable(wants, now)], now, db):
            looks = self._look(wants, unknown, db)
        room = self._open(looks, wants, caps, now, db)

        def start(which: Which) -> list[Claim]:
            rows = self._db.start(db, pool, which, now, now + lease[which.queue])
            return [to_claim(row) for row in rows]

        heads = {look.state.queue: look.head for look in looks}
        heads |= {queue: self._db.suspect(db, queue, unknown) for queue in room if self._db.blind(queue)}
        first = [Which(queue, 1, unknown, head) for queue in room if (head := heads[queue])]
        if first and suspects == "wait":
            return self._claimed(looks, now, refused=refused, held=True)
        claims = start(first[0]) if first and suspects == "start" else []
        # Somebody else may have been quicker.
        claims = claims or [
            claim for queue, want in room.items() for claim in start(Which(queue, want, unknown))
        ]
        return self._claimed(looks, now, claims, refused)

    def _promote(self, looks: Sequence[_Look], now: float, db: Connection) -> bool:
        """Let the jobs that are due wait; return whether there were any."""
        due = [look.state.queue for look in looks if look.due is not None and look.due <= now]
        for queue in due:
            self._db.promote(db, queue, now)
        return bool(due)

    def _open(
        self,
        looks: Sequence[_Look],
        wants: Mapping[str, int],
        caps: Mapping[str, int],
        now: float,
        db: Connection,
    ) -> dict[str, int]:
        """Return how many jobs may start, for each queue of which any may."""
        room = {look.state.queue: wants[look.state.queue] for look in looks if look.claimable(wants, now)}
        for queue in room:
            if queue in caps:
                room[queue] = min(room[queue], caps[queue] - self._held(db, queue, now))
        return {queue: want for queue, want in room.items() if want > 0}

    def _held(self, db: Connection, queue: str, now: float) -> int:
        self._db.take_turn(db, queue)
        held = "SELECT count(*) FROM jobify_job WHERE queue = ? AND status = 'running' AND lease_until >= ?"
        return int(db.execute(held, (queue, now)).fetchone()[0])

    def _look(self, wants: Mapping[str, int], unknown: Collection[str], db: Connection) -> list[_Look]:
        but = f"AND j.task NOT IN {marks(unknown)}" if unknown else ""
        found: dict[str, _Look] = {}
        for part in chunks(list(wants), QUEUES):
            lines = " UNION ALL ".join(
                f"SELECT ? AS queue, {int(self._db.blind(name))} AS blind" for name in part
            )
            for row in db.execute(LOOK % (but, lines), (*unknown, *part)).fetchall():
                found[row[0]] = _Look(to_state(row[0], row[1:7]), row[7], moment(row[8], None))
        return [found[name] for name in wants]

    @staticmethod
    def _claimed(
        looks: Sequence[_Look],
        now: float,
        claims: Sequence[Claim] = (),
        refused: Sequence[Outcome] = (),
        *,
        held: bool = False,
    ) -> Claimed:
        states = {look.state.queue: look.state for look in looks}
        # A job that is due and was not taken waits for something else than time: its queue is paused, say.
        dues = [look.due - now for look in looks if look.due is not None and look.due > now]
        return Claimed(claims, refused, states, min(dues, default=None), held)

    def renew(self, pool: str, held: Mapping[str, int], lease: float) -> Renewed:
        def work(db: Connection) -> Mapping[str, bool]:
            return self._db.renew(db, pool, sorted(held.items()), self.clock() + lease)

        found = self._db.write(work) if held else {}
        return Renewed([id for id in held if id not in found], [id for id, cancel in found.items() if cancel])

    def finish(self, outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
        if not outcomes:
            return ()
        refused = self._db.write(partial(self._finish, outcomes))
        self._tell_ended([outcome for outcome in outcomes if outcome not in refused])
        return refused

    def _finish(self, outcomes: Sequence[Outcome], db: Connection) -> list[Outcome]:
        if not outcomes:
            return []
        now = self.clock()
        rows = [
            (str(one.status), one.result, error_text(one.error), now, one.id, one.attempt) for one in outcomes
        ]
        # Everybody who changes several jobs goes through them in one order, so that nobody waits in a circle.
        ended = set(self._db.finish(db, sorted(rows, key=lambda row: row[4])))
        return [one for one in outcomes if (one.id, one.attempt) not in ended]

    # A job's ways back

    def release(self, pool: str, held: Mapping[str, int], reason: str) -> Collection[str]:
        def work(db: Connection) -> list[JobRecord]:
            records = [r for r in self._records(db, held) if r.pool == pool and held[r.id] == r.attempt]
            return self._give_back(db, records, reason)

        return self._given_back(work)

    def release_unknown(self, pool: str, known: Collection[str]) -> Collection[str]:
        def work(db: Connection) -> list[JobRecord]:
            mine = f"""
                SELECT {RECORD} FROM jobify_job WHERE status = 'running' AND pool = ?
                ORDER BY id {self._db.locked}"""
            records = [to_record(row) for row in db.execute(mine, (pool,)).fetchall()]
            strays = [record for record in records if record.id not in known]
            return self._give_back(db, strays, "the reply to its claim was lost")

        return self._given_back(work)

    def _given_back(self, work: Callable[[Connection], list[JobRecord]]) -> list[str]:
        records = self._db.write(work)
        self._tell_work(record.queue for record in records)
        self._tell_ended([record for record in records if record.cancel_requested])
        return [record.id for record in records]

    def _give_back(self, db: Connection, records: Iterable[JobRecord], reason: str) -> list[JobRecord]:
        given = [record for record in records if record.status is JobStatus.RUNNING]
        self._come_back(db, given, reason, self.clock(), charged=False)
        return given

    def rescue(
        self,
        limit: int = 500,
        *,
        away: tuple[float, float] | None = None,
        longest: float | None = None,
    ) -> Sequence[Rescued]:
        now = self.clock()
        first, last = self._db.read(lambda db: db.execute(LEASES).fetchone())
        if longest is not None and last is not None and last > now + longest:
            self._db.write(partial(self._cut_down, longest))
        rescued = []
        if first is not None and first < now:
            rescued = self._db.write(partial(self._rescue, limit, away))
        self._tell_work(one.queue for one in rescued)
        self._tell_ended([one for one in rescued if one.status.ended])
        return rescued

    def _rescue(self, limit: int, away: tuple[float, float] | None, db: Connection) -> list[Rescued]:
        now = self.clock()
        oldest = f"SELECT {RECORD} {EXPIRED} ORDER BY lease_until LIMIT ? {self._db.unlocked}"
        records = [to_record(row) for row in db.execute(oldest, (now, limit)).fetchall()]
        rescued = []
        for charged, reason in ((True, LEASE_RAN_OUT), (False, RAN_OUT_AWAY)):
            some = [one for one in records if ran_out_away(one.lease_until, away) is not charged]
            statuses = self._come_back(db, some, reason, now, charged=charged)
            rescued += [
                Rescued(one.id, one.queue, one.task, one.attempt, one.pool, status)
                for one, status in zip(some, statuses, strict=True)
            ]
        return rescued

    def _cut_down(self, longest: float, db: Connection) -> None:
        """Let no lease of a pool that is not known to be alive have more than so many seconds left."""
        now = self.clock()
        far = f"SELECT id, pool FROM jobify_job WHERE {AHEAD} {self._db.unlocked}"
        alive = {pool.id for pool in self._pools(now, db)}
        found = db.execute(far, (now + longest,)).fetchall()
        for part in chunks([id for id, pool in found if pool not in alive]):
            cut = f"UPDATE jobify_job SET lease_until = ? WHERE id IN {marks(part)}"
            db.execute(cut, (now + longest, *part))

    def cancel(self, ids: Collection[str]) -> Mapping[str, JobStatus]:
        def cancel(part: Collection[str]) -> list[JobRecord]:
            records = self._db.write(partial(self._cancel, part))
            live = {record.queue for record in records if not record.status.ended}
            self._tell_room(live)
            self._tell_work(live)
            self._tell_ended([r for r in records if r.status in (JobStatus.WAITING, JobStatus.DELAYED)])
            return records

        return {record.id: record.status for record in self._in_parts(ids, cancel, "cancelled")}

    def _cancel(self, ids: Collection[str], db: Connection) -> list[JobRecord]:
        now = self.clock()
        records = self._records(db, ids)
        running = [record.id for record in records if record.status is JobStatus.RUNNING]
        for part in chunks(running):
            db.execute(f"UPDATE jobify_job SET cancel_requested = TRUE WHERE id IN {marks(part)}", part)
        unstarted = [
            record.id for record in records if record.status in (JobStatus.WAITING, JobStatus.DELAYED)
        ]
        for part in chunks(unstarted):
            end = f"UPDATE jobify_job SET status = 'cancelled', ended_at = ? WHERE id IN {marks(part)}"
            db.execute(end, (now, *part))
        waiting = Counter(record.queue for record in records if record.status is JobStatus.WAITING)
        for queue, number in waiting.items():
            self._db.note(db, queue, -number)
        return records

    def cancels(self, pool: str) -> Collection[str]:
        asked = "SELECT id FROM jobify_job WHERE status = 'running' AND pool = ? AND cancel_requested"
        return [id for (id,) in self._db.read(lambda db: db.execute(asked, (pool,)).fetchall())]

    def retry(self, ids: Collection[str]) -> Collection[str]:
        def retry(part: Collection[str]) -> list[JobRecord]:
            records = self._db.write(partial(self._retry, part))
            self._tell_work(record.queue for record in records)
            return records

        return [record.id for record in self._in_parts(ids, retry, "retried")]

    def _retry(self, ids: Collection[str], db: Connection) -> list[JobRecord]:
        now = self.clock()
        again = (JobStatus.FAILED, JobStatus.CANCELLED)
        records = [record for record in self._records(db, ids) if record.status in again]
        by_queue: dict[str, list[str]] = {}
        for record in records:
            by_queue.setdefault(record.queue, []).append(record.id)
        for queue, chosen in by_queue.items():
            key = KEYS[self._order_of(db, queue)]
            for part in chunks(chosen):
                reset = f"""
                    UPDATE jobify_job SET crashes = 0, result = NULL, cancel_requested = FALSE,
                                          eligible_at = ?, order_key = {key} WHERE id IN {marks(part)}"""
                db.execute(reset, (now, *part))
        fresh = [record._replace(cancel_requested=False) for record in records]
        self._come_back(db, fresh, "retried by hand", now, charged=False)
        return records

    def _order_of(self, db: Connection, queue: str) -> Order:
        live = f'SELECT "order" FROM jobify_queue WHERE name = ? {self._db.steady}'
        order = (db.execute(live, (queue,)).fetchone() or ("",))[0]
        if known := order_from(order):
            return known
        settings = get_settings().queues
        return settings[queue].order if queue in settings else "priority"

    def _in_parts(
        self, ids: Collection[str], act: Callable[[Collection[str]], list[JobRecord]], done: str
    ) -> list[JobRecord]:
        """Act on jobs in transactions of ``PART`` jobs each; inside the caller's transaction, all in that.

        The error of a part that fails tells what became of those before it.
        """
        # Sorted as they are locked, so that two calls go through the parts in one order, too.
        wanted = sorted(set(ids))
        if len(wanted) <= PART or self.in_transaction():
            return act(wanted)
        records: list[JobRecord] = []
        for start in range(0, len(wanted), PART):
            try:
                records += act(wanted[start : start + PART])
            except StoreError as error:
                raise type(error)(
                    f"of {len(wanted)} jobs the first {start} were looked at, and those of them that could "
                    f"be were {done}; the rest were not: {error} Do it again with the same jobs: those that "
                    "were changed are left alone."
                ) from error
        return records

    def _records(self, db: Connection, ids: Iterable[str]) -> list[JobRecord]:
        """Read jobs that are about to change."""
        wanted = sorted(ids)
        chosen = f"SELECT {RECORD} FROM jobify_job WHERE id IN "
        return [to_record(row) for row in _by_ids(db, chosen, wanted, f" ORDER BY id {self._db.locked}")]

    def _come_back(
        self, db: Connection, records: Sequence[JobRecord], reason: str, now: float, *, charged: bool
    ) -> list[JobStatus]:
        """Note an interruption of jobs that were read to be changed, and let them wait again.

        Returns what became of each: one that somebody asked to end is cancelled, one that has crashed too
        often is failed.
        """
        statuses = []
        # Jobs of one dead pool differ in little but their ids: they share a statement.
        alike: dict[Row, list[str]] = {}
        for record in records:
            status, error = self._after(record, charged)
            statuses.append(status)
            end = (now, record.pool) if status.ended else (None, "")
            told = interruption_text(Interruption(record.attempt, reason, now, record.pool, charged))
            values = (str(status), *end, error_text(error), told, int(charged))
            alike.setdefault(values, []).append(record.id)
        for values, ids in alike.items():
            for part in chunks(ids):
                db.execute(COME_BACK % self._db.longer_history + marks(part), (*values, *part))
        waiting = [
            record.queue
            for record, status in zip(records, statuses, strict=True)
            if status is JobStatus.WAITING
        ]
        for queue, number in Counter(waiting).items():
            self._db.note(db, queue, number)
        return statuses

    @staticmethod
    def _after(record: JobRecord, charged: bool) -> tuple[JobStatus, JobError | None]:
        crashes = record.crashes + charged
        if charged and crashes >= CRASH_LIMIT:
            return JobStatus.FAILED, crash_error(crashes)
        return (JobStatus.CANCELLED if record.cancel_requested else JobStatus.WAITING), None

    def prune(self, *, older_than: float, failed_older_than: float, limit: int = 500) -> int:
        now = self.clock()
        before = {
            JobStatus.SUCCESSFUL: now - older_than,
            JobStatus.FAILED: now - failed_older_than,
            JobStatus.CANCELLED: now - failed_older_than,
        }
        pools = {"seen": now - FORGET_POOLS, "ahead": now + FORGET_POOLS}
        gone = "FROM jobify_pool WHERE seen_at < :seen OR seen_at > :ahead"
        if self._db.read(lambda db: db.execute(f"SELECT 1 {gone}", pools).fetchone()):
            self._db.write(lambda db: db.execute(f"DELETE {gone}", pools))
        if not self._db.read(lambda db: _ended(db, before, 1)):
            return 0
        return self._db.write(partial(self._prune, before, limit))

    def _prune(self, before: Mapping[JobStatus, float], limit: int, db: Connection) -> int:
        # Locked, and looked at again once they are: a retry may have got hold of some of them first.
        old = _ended(db, before, limit, self._db.unlocked)
        for part in chunks(old):
            db.execute(f"DELETE FROM jobify_job WHERE id IN {marks(part)}", part)
        return len(old)

    # Looking

    def get(self, ids: Collection[str]) -> Mapping[str, JobRecord]:
        chosen = f"SELECT {RECORD} FROM jobify_job WHERE id IN "
        found = self._db.read(lambda db: _by_ids(db, chosen, list(ids)))
        return {row[0]: to_record(row) for row in found}

    def find(
        self,
        *,
        queue: str | None = None,
        status: JobStatus | None = None,
        task: str | None = None,
        limit: int = 100,
    ) -> Sequence[JobRecord]:
        wanted = {"queue": queue, "task": task}
        terms = [f"{column} = :{column}" for column, value in wanted.items() if value is not None]
        if status is not None:
            terms.append(f"status = '{JobStatus(status)}'")
        where = f"WHERE {' AND '.join(terms)}" if terms else ""
        order = "order_key, sequence" if status is JobStatus.WAITING else "id DESC"
        statement = f"SELECT {RECORD} FROM jobify_job {where} ORDER BY {order} LIMIT :limit"
        rows = self._db.read(lambda db: db.execute(statement, {**wanted, "limit": limit}).fetchall())
        return [to_record(row) for row in rows]

    def position(self, id: str) -> int | None:
        ahead = """
            SELECT (SELECT count(*) FROM jobify_job o WHERE o.queue = j.queue AND o.status = 'waiting'
                    AND (o.order_key, o.sequence) < (j.order_key, j.sequence))
            FROM jobify_job j WHERE id = ? AND status = 'waiting'"""
        found = self._db.read(lambda db: db.execute(ahead, (id,)).fetchone())
        return None if found is None else int(found[0])

    def stats(self, queues: Sequence[QueueSettings]) -> Mapping[str, QueueStats]:
        return self._db.read(partial(self._stats, queues, self.clock()))

    def _stats(self, queues: Sequence[QueueSettings], now: float, db: Connection) -> dict[str, QueueStats]:
        pools = self._pools(now, db)
        states = self._states([queue.name for queue in queues], db)
        numbers: dict[str, Row] = {}
        for part in chunks([queue.name for queue in queues], QUEUES):
            lines = " UNION ALL ".join(["SELECT ? AS queue"] * len(part))
            for name, *found in db.execute(STATS % lines, (now, *part)).fetchall():
                numbers[name] = tuple(found)
        return {q.name: _to_stats(q, numbers[q.name], states[q.name], pools, now) for q in queues}

    def queues(self) -> Collection[str]:
        return self._db.read(self._db.queues)

    def is_set_up(self) -> bool:
        return self._db.has_tables()

    # Live values and pools

    def states(self, queues: Collection[str]) -> Mapping[str, QueueState]:
        return self._db.read(partial(self._states, queues))

    @staticmethod
    def _states(queues: Collection[str], db: Connection) -> dict[str, QueueState]:
        rows = _by_ids(db, f"SELECT name, {STATE} FROM jobify_queue WHERE name IN ", list(queues))
        found = {row[0]: to_state(row[0], row[1:]) for row in rows}
        return {**{name: QueueState(name) for name in queues}, **found}

    def tune(
        self,
        queue: QueueSettings,
        changes: Mapping[str, Any],
        *,
        actor: str,
        source: str,
        expected: int | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> QueueState:
        audit = (actor[:150], source[:16], self.clock())
        state = self._db.write(partial(self._tune, queue, changes, audit, expected))
        self._tell_work([queue.name])
        self._tell_room([queue.name])
        if state.reordering:
            self._reorder_all(queue, progress)
            # Of the rest it is what this change made: somebody may have made another one meanwhile.
            state = replace(state, reordering=self.states([queue.name])[queue.name].reordering)
        return state

    def _reorder_all(self, queue: QueueSettings, progress: Callable[[int], None] | None) -> None:
        """Re-order what can be now. What fails, or comes late, is left to the pools: the change is made."""
        total = rounds = 0
        try:
            # Twice without a find: the transaction that makes the mark cannot tell that nobody comes late.
            while rounds < 2:
                moved = self.reorder(queue)
                rounds = 0 if moved else rounds + 1
                total += moved
                if moved and progress is not None:
                    progress(total)
        except StoreError as error:
            if self.in_transaction():
                raise  # it cannot go on
            logger.warning(
                "event=reorder-failed queue=%s moved=%d error=%r", quoted(queue.name), total, str(error)
            )

    def reorder(self, queue: QueueSettings) -> int:
        moved = self._db.write(partial(self._reorder, queue, self.in_transaction()))
        if moved:
            self._tell_work([queue.name])
        return moved

    def _reorder(self, queue: QueueSettings, inside: bool, db: Connection) -> int:
        # Whoever has the row locked re-orders now, or changes the order once more.
        live = f'SELECT "order", reordering FROM jobify_queue WHERE name = ? {self._db.unlocked}'
        order, mark = db.execute(live, (queue.name,)).fetchone() or (None, None)
        if mark is None:
            return 0
        if mark == 0 and not inside:
            mark = self._db.mark(db)
            db.execute("UPDATE jobify_queue SET reordering = ? WHERE name = ?", (mark, queue.name))
        key = KEYS[order_from(order) or queue.order]
        late = mark == 0 or self._db.may_come_late(
            db, mark
        )  # before the look, or somebody could end between the two
        old = " UNION ALL ".join(
            f"SELECT id FROM jobify_job WHERE queue = :queue AND status = '{status}' AND order_key <> {key}"
            for status in ("waiting", "delayed", "running")
        )
        # One statement, so one snapshot: a job that changes its status meanwhile is in it all the same.
        found = db.execute(f"{old} LIMIT {REORDER_PART}", {"queue": queue.name}).fetchall()
        if not found and not late:
            db.execute("UPDATE jobify_queue SET reordering = NULL WHERE name = ?", (queue.name,))
        moved = 0
        for part in chunks(sorted(id for (id,) in found)):
            lock = f"SELECT id FROM jobify_job WHERE id IN {marks(part)} ORDER BY id {self._db.unlocked}"
            free = [id for (id,) in db.execute(lock, part).fetchall()]
            if free:
                db.execute(f"UPDATE jobify_job SET order_key = {key} WHERE id IN {marks(free)}", free)
            moved += len(free)
        return moved

    def _tune(
        self,
        queue: QueueSettings,
        changes: Mapping[str, Any],
        audit: tuple[str, str, float],
        expected: int | None,
        db: Connection,
    ) -> QueueState:
        self._db.ensure_queue(db, queue.name)
        # Read by the statement that locks it: a transaction that began earlier would read an older version.
        live = f"SELECT {STATE} FROM jobify_queue WHERE name = ? {self._db.locked}"
        before = to_state(queue.name, db.execute(live, (queue.name,)).fetchone())
        before.must_be(expected)
        after = replace(before, version=before.version + 1, **changes)
        db.execute(
            'UPDATE jobify_queue SET version = ?, workers = ?, maxsize = ?, "order" = ?, paused = ? '
            "WHERE name = ?",
            (after.version, after.workers, after.maxsize, after.order or "", after.paused, queue.name),
        )
        if (after.order or queue.order) != (before.order or queue.order):
            # 0: the mark is made after the commit, or somebody could still read the old order after it.
            db.execute("UPDATE jobify_queue SET reordering = 0 WHERE name = ?", (queue.name,))
            after = replace(after, reordering=True)
        db.execute(
            'INSERT INTO jobify_queuechange (queue, version, actor, source, changed_at, "before", "after") '
            "VALUES (?, ?, ?, ?, ?, ?, ?)",
            (queue.name, after.version, *audit, _values(before), _values(after)),
        )
        return after

    def beat(self, pool: PoolRecord) -> None:
        now = self.clock()
        values = (pool.id, pool.host, pool.pid, pool.kind, pool.started_at, now, queues_text(pool.queues))
        self._db.write(lambda db: self._db.beat(db, values))

    def retire(self, pool: str) -> None:
        self._db.write(lambda db: db.execute("DELETE FROM jobify_pool WHERE id = ?", (pool,)))

    def pools(self) -> Sequence[PoolRecord]:
        return self._db.read(partial(self._pools, self.clock()))

    @staticmethod
    def _pools(now: float, db: Connection) -> list[PoolRecord]:
        alive = """
            SELECT id, host, pid, kind, started_at, queues, seen_at FROM jobify_pool
            WHERE seen_at > ? AND seen_at < ? ORDER BY started_at"""
        rows = db.execute(alive, (now - POOL_ALIVE, now + POOL_ALIVE)).fetchall()
        return [to_pool(row, now) for row in rows]

    # The rest

    def probe(self) -> Probe | None:
        return self._db.probe()

    def in_transaction(self) -> bool:
        return self._db.in_transaction()

    def unseen(self, id: str = "") -> str:
        if id and not any(spec.id == id for spec in self._uncommitted()):
            return ""
        return self._db.unseen()

    def _uncommitted(self) -> Iterable[JobSpec]:
        """Return what this thread's open ``atomic`` has added."""
        for call in self._db.waiting_for_commit():
            if isinstance(call, partial) and call.func == self._tell:
                for specs in call.args[2:]:
                    yield from specs

    def repair(self) -> bool:
        if not self._db.repair():
            return False
        self.hints.room(None)
        return True

    def troubles(self) -> Sequence[Trouble]:
        return self._db.read(self._db.troubles)

    def legible(self) -> AbstractContextManager[None]:
        """Return a block in which Django's own queries of the tables read every text, whatever its bytes."""
        return self._db.legible()

    def open(self) -> None:
        self._db.open()

    def close(self) -> None:
        self._db.close()

    def _tell_work(self, queues: Iterable[str]) -> None:
        for queue in set(queues):
            self._db.after_commit(partial(self._tell, "work", queue))

    def _tell_room(self, queues: Iterable[str]) -> None:
        for queue in set(queues):
            self._db.after_commit(partial(self._tell, "room", queue))

    def _tell(self, kind: Literal["work", "room"], queue: str, added: Sequence[JobSpec] = ()) -> None:
        self.hints.work(queue) if kind == "work" else self.hints.room(queue)
        self._db.say(kind, queue)

    def _tell_ended(self, ended: Sequence[Outcome | Rescued | JobRecord]) -> None:
        if ended:
            self._db.after_commit(partial(self._say_ended, [one.id for one in ended]))

    def _say_ended(self, ids: Sequence[str]) -> None:
        self.hints.ended(ids)
        self._db.say("ended")


class _Look(NamedTuple):
    """A queue as a claim finds it: live values, the job that is first in line (its id if it is a suspect, an
    empty text if it is none), and when the next delayed one is due."""

    state: QueueState
    head: str | None
    due: float | None

    def claimable(self, wants: Mapping[str, int], now: float) -> bool:
        if self.state.paused or wants[self.state.queue] <= 0:
            return False
        return self.head is not None or (self.due is not None and self.due <= now)


def _to_stats(
    queue: QueueSettings, numbers: Row, state: QueueState, pools: Sequence[PoolRecord], now: float
) -> QueueStats:
    waiting, delayed, due, running, *firsts = numbers
    since = [at for at in (moment(first, None) for first in firsts) if at is not None and at <= now]
    live = state.over(queue)
    return QueueStats(
        queue=queue.name,
        waiting=waiting + due,
        delayed=delayed - due,
        running=running,
        workers=live.workers,
        maxsize=live.maxsize,
        order=live.order,
        paused=state.paused,
        oldest_wait=max(0.0, now - min(since, default=now)),
        pools=[pool for pool in pools if queue.name in pool.queues],
        state=state,
    )


def _by_ids(db: Connection, start: str, ids: Sequence[str], end: str = "") -> list[Row]:
    return [row for part in chunks(ids) for row in db.execute(start + marks(part) + end, part).fetchall()]


def _ended(db: Connection, before: Mapping[JobStatus, float], limit: int, lock: str = "") -> list[str]:
    """Return the ids of jobs that ended so before a moment of each status."""
    ids: list[str] = []
    for status, until in before.items():
        if limit > len(ids):
            old = f"SELECT id FROM jobify_job WHERE status = '{status}' AND ended_at < ? LIMIT ? {lock}"
            ids += [id for (id,) in db.execute(old, (until, limit - len(ids))).fetchall()]
    return ids


def _values(state: QueueState) -> str:
    keys = ("workers", "maxsize", "order", "paused")
    return json.dumps({key: getattr(state, key) for key in keys})


def open_database(alias: str) -> Database:
    """Return the database of this alias; raises ``ImproperlyConfigured`` for one that jobs cannot wait in."""
    if wrong := what_is_wrong_with(alias):
        raise ImproperlyConfigured(" ".join(wrong))
    opened: Database = import_string(DATABASES[connections[alias].vendor])(alias)
    return opened


def what_is_wrong_with(alias: str) -> tuple[str, str] | None:
    """Return why jobs cannot wait in the database of this alias, and the way out; ``None`` if they can."""
    vendor = connections[alias].vendor
    if vendor in DATABASES:
        return None
    if vendor == "unknown":  # what Django puts in the place of settings that are not there
        module = getattr(django_settings, "SETTINGS_MODULE", None)
        which = f"The settings of {module}" if module else "The settings"
        return (
            f"{which} have no database {alias!r} for JOBIFY['DATABASE'].",
            "If DATABASES is set in your project, DJANGO_SETTINGS_MODULE names another module here than in "
            "manage.py, as in asgi.py: name the same one. Or use STORE 'memory'.",
        )
    return (
        f"JOBIFY['DATABASE'] {alias!r} is a {vendor} database; jobs wait in {', '.join(DATABASES)}.",
        "Give jobs a database of their own with JOBIFY['DATABASE'], or use STORE 'memory'.",
    )
