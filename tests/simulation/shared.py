"""The one store that all simulated processes share, held against a model after every call."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from django.db import connections, transaction

from jobify_django.exceptions import StoreError
from jobify_django.job import JobRecord, JobStatus
from jobify_django.stores.base import Store
from jobify_django.stores.database import DatabaseStore
from jobify_django.stores.database.columns import RECORD, to_record
from jobify_django.stores.notifier import Kind
from jobify_django.stores.value import JobQuery
from tests.simulation.model import Differs, Model
from tests.simulation.story import told
from tests.simulation.world import Process, World

WRITES = frozenset(
    ("add", "claim", "renew", "settle", "reconcile", "rescue", "cancel", "retry", "prune", "tune")
)
ASKED = WRITES | {"sync"}
"""The verbs that the model answers too."""

OFTEN_IDLE = ("rescue", "reconcile", "prune")
ALL = 1_000_000


class Shared:
    """A real store, and the model of it."""

    def __init__(self, world: World, store: Store, model: Model) -> None:
        self.world = world
        self.store = store
        self.model = model
        self.rescued: Callable[[JobRecord], None] = lambda record: None
        self.writes: Counter[Process] = Counter()
        self.calls = 0
        self._read: dict[tuple[Any, ...], JobRecord] = {}
        self._collected: list[tuple[Kind, Any]] | None = None
        store.notifier = self  # type: ignore[assignment]

    def call(self, verb: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Do it, and hold the store against the model."""
        self.calls += 1
        now = self.world.clock()
        expiring = self._expiring(now) if verb == "rescue" else []
        with self._collecting() as hints:
            try:
                result = getattr(self.store, verb)(*args, **kwargs)
            except StoreError as error:
                if not self.world.held:
                    self.world.fail(f"{verb} failed by itself: {error!r}", error)
                raise
        try:
            if verb in ASKED:
                getattr(self.model, verb)(now, result, *args, **kwargs)
            if self._may_have_changed(verb, args, result):
                records = self.records()
                self.model.compare(records, now)
                if verb in ("add", "settle", "reconcile", "rescue", "retry", "tune"):
                    self._compare_order(now)
                self._hold_invariants(verb, args, result, records, now)
        except Differs as difference:
            self.world.fail(f"{verb} {told(args)}: {difference}", difference)
        for record in expiring:
            self.rescued(record)
        self._deliver(hints)
        return result

    def rolled_back(self, work: Callable[[], object]) -> None:
        """Do something in a transaction of the store's database that is rolled back."""
        before = self.model.copy()
        with self.world.uninterrupted(), contextlib.suppress(_RolledBack), transaction.atomic():
            work()
            raise _RolledBack
        self.model.go_back_to(before)
        try:
            self.model.compare(self.records(), self.world.clock())
        except Differs as difference:
            self.world.fail(f"after a rollback: {difference}", difference)

    def records(self) -> list[JobRecord]:
        """Return all that the store holds."""
        if not isinstance(self.store, DatabaseStore):
            return list(self.store.query(JobQuery(limit=ALL)))
        with connections["default"].cursor() as cursor:
            cursor.execute(f"SELECT {RECORD} FROM jobify_job")
            rows = cursor.fetchall()
        # Reading a row's JSON anew after every call would take most of the time.
        for row in rows:
            if row not in self._read:
                self._read[row] = to_record(row)
        return [self._read[row] for row in rows]

    def wrong_counts(self) -> list[tuple[str, int, int]]:
        """Return the queues whose count of waiting jobs is wrong: name, count, jobs."""
        if not isinstance(self.store, DatabaseStore):
            lines: Any = self.store._lines  # type: ignore[attr-defined]
            counts = [(name, line.waiting, len(line.rows_waiting())) for name, line in lines.items()]
            return [count for count in counts if count[1] != count[2]]
        if connections["default"].vendor != "sqlite":
            return []  # only there it is kept in a column
        with connections["default"].cursor() as cursor:
            cursor.execute(
                "SELECT name, waiting, (SELECT count(*) FROM jobify_job WHERE queue = name AND "
                "status = 'waiting') FROM jobify_queue"
            )
            return [row for row in cursor.fetchall() if row[1] != row[2]]

    # What the store takes for its notifier: those of a call reach its own process when it has ended

    def publish(self, kind: Kind, about: Any) -> None:
        about = tuple(about) if isinstance(about, list) else about
        if self._collected is not None:
            self._collected.append((kind, about))
        else:
            self._deliver([(kind, about)])

    def _deliver(self, hints: list[tuple[Kind, Any]]) -> None:
        if not hints or self.world.current is None:
            return
        process = self.world.current.process
        self.writes[process] += 1
        # Sorted: a store may go through sets, whose order differs from run to run of Python.
        for kind, about in sorted(hints, key=repr):
            process.view.notifier.publish(kind, about)

    @contextlib.contextmanager
    def _collecting(self) -> Iterator[list[tuple[Kind, Any]]]:
        before, self._collected = self._collected, []
        try:
            yield self._collected
        finally:
            self._collected = before

    # What must hold

    def _may_have_changed(self, verb: str, args: tuple[Any, ...], result: Any) -> bool:
        if self.calls % 25 == 0:
            return True
        if verb == "claim":
            return bool(result.claims or any(args[1:]))
        if verb in OFTEN_IDLE:
            return bool(result)
        return verb in WRITES

    def _compare_order(self, now: float) -> None:
        for queue in self.model.queues:
            waiting = self.store.query(JobQuery(queue=queue, status=JobStatus.WAITING, limit=ALL))
            self.model.compare_order(queue, [record.id for record in waiting], now)

    @staticmethod
    def _hold_invariants(
        verb: str,
        args: tuple[Any, ...],
        result: Any,
        records: Sequence[JobRecord],
        now: float,
    ) -> None:
        """What must hold whatever the model says."""
        if verb == "add" and result.taken:
            queue = args[0].name
            waiting = {r.id: r for r in records if r.queue == queue and _waits(r, now)}
            fresh = [s.id for s in args[1] if s.id in waiting and waiting[s.id].pushed_at == now]
            if fresh and len(waiting) > result.maxsize:
                raise Differs(f"the bound: {len(waiting)} wait in {queue!r}, and maxsize is {result.maxsize}")
        if verb == "claim":
            for queue in dict.fromkeys(claim.queue for claim in result.claims):
                cap = args[0].lanes[queue].max_running
                held = [r for r in records if r.queue == queue and r.status == "running"]
                held = [r for r in held if r.lease_until is not None and r.lease_until >= now]
                if cap is not None and len(held) > cap:
                    raise Differs(f"{len(held)} jobs of {queue!r} run, and MAX_RUNNING is {cap}")
        for record in records:
            if record.attempt > len(record.history) + 1:
                raise Differs(f"job {record.id}: attempt {record.attempt} has no reason in {record.history}")
            if record.crashes > sum(entry.charged for entry in record.history):
                raise Differs(f"job {record.id}: {record.crashes} crashes, but {record.history}")

    def _expiring(self, now: float) -> list[JobRecord]:
        return [r for r in self.records() if r.lease_until is not None and r.lease_until < now]


class _RolledBack(Exception):
    pass


def _waits(record: JobRecord, now: float) -> bool:
    return record.status == "waiting" or (record.status == "delayed" and record.eligible_at <= now)
