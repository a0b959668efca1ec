"""One turn of a pool: collect what ended, say what is wanted, exchange the two with the store, start what it
gave, let go of what it has stored, and report that."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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


@dataclass(eq=False)
class Turn:
    """What a pool does again and again, each time in one exchange with its store."""

    pool: str
    store: Store
    queues: Mapping[str, QueueSettings]
    workers: Workers
    completer: Completer
    quarantine: QuarantineRule
    budget: Budget
    dryness: Dryness
    quiet: bool
    """Report no job that ends well."""

    def __post_init__(self) -> None:
        # Not for longer than leases can wait: jobs of a lost reply are handed back by the next turn only.
        longest = min(queue.lease for queue in self.queues.values()) / 3
        self._backoff = Backoff(self.store.alias, longest, self.store.runtime)
        self._unsure = False

    def run(self, phase: Phase) -> float:
        """Do one turn, and return the seconds after which the next is due although nothing rings."""
        asked = self.dryness.asked
        outcomes = self.completer.take()
        demand = self._demand(phase)
        try:
            claimed = self._exchange(demand, outcomes)
        except BaseException as error:
            self.completer.put_back(outcomes)
            if not isinstance(error, Exception):
                raise
            return self._back_off(error)
        if self._backoff.pause:
            self._backoff.over()
        self.workers.apply(claimed.states)
        if claimed.claims:
            self.budget.spend(self.workers.start(claimed.claims))
        self._unsure = False
        if outcomes:
            self._settle(outcomes, claimed.refused)
        if claimed.blocked:
            self.quarantine.note_blocked()
        if asked:
            self._note_dry(asked, demand, claimed)
        return self._pause(claimed)

    def end(self) -> None:
        """Store what ended, and claim nothing: the pool stops, and this is its last exchange."""
        outcomes = self.completer.take()
        self._settle(outcomes, self.store.settle(outcomes))
        self._reconcile()

    def _demand(self, phase: Phase) -> Demand:
        # After a job in quarantine has started nothing else may, for a while.
        wants = {} if phase > Phase.CLAIMING or self.quarantine.left else self._wants()
        lanes = {
            name: Lane(want, self.queues[name].lease, self.queues[name].max_running)
            for name, want in wants.items()
        }
        return Demand(self.pool, lanes, self.workers.unknown, self.quarantine.choice)

    def _wants(self) -> Mapping[str, int]:
        wants = {name: idle for name, slots in self.workers.slots.items() if (idle := slots.idle)}
        room = self.workers.threads.room
        return self.budget.limit(wants if room is None else at_most(wants, room, self.store.runtime))

    def _exchange(self, demand: Demand, outcomes: Sequence[Outcome]) -> Claimed:
        self._reconcile()
        # Until what is claimed now is held: it may be committed although its reply is lost.
        self._unsure = True
        if demand.lanes:
            return self.store.claim(demand, outcomes)
        return Claimed(refused=self.store.settle(outcomes)) if outcomes else Claimed()

    def _reconcile(self) -> None:
        """Hand back what was perhaps claimed without the pool's knowledge."""
        if self._unsure:
            self.store.reconcile(self.pool, self.completer.held())
            self._unsure = False

    def _back_off(self, error: Exception) -> float:
        pause = self._backoff.fail(error, len(self.completer.held()))
        with contextlib.suppress(Exception):
            self.store.close()
        return pause

    def _settle(self, outcomes: Sequence[Outcome], refused: Sequence[Outcome]) -> None:
        """Let go of jobs whose end is stored, or was refused, and report it."""
        why = refusals(self.store, [one for one in refused if one.status.ended]) if refused else {}
        everything = bool(refused) or (not self.quiet and heard())
        for outcome in outcomes:
            running = self.completer.settle(outcome.id, outcome.attempt)
            if running is not None and (everything or outcome.status is not SUCCESSFUL):
                report(outcome, running, why.get((outcome.id, outcome.attempt), ""))

    def _note_dry(self, asked: int, demand: Demand, claimed: Claimed) -> None:
        idle = self.completer.empty
        # A job in quarantine may wait although nothing was found.
        busy = claimed.claims or claimed.blocked or demand.quarantine == "pass" or not idle
        self.dryness.note(asked, None if busy else demand.lanes, spent=self.budget.spent and idle)

    def _pause(self, claimed: Claimed) -> float:
        # Full hands mean there may be more, but an idle worker rings when there is one.
        pause = POLL if claimed.next_due is None else min(POLL, claimed.next_due)
        return min(pause, LOOK_AGAIN if claimed.blocked else self.quarantine.left or pause)
