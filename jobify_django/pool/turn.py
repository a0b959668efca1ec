"""One turn of a pool's loop.

In one call to its store the pool says how jobs ended and how many more it wants. Then it starts the jobs that
it got, and forgets and reports those whose end is stored.
"""

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
from jobify_django.pool.idle_check import IdleCheck
from jobify_django.pool.phase import Phase
from jobify_django.pool.quarantine import CHECK_AGAIN, QuarantineRule
from jobify_django.pool.refusal import refusals
from jobify_django.pool.report import report, reports_successes
from jobify_django.pool.workers import Workers
from jobify_django.stores.base import Store
from jobify_django.stores.value import Claimed, Demand, Lane

POLL = 1.0
"""Seconds after which a pool asks its store for jobs although no notification came."""

POLL_WHILE_HEARING = 5.0
"""The same where nothing waits, and the store is known to notice what others change: then the look is for a
notification that was lost, as by a process that was killed between its commit and its word."""


@dataclass(eq=False)
class Turn:
    """What a pool does again and again, usually with one call to its store.

    ``completer`` keeps the jobs that the pool holds (it has claimed them, and their end is not stored yet),
    and the outcomes to store.
    """

    pool: str
    store: Store
    queues: Mapping[str, QueueSettings]
    workers: Workers
    completer: Completer
    quarantine: QuarantineRule
    budget: Budget
    idle_check: IdleCheck
    quiet: bool
    """Whether jobs that end well are not reported, unless another outcome of the turn was refused."""

    def __post_init__(self) -> None:
        # A call to the store that fails may have claimed jobs all the same. Only the next turn releases them,
        # so it comes within a third of the shortest lease.
        longest_pause = min(queue.lease for queue in self.queues.values()) / 3
        self._backoff = Backoff(self.store.alias, longest_pause, self.store.runtime)
        self._reply_may_be_lost = False
        # What was wanted last, and the lanes for it: under an even load it is the same from turn to turn.
        self._wanted: Mapping[str, int] = {}
        self._lanes: Mapping[str, Lane] = {}

    def run(self, phase: Phase, *, expected: bool = True) -> float:
        """Do one turn, and return the seconds until the next one, if nothing wakes the loop before.

        Args:
            phase: what the pool does.
            expected: whether there is probably something to claim.
        """
        # How many requests there were to know when the pool has run all it can; 0: nobody waits for that.
        requests = self.idle_check.requests
        outcomes = self.completer.take()
        demand = self._demand(phase, expected=expected)
        # The claimed jobs start before anybody is notified of room, or of how others ended.
        with self.store.notifying_last():
            try:
                claimed = self._exchange(demand, outcomes)
            except BaseException as error:
                self.completer.put_back(outcomes)
                if not isinstance(error, Exception):
                    raise
                return self._back_off(error)
            if self._backoff.pause:
                self._backoff.recovered()
            self.workers.apply(claimed.states)
            at_once = not self.store.blocking  # then the jobs may begin, and end, while they are started
            if outcomes and at_once:
                self._forget_and_report(outcomes, claimed.refused)
            if claimed.claims:
                self.budget.spend(self.workers.start(claimed.claims))
            self._reply_may_be_lost = False
        if outcomes and not at_once:
            self._forget_and_report(outcomes, claimed.refused)
        if claimed.deferred:
            self.quarantine.note_deferred()
        if requests:
            self._note_idle(requests, demand, claimed)
        return self._pause(claimed, awaited=bool(requests))

    def end(self) -> None:
        """Store the outcomes, and claim nothing: the pool stops, and this is its last exchange."""
        outcomes = self.completer.take()
        refused = self.store.settle(outcomes)
        self._forget_and_report(outcomes, refused)
        self._reconcile()

    def _demand(self, phase: Phase, *, expected: bool) -> Demand:
        # ``seconds_alone`` is how many seconds a job in quarantine that has started is still to run alone.
        wants = {} if phase is not Phase.CLAIMING or self.quarantine.seconds_alone else self._wants()
        if wants != self._wanted:
            self._wanted, self._lanes = (
                wants,
                {
                    name: Lane(want, self.queues[name].lease, self.queues[name].max_running)
                    for name, want in wants.items()
                },
            )
        return Demand(self.pool, self._lanes, self.workers.unknown_tasks, self.quarantine.choice, expected)

    def _wants(self) -> Mapping[str, int]:
        """Return how many jobs of each queue may start: one for each idle worker, within the limits."""
        wants = {name: idle for name, slots in self.workers.slots.items() if (idle := slots.idle)}
        startable = self.workers.threads.startable
        return self.budget.limit(
            wants if startable is None else at_most(wants, startable, self.store.runtime)
        )

    def _exchange(self, demand: Demand, outcomes: Sequence[Outcome]) -> Claimed:
        self._reconcile()
        # True until the claimed jobs are held: the claim may be committed although this call fails.
        self._reply_may_be_lost = True
        if demand.lanes:
            return self.store.claim(demand, outcomes)
        return Claimed(refused=self.store.settle(outcomes)) if outcomes else Claimed()

    def _reconcile(self) -> None:
        """Release the jobs that the last claim may have committed although its reply was lost."""
        if self._reply_may_be_lost:
            self.store.reconcile(self.pool, self.completer.held())
            self._reply_may_be_lost = False

    def _back_off(self, error: Exception) -> float:
        pause = self._backoff.fail(error, len(self.completer.held()))
        with contextlib.suppress(Exception):
            self.store.close()  # its next call connects anew
        return pause

    def _forget_and_report(self, outcomes: Sequence[Outcome], refused: Sequence[Outcome]) -> None:
        """Forget the jobs whose outcomes the store has stored or refused, and report how they ended.

        Not all outcomes end a job: a release lets it wait again. The completer does not hold such a job (any
        more) when ``Workers`` hands it back, so there is nothing to forget or to report. Thus only refused
        ends need a reason; an empty reason stands for "stored".
        """
        why = refusals(self.store, [one for one in refused if one.status.ended]) if refused else {}
        report_all = bool(refused) or (not self.quiet and reports_successes())
        for outcome in outcomes:
            running = self.completer.forget(outcome.id, outcome.attempt)
            if running is not None and (report_all or outcome.status is not SUCCESSFUL):
                report(outcome, running, why.get((outcome.id, outcome.attempt), ""))

    def _note_idle(self, requests: int, demand: Demand, claimed: Claimed) -> None:
        """Tell ``idle_check`` which queues had nothing to start, if no job runs and none may still wait."""
        nothing_held = self.completer.empty
        # Of jobs in quarantine some may wait although the claim gave none: if one of them deferred the claim
        # (nothing was started because of it), or if the claim was to pass over all of them.
        busy = claimed.claims or claimed.deferred or demand.quarantine == "skip" or not nothing_held
        self.idle_check.note(
            requests, None if busy else demand.lanes, spent=self.budget.spent and nothing_held
        )

    def _pause(self, claimed: Claimed, *, awaited: bool) -> float:
        # Not shorter when every worker got a job: more may wait, but a worker that becomes idle wakes the
        # loop.
        poll = POLL_WHILE_HEARING if claimed.empty and not awaited and self.store.hears else POLL
        pause = poll if claimed.next_due is None else min(poll, claimed.next_due)
        if claimed.deferred:
            # A job in quarantine is first, and this pool may not start it yet; another pool may before.
            return min(pause, CHECK_AGAIN)
        # After a job in quarantine has started, nothing else may for so many seconds.
        alone = self.quarantine.seconds_alone
        return min(pause, alone) if alone else pause
