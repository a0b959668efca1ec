"""One turn of a pool: collect what ended, say what is wanted, exchange the two with the store, start what it
gave, let go of what it has stored, and report that."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence

from jobify_django.conf import QueueSettings
from jobify_django.job import SUCCESSFUL
from jobify_django.outcome import Outcome
from jobify_django.pool.backoff import Backoff
from jobify_django.pool.budget import Budget, at_most
from jobify_django.pool.completer import Completer
from jobify_django.pool.dryness import Dryness
from jobify_django.pool.phase import Phase
from jobify_django.pool.quarantine import LOOK_AGAIN, QuarantineRule
from jobify_django.pool.refusal import refusals
from jobify_django.pool.report import heard, report
from jobify_django.pool.workers import Workers
from jobify_django.stores.base import Store
from jobify_django.stores.value import Claimed, Demand, Lane

POLL = 1.0
"""Seconds after which a pool looks for jobs although nothing hinted at any."""


class Turn:
    """What a pool does again and again, each time in one exchange with its store.

    Args:
        pool: the pool's id.
        store: its store.
        queues: its queues.
        workers: they run what is claimed.
        completer: what the pool holds, and how it ended.
        quarantine: says when a job in quarantine may start.
        budget: says how many jobs may still be claimed.
        dryness: told what was found, if somebody asks for it.
        quiet: report no job that ends well.
    """

    def __init__(
        self,
        pool: str,
        store: Store,
        queues: Mapping[str, QueueSettings],
        *,
        workers: Workers,
        completer: Completer,
        quarantine: QuarantineRule,
        budget: Budget,
        dryness: Dryness,
        quiet: bool,
    ) -> None:
        self._pool = pool
        self._store = store
        self._queues = queues
        self._workers = workers
        self._completer = completer
        self._quarantine = quarantine
        self._budget = budget
        self._dryness = dryness
        self._quiet = quiet
        # Not for longer than leases can wait: jobs of a lost reply are handed back by the next turn only.
        self._backoff = Backoff(store.alias, min(queue.lease for queue in queues.values()) / 3)
        self._unsure = False

    def run(self, phase: Phase) -> float:
        """Do one turn, and return the seconds after which the next is due although nothing rings."""
        asked = self._dryness.asked
        outcomes = self._completer.take()
        demand = self._demand(phase)
        try:
            claimed = self._exchange(demand, outcomes)
        except BaseException as error:
            self._completer.put_back(outcomes)
            if not isinstance(error, Exception):
                raise
            return self._back_off(error)
        self._backoff.over()
        self._workers.apply(claimed.states)
        self._budget.spend(self._workers.start(claimed.claims))
        self._unsure = False
        self._settle(outcomes, claimed.refused)
        self._quarantine.note(claimed)
        if asked:
            self._note_dry(asked, demand, claimed)
        return self._pause(claimed)

    def end(self) -> None:
        """Store what ended, and claim nothing: the pool stops, and this is its last exchange."""
        outcomes = self._completer.take()
        self._settle(outcomes, self._store.settle(outcomes))
        self._reconcile()

    def _demand(self, phase: Phase) -> Demand:
        # After a job in quarantine has started nothing else may, for a while.
        wants = {} if phase > Phase.CLAIMING or self._quarantine.left else self._wants()
        lanes = {
            name: Lane(want, self._queues[name].lease, self._queues[name].max_running)
            for name, want in wants.items()
        }
        return Demand(self._pool, lanes, self._workers.unknown, self._quarantine.choice)

    def _wants(self) -> Mapping[str, int]:
        wants: Mapping[str, int] = {n: slots.idle for n, slots in self._workers.slots.items() if slots.idle}
        room = self._workers.threads.room
        if room is not None:
            wants = at_most(wants, room)
        return self._budget.limit(wants)

    def _exchange(self, demand: Demand, outcomes: Sequence[Outcome]) -> Claimed:
        self._reconcile()
        # Until what is claimed now is held: it may be committed although its reply is lost.
        self._unsure = True
        if demand.lanes:
            return self._store.claim(demand, outcomes)
        return Claimed(refused=self._store.settle(outcomes)) if outcomes else Claimed()

    def _reconcile(self) -> None:
        """Hand back what was perhaps claimed without the pool's knowledge."""
        if self._unsure:
            self._store.reconcile(self._pool, self._completer.held())
            self._unsure = False

    def _back_off(self, error: Exception) -> float:
        pause = self._backoff.fail(error, len(self._completer.held()))
        with contextlib.suppress(Exception):
            self._store.close()
        return pause

    def _settle(self, outcomes: Sequence[Outcome], refused: Sequence[Outcome]) -> None:
        """Let go of jobs whose end is stored, or was refused, and report it."""
        why = refusals(self._store, [outcome for outcome in refused if outcome.status.ended])
        everything = bool(refused) or (heard() and not self._quiet)
        for outcome in outcomes:
            running = self._completer.settle(outcome.id, outcome.attempt)
            if running is not None and (everything or outcome.status is not SUCCESSFUL):
                report(outcome, running, why.get((outcome.id, outcome.attempt), ""))

    def _note_dry(self, asked: int, demand: Demand, claimed: Claimed) -> None:
        idle = self._completer.empty
        # A job in quarantine may wait although nothing was found.
        busy = claimed.claims or claimed.blocked or demand.quarantine == "pass" or not idle
        self._dryness.note(asked, None if busy else demand.lanes, spent=self._budget.spent and idle)

    def _pause(self, claimed: Claimed) -> float:
        # Full hands mean there may be more, but an idle worker rings when there is one.
        pause = POLL if claimed.next_due is None else min(POLL, claimed.next_due)
        return min(pause, LOOK_AGAIN if claimed.blocked else self._quarantine.left or pause)
