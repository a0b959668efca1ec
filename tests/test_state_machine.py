"""Every store against one small model: whatever is done in whatever order, both say the same.

``EXAMPLES=5000 python -m pytest tests/test_state_machine.py`` looks longer, and each time at others.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from django.db import connection, transaction
from hypothesis import HealthCheck, Phase
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.errors import Flaky
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from jobify_django.job import ENDED, WAITING, Claim, JobError, JobRecord, JobSpec, JobStatus
from jobify_django.outcome import Outcome, cancelled, failed, released, succeeded
from jobify_django.stores.base import Store
from jobify_django.stores.database import DatabaseStore
from jobify_django.stores.memory import MemoryStore
from jobify_django.stores.value import Demand, JobOrder, JobQuery, Lane, Quarantine
from jobify_django.testing import FakeClock
from jobify_django.testing.conformance.ground import a_queue
from tests.child import until
from tests.simulation.model import Model
from tests.simulation.options import QUEUES

LONG = int(os.environ.get("EXAMPLES", "0"))
PHASES = [Phase.generate] if "MUTANTS" in os.environ else [Phase.generate, Phase.shrink]
POOLS = ("pool-1", "pool-2")
LEASES = {"default": 10.0, "mail": 4.0}
ALL = 10_000

counts = st.integers(0, 3)
pools = st.sampled_from(POOLS)
queues = st.sampled_from(QUEUES)
places = st.lists(st.integers(0, 30), max_size=4)


class Machine(RuleBasedStateMachine):
    """A store and the model, side by side."""

    make_store: Callable[[FakeClock], Store]
    broke: list[BaseException] = []

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock(1_800_000_000.0)
        self.store = type(self).make_store(self.clock)
        self.queues = {
            "default": a_queue("default", maxsize=3, workers=2),
            "mail": a_queue("mail", maxsize=2, order="fifo"),
        }
        self.model = Model(self.queues)
        self.specs: list[JobSpec] = []
        self.claims: list[tuple[str, Claim]] = []

    def teardown(self) -> None:
        error = sys.exception()
        if isinstance(error, Exception):
            self.broke.append(error)

    def ask(self, verb: str, *args: Any, **kwargs: Any) -> Any:
        """Ask the store, and hold its answer against the model's."""
        answer = getattr(self.store, verb)(*args, **kwargs)
        getattr(self.model, verb)(self.clock.now, answer, *args, **kwargs)
        return answer

    def ask_tune(self, queue: str, changes: dict[str, Any]) -> None:
        """Tune, and go on with the re-ordering as pools do: on a server it waits for other transactions, and
        one that collects statistics may just be open."""
        settings = self.queues[queue]
        state = self.store.tune(settings, changes, actor="ada", source="code")

        def settled() -> bool:
            self.store.reorder(settings)
            return not self.store.sync("", [queue]).states[queue].reordering

        if state.reordering:
            until(settled, "the end of the re-ordering")
        state = replace(state, reordering=False)
        self.model.tune(self.clock.now, state, settings, changes, actor="ada", source="code")

    @invariant()
    def the_store_holds_what_the_model_holds(self) -> None:
        self.model.compare(self.store.query(JobQuery(limit=ALL)), self.clock.now)

    @invariant()
    def jobs_wait_in_the_same_order(self) -> None:
        for queue in QUEUES:
            waiting = self.store.query(JobQuery(queue=queue, status=WAITING, limit=ALL))
            self.model.compare_order(queue, [record.id for record in waiting], self.clock.now)

    @invariant()
    def the_books_are_right(self) -> None:
        assert not self.store.repair()

    # What may be chosen

    def new_specs(self, kinds: list[tuple[int, float, int]]) -> list[JobSpec]:
        """Return jobs nobody has seen."""
        specs = []
        for priority, delay, flags in kinds:
            id = f"{len(self.specs) + 1:08x}-0000-7000-8000-000000000000"
            extra = f'{{"flags": {flags}}}' if flags else None
            specs.append(JobSpec(id, "app.tasks.a", '[["a"],{}]', priority, delay, None, flags, extra))
            self.specs.append(specs[-1])
        return specs

    def ids(self, places: list[int]) -> list[str]:
        """Return jobs there are, or were to be."""
        return list({self.specs[place % len(self.specs)].id: None for place in places if self.specs})

    def chosen_claims(self, places: list[int]) -> list[tuple[str, Claim]]:
        """Return attempts, old and new."""
        chosen = [self.claims[-1 - place % len(self.claims)] for place in places if self.claims]
        return list({claim.id: (pool, claim) for pool, claim in chosen}.values())

    def superseded(self) -> list[tuple[str, Claim]]:
        """Return attempts whose job is in a later one."""
        running = {job.id: job.attempt for job in self.model.running()}
        return [(pool, claim) for pool, claim in self.claims if running.get(claim.id, 0) > claim.attempt]

    def outcomes(self, places: list[int], how: int) -> list[Outcome]:
        """Return how attempts ended, some of which hold nothing any more."""
        ends: list[Callable[[Claim], Outcome]] = [
            partial(succeeded, result="1"),
            partial(failed, error=JobError("ValueError", "no", "...")),
            cancelled,
            partial(released, reason="its pool stopped"),
        ]
        return [ends[how](claim) for _, claim in self.chosen_claims(places)]

    # The verbs

    kinds = st.lists(
        st.tuples(
            st.sampled_from((-5, 0, 0, 7)), st.sampled_from((0.0, 0.0, 0.0, 6.0)), st.sampled_from((0, 0, 3))
        ),
        min_size=1,
        max_size=4,
    )

    @rule(queue=queues, kinds=kinds, all_or_nothing=st.booleans(), again=places)
    def add(
        self, queue: str, kinds: list[tuple[int, float, int]], all_or_nothing: bool, again: list[int]
    ) -> None:
        known = [spec for spec in self.specs if spec.id in self.ids(again[:1])]
        known = [
            spec for spec in known if spec.id in self.model.jobs and self.model.jobs[spec.id].queue == queue
        ]
        self.ask("add", self.queues[queue], [*known, *self.new_specs(kinds)], all_or_nothing=all_or_nothing)

    @precondition(lambda self: isinstance(self.store, DatabaseStore))
    @rule(queue=queues, kinds=kinds)
    def add_and_roll_back(self, queue: str, kinds: list[tuple[int, float, int]]) -> None:
        before = self.model.copy()
        with transaction.atomic():
            assert self.store.in_transaction()
            self.ask("add", self.queues[queue], self.new_specs(kinds), all_or_nothing=True)
            transaction.set_rollback(True)
        self.model.go_back_to(before)

    @rule(
        pool=pools,
        default=counts,
        mail=counts,
        ended=places,
        how=counts,
        quarantine=st.sampled_from(("alone", "alone", "defer", "skip")),
    )
    def claim(
        self, pool: str, default: int, mail: int, ended: list[int], how: int, quarantine: Quarantine
    ) -> None:
        wants = {name: want for name, want in (("default", default), ("mail", mail)) if want}
        if wants:
            lanes = {name: Lane(want, LEASES[name]) for name, want in wants.items()}
            demand = Demand(pool, lanes, quarantine=quarantine)
            claimed = self.ask("claim", demand, self.outcomes(ended, how))
            self.claims += [(pool, claim) for claim in claimed.claims]

    @rule(ended=places, how=counts)
    def settle(self, ended: list[int], how: int) -> None:
        self.ask("settle", self.outcomes(ended, how))

    @rule(place=st.integers(0, 30), how=counts)
    def settle_late(self, place: int, how: int) -> None:
        """An attempt ends whose job has started again since."""
        if superseded := self.superseded():
            _, claim = superseded[place % len(superseded)]
            self.ask("settle", [cancelled(claim)])

    @rule(place=st.integers(0, 30))
    def renew_late(self, place: int) -> None:
        """A pool renews an attempt whose job has started again since."""
        if superseded := self.superseded():
            pool, claim = superseded[place % len(superseded)]
            self.ask("renew", pool, {claim.id: claim.attempt}, 10.0)

    @rule(pool=pools, chosen=places)
    def renew(self, pool: str, chosen: list[int]) -> None:
        held = {claim.id: claim.attempt for owner, claim in self.chosen_claims(chosen) if owner == pool}
        self.ask("renew", pool, held, 10.0)

    @rule(pool=pools, chosen=places, later=st.sampled_from((None, None, -1.0, 0.0, 6.0)))
    def release(self, pool: str, chosen: list[int], later: float | None) -> None:
        until = None if later is None else self.clock.now + later
        attempts = [claim for _, claim in self.chosen_claims(chosen)]
        self.ask("settle", [released(a, "its pool stopped", pool=pool, until=until) for a in attempts])

    @rule(pool=pools, chosen=places)
    def reconcile(self, pool: str, chosen: list[int]) -> None:
        self.ask("reconcile", pool, {claim.id for _, claim in self.chosen_claims(chosen)})

    @rule(
        outage=st.sampled_from((None, None, (-8.0, -1.0))), max_lease_left=st.sampled_from((None, 15.0, 5.0))
    )
    def rescue(self, outage: tuple[float, float] | None, max_lease_left: float | None) -> None:
        if outage is not None:
            outage = self.clock.now + outage[0], self.clock.now + outage[1]
        self.ask("rescue", outage=outage, max_lease_left=max_lease_left)

    @rule(chosen=places)
    def cancel(self, chosen: list[int]) -> None:
        self.ask("cancel", self.ids(chosen))

    @rule(pool=st.sampled_from((*POOLS, "")))
    def sync(self, pool: str) -> None:
        self.ask("sync", pool, QUEUES)

    @rule(chosen=places)
    def retry(self, chosen: list[int]) -> None:
        self.ask("retry", self.ids(chosen))

    @rule(queue=queues, order=st.sampled_from(("priority", "fifo", "lifo")), chosen=places)
    def come_back_into_another_order(self, queue: str, order: str, chosen: list[int]) -> None:
        there = [job.id for job in self.model.jobs.values() if job.queue == queue]
        ids = list({there[place % len(there)]: None for place in chosen if there})
        self.ask("cancel", ids)
        self.ask_tune(queue, {"order": order})
        self.ask("retry", ids)

    @rule(
        queue=queues,
        change=st.one_of(
            st.fixed_dictionaries({"maxsize": st.sampled_from((1, 2, 5, None))}),
            st.fixed_dictionaries({"order": st.sampled_from(("priority", "fifo", "lifo", None))}),
            st.fixed_dictionaries({"workers": st.sampled_from((1, 4, None))}),
            st.fixed_dictionaries({"paused": st.booleans()}),
        ),
    )
    def tune(self, queue: str, change: dict[str, Any]) -> None:
        self.ask_tune(queue, change)

    @rule(seconds=st.sampled_from((0.5, 3.0, 6.0, 11.0)))
    def let_time_pass(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(ok=st.sampled_from((5.0, 1000.0)), other=st.sampled_from((5.0, 1000.0)))
    def prune(self, ok: float, other: float) -> None:
        self.ask("prune", older_than=ok, failed_older_than=other)

    # What can be seen

    @rule(
        queue=st.sampled_from((None, *QUEUES)),
        status=st.sampled_from((None, *JobStatus)),
        order=st.sampled_from((None, "newest", "oldest", "ended")),
        payload=st.booleans(),
        offset=counts,
        limit=counts,
    )
    def query(
        self,
        queue: str | None,
        status: JobStatus | None,
        order: JobOrder | None,
        payload: bool,
        offset: int,
        limit: int,
    ) -> None:
        """Every query is a part of all there is; some of what it leaves open differs from store to store."""
        query = JobQuery(queue=queue, status=status, order=order, payload=payload, limit=ALL)
        found = list(self.store.query(query))
        there = [r for r in self.store.query(JobQuery(limit=ALL)) if matches(query, r)]
        if not payload:
            there = [r._replace(arguments="", result=None, error=None, history=()) for r in there]
        assert sorted(found) == sorted(there)
        if query.sorting != "claim":
            times = [r.ended_at if order == "ended" else r.pushed_at for r in found]
            assert times == sorted(times, reverse=order != "oldest")
        part = replace(query, offset=offset, limit=limit)
        assert len(self.store.query(part)) == self.store.count(part) == len(found[offset : offset + limit])

    @rule(queue=queues)
    def look(self, queue: str) -> None:
        now = self.clock.now
        stats = self.store.stats([self.queues[queue]])[queue]
        waiting, live = self.model.waiting(queue, now), self.model.live(queue)
        assert stats.waiting == len(waiting)
        assert stats.running == len(self.model.running(queue))
        assert (stats.workers, stats.maxsize, stats.order) == (live.workers, live.maxsize, live.order)
        assert stats.oldest_wait == max((now - job.eligible_at for job in waiting), default=0.0)


def matches(query: JobQuery, record: JobRecord) -> bool:
    """Whether a query asks for a job."""
    return (
        query.queue in (None, record.queue)
        and query.status in (None, record.status)
        and (query.order != "ended" or record.status in ENDED)
    )


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every push counts: from an earlier count PostgreSQL answers one with the most that can wait instead."""
    monkeypatch.setattr("jobify_django.stores.database.ticket.GOOD_FOR", 0.0)
    monkeypatch.setattr("jobify_django.stores.database.ticket.SHARE_OF_COUNTING", math.inf)


@pytest.mark.usefixtures("counting")
@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda clock: MemoryStore("memory", clock.runtime()), id="memory"),
        pytest.param(
            lambda clock: DatabaseStore("database", clock.runtime()),
            id="database",
            marks=pytest.mark.django_db(transaction=True),
        ),
    ],
)
def test_a_store_does_what_the_model_does(make: Callable[[FakeClock], Store], settings: Any) -> None:
    settings.JOBIFY = {"QUEUES": {"default": {}, "mail": {"ORDER": "fifo"}}}

    def make_store(clock: FakeClock) -> Store:
        store = make(clock)
        if isinstance(store, DatabaseStore):
            with connection.cursor() as cursor:
                for table in ("job", "queue", "queuechange", "pool"):
                    cursor.execute(f"DELETE FROM jobify_{table}")
        return store

    Machine.make_store = staticmethod(make_store)  # type: ignore[assignment]
    Machine.broke.clear()
    plan = hypothesis_settings(
        max_examples=LONG or 200,
        stateful_step_count=60 if LONG else 40,
        derandomize=not LONG,
        phases=PHASES,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    try:
        run_state_machine_as_test(Machine, settings=plan)  # type: ignore[no-untyped-call]
    except Flaky as flaky:
        # What breaks only one run of two is told all the same: Hypothesis would tell of itself alone.
        raise flaky from next(iter(Machine.broke), None)
