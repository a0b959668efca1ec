"""Leases and fences: ``renew``, ``settle``, ``reconcile``, ``rescue``, and writes that come too late."""

from __future__ import annotations

from typing import Any

from jobify_django.job import CANCELLED, DELAYED, FAILED, RUNNING, SUCCESSFUL, WAITING, Claim, JobError
from jobify_django.outcome import CRASH_LIMIT, released
from jobify_django.stores.value import Lane
from jobify_django.testing.conformance.ground import (
    LEASE,
    NOBODY,
    OTHER,
    POOL,
    Ground,
    a_pool,
    a_queue,
    outcome,
)


class Leasing(Ground):
    """Who holds a job, for how long, and what becomes of it then."""

    def lost(self) -> tuple[Claim, Claim]:
        """Let a pool lose its job to another; return the stale and the newer claim."""
        stale = self.start()
        self.crash()
        (newer,) = self.claim(1, pool=OTHER)
        assert newer.id == stale.id
        return stale, newer

    # renew

    def test_renewing_extends_the_lease(self) -> None:
        claim = self.start()
        self.clock.advance(20)

        renewed = self.renew(claim)

        assert list(renewed.lost) == list(renewed.cancel_requested) == []
        assert self.record(claim.id).lease_until == self.clock.now + LEASE
        self.clock.advance(20)
        assert list(self.store.rescue()) == []

    def test_renewing_tells_what_is_lost_and_who_is_asked_to_cancel(self) -> None:
        kept, ended, asked = self.start(), self.start(), self.start()
        self.store.settle([outcome(ended)])
        self.store.cancel([asked.id])

        renewed = self.renew(kept, ended, asked, kept._replace(id=NOBODY))

        assert set(renewed.lost) == {ended.id, NOBODY}
        assert list(renewed.cancel_requested) == [asked.id]

    def test_renewing_nothing_is_no_error(self) -> None:
        renewed = self.renew()

        assert list(renewed.lost) == list(renewed.cancel_requested) == []

    # Fences

    def test_a_stale_finish_is_refused_after_a_rescue(self) -> None:
        stale, newer = self.lost()
        late = outcome(stale, result="1")

        assert list(self.store.settle([late])) == [late]
        assert (self.status(stale.id), self.record(stale.id).attempt) == (RUNNING, newer.attempt)
        assert list(self.store.settle([outcome(newer, result="2")])) == []
        assert self.record(stale.id).result == "2"

    def test_of_two_outcomes_of_one_job_only_that_of_its_newer_attempt_is_stored(self) -> None:
        # As of a pool that lost a job, got it again, and then ended both.
        stale, newer = self.lost()
        late, right = outcome(stale, result="1"), outcome(newer, result="2")

        assert list(self.store.settle([late, right])) == [late]
        assert self.record(stale.id).result == "2"

    def test_a_stale_outcome_is_refused_while_the_rescued_job_waits(self) -> None:
        stale = self.start()
        self.crash()

        assert len(self.store.settle([outcome(stale)])) == 1
        assert (self.status(stale.id), self.waiting()) == (WAITING, 1)

    def test_a_second_outcome_is_refused(self) -> None:
        claim = self.start()
        self.store.settle([outcome(claim, result="1")])

        assert len(self.store.settle([outcome(claim, FAILED)])) == 1
        assert self.release([claim]) == []
        assert (self.status(claim.id), self.record(claim.id).result) == (SUCCESSFUL, "1")

    def test_a_stale_renewal_is_lost_and_extends_nothing(self) -> None:
        stale, newer = self.lost()
        until = self.record(newer.id).lease_until
        self.clock.advance(5)

        assert list(self.renew(stale).lost) == [stale.id]
        assert self.record(newer.id).lease_until == until

    def test_a_release_is_refused_if_it_is_stale_or_of_another_pool(self) -> None:
        stale, newer = self.lost()

        for claim, pool in ((stale, POOL), (stale, OTHER), (newer, POOL)):
            assert self.release([claim], pool=pool) == []
        assert (self.status(newer.id), self.record(newer.id).pool) == (RUNNING, OTHER)

    # Released

    def test_a_released_job_waits_again_at_its_old_place(self) -> None:
        first, second, third = self.add(0, 0, 0)
        claims = self.claim(2)
        (fourth,) = self.add(0)

        assert set(self.release(claims)) == {first, second}
        assert self.claimed() == [first, second, third, fourth]

    def test_a_released_job_is_not_charged_and_its_attempt_numbers_only_grow(self) -> None:
        claim = self.start()
        for attempt in range(1, CRASH_LIMIT + 2):
            assert claim.attempt == attempt
            self.release([claim])
            (claim,) = self.claim(1)

        assert (self.status(claim.id), self.record(claim.id).crashes) == (RUNNING, 0)

    def test_a_released_job_is_held_by_nobody_and_its_history_tells_why(self) -> None:
        claim = self.start()
        self.release([claim])

        job = self.record(claim.id)

        assert (job.status, job.pool, job.lease_until) == (WAITING, "", None)
        (told,) = job.history
        assert (told.attempt, told.reason, told.at) == (1, "it stopped", self.clock.now)
        assert (told.pool, told.charged) == (POOL, False)

    def test_a_job_released_until_a_moment_is_delayed_until_then(self) -> None:
        first, second = self.add(0, 0)
        claims = self.claim(1)

        assert self.release(claims, "not yet", until=self.clock.now + 20) == [first]

        job = self.record(first)
        assert (job.status, job.eligible_at) == (DELAYED, self.clock.now + 20)
        assert (job.pool, job.lease_until, job.crashes) == ("", None, 0)
        assert [(told.reason, told.charged) for told in job.history] == [("not yet", False)]
        assert self.claimed() == [second]
        self.clock.advance(20)
        assert [(claim.id, claim.attempt) for claim in self.claim()] == [(first, 2)]

    def test_a_moment_that_is_over_is_none_to_wait_for(self) -> None:
        claim = self.start()

        self.release([claim], until=self.clock.now)

        assert (self.status(claim.id), self.waiting()) == (WAITING, 1)

    def test_a_job_released_until_a_moment_takes_no_room_before(self) -> None:
        queue = self.full()
        self.release(self.claim(1), until=self.clock.now + 20)

        self.add(0, queue=queue)
        self.clock.advance(20)

        assert (self.waiting(queue), self.takes(queue=queue)) == (2, 0)

    def test_a_job_may_be_delayed_cancelled_and_retried_again_and_again(self) -> None:
        claim = self.start()
        for _ in range(2):
            self.release([claim], until=self.clock.now + 20)
            assert dict(self.store.cancel([claim.id])) == {claim.id: DELAYED}
            assert list(self.store.retry([claim.id])) == [claim.id]
            (claim,) = self.claim()
            self.release([claim], until=self.clock.now + 30)
            self.clock.advance(29.5)
            assert self.claim() == []
            self.clock.advance(0.5)
            (claim,) = self.claim()

        assert (self.waiting(), self.stats().delayed) == (0, 0)

    def test_outcomes_of_all_kinds_are_stored_together(self) -> None:
        self.add(*[0] * 5)
        done, failed, back, later, stale = self.claim()
        self.release([stale])
        (newer,) = self.claim()
        given = [
            outcome(done, result="1"),
            released(back, "it stopped"),
            outcome(stale),
            outcome(failed, FAILED),
            released(later, "not yet", until=self.clock.now + 20),
            released(stale, "too late"),
        ]

        assert list(self.store.settle(given)) == [given[2], given[5]]

        statuses = [self.status(claim.id) for claim in (done, failed, back, later, newer)]
        assert statuses == [SUCCESSFUL, FAILED, WAITING, DELAYED, RUNNING]
        assert (self.waiting(), self.claimed(pool=OTHER)) == (1, [back.id])

    def test_a_claim_stores_outcomes_of_all_kinds(self) -> None:
        self.add(0, 0)
        back, done = self.claim()

        assert self.claimed(2, outcomes=[released(back, "it stopped"), outcome(done)]) == [back.id]

    # Flags and extra values

    def test_a_job_keeps_its_flags_and_extra_values(self) -> None:
        given = [(0, None), (5, '{"key":"v\u00e4lue"}')]
        ids = [id for flags, extra in given for id in self.add(0, flags=flags, extra=extra)]

        assert [(claim.flags, claim.extra) for claim in self.claim()] == given
        assert [(job.flags, job.extra) for job in map(self.record, ids)] == given

    def test_a_flagged_job_ends_as_any_other(self) -> None:
        self.add(0, 0, 0, flags=1)
        done, failed, stale = self.claim()
        error = JobError("builtins.ValueError", "no")
        self.release([stale])
        given = [outcome(done, result="1"), outcome(failed, FAILED, error=error), outcome(stale)]

        assert list(self.store.settle(given)) == [given[2]]

        job = self.record(done.id)
        assert (job.status, job.result, job.error) == (SUCCESSFUL, "1", None)
        assert (job.ended_at, job.lease_until, job.history) == (self.clock.now, None, ())
        job = self.record(failed.id)
        assert (job.status, job.result, job.error) == (FAILED, None, error)

    # reconcile

    def test_running_jobs_a_pool_does_not_know_of_are_handed_back_uncharged(self) -> None:
        known, unknown_tasks, others = self.start(), self.start(), self.start(pool=OTHER)

        assert list(self.store.reconcile(POOL, {known.id})) == [unknown_tasks.id]

        job = self.record(unknown_tasks.id)
        assert (job.status, job.crashes, job.history[0].charged) == (WAITING, 0, False)
        assert self.status(known.id) is self.status(others.id) is RUNNING

    # rescue

    def test_a_job_may_run_for_many_leases_while_it_is_renewed(self) -> None:
        claim = self.start()
        for _ in range(30):
            self.clock.advance(LEASE / 3)
            self.renew(claim)
            assert list(self.store.rescue()) == []

        assert self.record(claim.id).attempt == 1

    def test_leases_that_hold_hide_none_that_ran_out(self) -> None:
        self.renew(*(self.start() for _ in range(4)), lease=10 * LEASE)
        dead = self.start(pool=OTHER)

        assert [rescued.id for rescued in self.crash(limit=2)] == [dead.id]

    def test_a_lease_outlives_the_memory_of_its_pool(self) -> None:
        self.store.heartbeat(a_pool(POOL))
        claim = self.start()
        self.store.retire(POOL)

        for passed in (0, LEASE - 1):
            self.clock.advance(passed)
            assert list(self.store.rescue()) == []
        assert self.status(claim.id) is RUNNING
        assert [rescued.id for rescued in self.crash()] == [claim.id]

    def test_a_pool_renews_no_lease_of_another(self) -> None:
        claim = self.start()
        self.clock.advance(LEASE - 1)

        assert list(self.renew(claim, pool=OTHER).lost) == [claim.id]
        self.clock.advance(2)
        assert [rescued.id for rescued in self.store.rescue()] == [claim.id]

    def test_a_job_whose_lease_ran_out_waits_again_and_is_charged_as_its_next_claim_tells(self) -> None:
        first, second = self.add(0, 0)
        self.claim(1)

        (rescued,) = self.crash()

        assert (rescued.id, rescued.queue, rescued.task) == (first, "default", "app.tasks.a")
        assert (rescued.attempt, rescued.pool, rescued.status) == (1, POOL, WAITING)
        assert self.record(first).crashes == 1
        told = self.record(first).history[-1]
        assert (told.attempt, told.pool, told.charged, told.at) == (1, POOL, True, self.clock.now)
        claims = self.claim() + self.claim()
        assert [(claim.id, claim.crashes) for claim in claims] == [(first, 1), (second, 0)]

    def test_a_job_that_crashed_its_workers_too_often_is_failed(self) -> None:
        claim = self.start()
        for crashes in range(1, CRASH_LIMIT):
            self.crash()
            assert self.record(claim.id).crashes == crashes
            assert self.claimed(1) == [claim.id]

        (rescued,) = self.crash()

        job = self.record(claim.id)
        assert rescued.status is job.status is FAILED
        assert (job.crashes, job.ended_at, len(job.history)) == (CRASH_LIMIT, self.clock.now, CRASH_LIMIT)
        assert job.error is not None
        assert str(CRASH_LIMIT) in job.error.message
        assert self.claim() == []

    def test_releases_between_crashes_do_not_count(self) -> None:
        claim = self.start()
        self.crash()
        self.release(self.claim(1))
        self.claim(1)
        self.crash()

        assert (self.record(claim.id).crashes, self.status(claim.id)) == (2, WAITING)

    def test_a_rescue_takes_no_more_than_its_limit(self) -> None:
        self.add(*[0] * 5)
        self.claim(5)
        self.clock.advance(LEASE + 1)

        assert [len(self.store.rescue(limit=3)) for _ in range(3)] == [3, 2, 0]

    def test_a_job_that_was_asked_to_end_is_cancelled_when_it_is_handed_back(self) -> None:
        for until in (None, self.clock.now + 20):
            claim = self.start()
            self.store.cancel([claim.id])

            assert self.release([claim], "stopping", until=until) == [claim.id]
            assert self.status(claim.id) is CANCELLED
            assert self.claimed() == []

    def test_a_job_that_was_asked_to_end_is_cancelled_when_it_is_rescued(self) -> None:
        for store_was_away in (False, True):
            claim = self.start()
            self.store.cancel([claim.id])
            began = self.clock.now

            (rescued,) = self.crash(outage=(began, began + LEASE + 1) if store_was_away else None)

            assert rescued.status is self.status(claim.id) is CANCELLED
            assert self.waiting() == 0

    def test_of_jobs_that_come_back_together_each_is_told_its_own(self) -> None:
        doomed, handed = self.start(), self.start()
        reason = """it's "50%" done: why? ] \\ naïve"""
        self.release([handed], reason)
        (handed,) = self.claim(1)
        asked, other = self.start(), self.start(pool=OTHER)
        self.store.cancel([asked.id])
        for _ in range(CRASH_LIMIT - 1):
            self.renew(handed, asked, lease=10 * LEASE)
            self.renew(other, pool=OTHER, lease=10 * LEASE)
            self.crash()
            (doomed,) = self.claim(1)
        self.clock.advance(10 * LEASE + 1)

        rescued = {one.id: one.status for one in self.store.rescue()}

        assert rescued == {doomed.id: FAILED, handed.id: WAITING, asked.id: CANCELLED, other.id: WAITING}
        assert self.waiting() == 2
        told = {
            id: [(one.attempt, one.pool, one.charged) for one in self.record(id).history] for id in rescued
        }
        assert told == {
            doomed.id: [(attempt, POOL, True) for attempt in range(1, CRASH_LIMIT + 1)],
            handed.id: [(1, POOL, False), (2, POOL, True)],
            asked.id: [(1, POOL, True)],
            other.id: [(1, OTHER, True)],
        }
        assert self.record(handed.id).history[0].reason == reason
        crashes = {id: self.record(id).crashes for id in rescued}
        assert crashes == {**dict.fromkeys(rescued, 1), doomed.id: CRASH_LIMIT}

    # Leases that ran out in an outage, and those that a wrong clock wrote

    def test_a_lease_that_ran_out_while_the_store_was_away_is_no_crash(self) -> None:
        claim = self.start()
        for attempt in range(1, CRASH_LIMIT + 2):
            until = self.clock.now + LEASE

            (rescued,) = self.crash(outage=(until - 1, until + 1))

            assert (rescued.id, rescued.attempt, rescued.status) == (claim.id, attempt, WAITING)
            assert self.record(claim.id).crashes == 0
            told = self.record(claim.id).history[-1]
            assert (told.attempt, told.pool, told.charged) == (attempt, POOL, False)
            assert self.claimed(1) == [claim.id]

    def test_a_lease_that_ran_out_before_or_after_the_store_was_away_is_a_crash(self) -> None:
        began = self.clock.now + LEASE
        ids = []
        for _before_during_after in range(3):
            ids.append(self.start().id)
            self.clock.advance(2)

        rescued = self.crash(outage=(began, began + 2))

        assert {one.id for one in rescued} == set(ids)
        assert [self.record(id).crashes for id in ids] == [1, 0, 1]
        assert self.waiting() == 3

    def test_a_lease_from_the_future_runs_out_all_the_same(self) -> None:
        day = 86_400.0
        self.clock.advance(day)
        claim = self.start()
        self.store.heartbeat(a_pool(POOL))
        self.clock.advance(-day)

        assert list(self.store.rescue(max_lease_left=2 * LEASE)) == []
        assert self.status(claim.id) is RUNNING
        self.clock.advance(2 * LEASE + 1)
        assert [one.id for one in self.store.rescue(max_lease_left=2 * LEASE)] == [claim.id]

    def test_a_clock_that_is_set_back_takes_no_job_from_a_pool_that_lives(self) -> None:
        claim = self.start()
        self.clock.advance(-3600)
        for _ in range(10):
            assert list(self.store.rescue(max_lease_left=2 * LEASE)) == []
            self.clock.advance(LEASE / 3)
            self.renew(claim)

        assert self.record(claim.id).lease_until == self.clock.now + LEASE
        assert self.status(claim.id) is RUNNING

    def test_a_pool_that_lives_may_have_a_longer_lease_than_others_know_of(self) -> None:
        (id,) = self.add(0)
        self.claim(1, lease=100 * LEASE)
        self.store.heartbeat(a_pool(POOL))

        assert list(self.store.rescue(max_lease_left=2 * LEASE)) == []
        assert self.record(id).lease_until == self.clock.now + 100 * LEASE

    # Quarantine

    def quarantined(self, *priorities: int, **values: Any) -> list[str]:
        """Add jobs, claim them, and let their pool die; return their ids."""
        ids = self.add(*priorities, **values)
        self.claim(len(ids), queue=values.get("queue"), quarantine="skip")
        self.crash()
        return ids

    def asked(self, *queues: str, **choices: Any) -> tuple[list[str], bool]:
        """Ask for four jobs of each queue; return the ids of those claimed, and whether the claim was
        deferred."""
        claimed = self.ask(dict.fromkeys(queues or ("default",), 4), **choices)
        return [claim.id for claim in claimed.claims], claimed.deferred

    def test_jobs_that_ran_when_their_pool_died_are_claimed_one_at_a_time(self) -> None:
        first, second = self.quarantined(0, 0)
        fresh = self.add(0, 0)

        assert self.claimed(4) == [first]
        assert self.claimed(4, pool=OTHER) == [second]
        assert self.claimed(4) == fresh

    def test_one_in_quarantine_that_is_not_first_in_line_is_passed_over(self) -> None:
        (alone,) = self.quarantined(0)

        for choice in ("alone", "defer"):
            ids = self.add(5, -5)
            assert self.asked(quarantine=choice) == (ids, False)
        assert self.status(alone) is WAITING

    def test_one_in_quarantine_that_is_to_wait_holds_up_all_that_is_asked_for(self) -> None:
        mail = a_queue("mail")
        self.add(0, queue=mail)
        quarantined = self.quarantined(0)
        self.add(0)

        claimed = self.ask({"mail": 4, "default": 4}, quarantine="defer")

        assert (list(claimed.claims), claimed.deferred) == ([], True)
        assert set(claimed.states) == {"mail", "default"}
        assert self.waiting(mail) == 1
        assert self.asked("mail", "default", quarantine="alone") == (quarantined, False)

    def test_outcomes_are_stored_although_one_in_quarantine_holds_up_the_claim(self) -> None:
        claim = self.start()
        self.renew(claim, lease=10 * LEASE)
        self.quarantined(0)

        assert self.ask({"default": 4}, outcomes=[outcome(claim)], quarantine="defer").deferred
        assert self.status(claim.id) is SUCCESSFUL

    def test_those_in_quarantine_may_be_passed_over(self) -> None:
        quarantined = self.quarantined(0, 0)
        fresh = self.add(0, 0)

        assert self.asked(quarantine="skip") == (fresh, False)
        assert [self.status(id) for id in quarantined] == [WAITING] * 2

    def test_one_in_quarantine_that_could_not_start_holds_up_nothing(self) -> None:
        strange, paused, full, busy = "app.tasks.new", a_queue("paused"), a_queue("full"), a_queue("busy")
        self.quarantined(9, task=strange)
        for queue in (paused, full, busy):
            self.quarantined(0, queue=queue)
        self.tune(paused, paused=True)
        self.add(0, 0, queue=full)
        self.claim(1, queue=full, quarantine="skip")
        (fresh,) = self.add(0)
        lanes: dict[str, int | Lane] = {"paused": 4, "busy": 0, "default": 4}
        lanes["full"] = Lane(4, LEASE, max_running=1)

        claimed = self.ask(lanes, unknown_tasks={strange}, quarantine="defer")

        assert ([claim.id for claim in claimed.claims], claimed.deferred) == ([fresh], False)

    def test_one_in_quarantine_behind_one_of_an_unknown_task_is_first_in_line(self) -> None:
        self.quarantined(9, task="app.tasks.new")
        known = self.quarantined(0)
        self.add(0)

        assert self.ask({"default": 4}, unknown_tasks={"app.tasks.new"}, quarantine="defer").deferred
        assert self.claimed(4, unknown_tasks={"app.tasks.new"}) == known

    def test_a_due_job_that_goes_first_goes_before_one_in_quarantine(self) -> None:
        due = self.add(5, delay=LEASE)
        alone = self.quarantined(0)

        assert self.claimed(4) == due
        assert self.claimed(4) == alone

    def test_a_job_retried_by_hand_is_not_in_quarantine(self) -> None:
        (id,) = self.quarantined(0)
        (fresh,) = self.add(0)
        self.store.cancel([id])
        self.store.retry([id])

        assert self.claimed(4) == [id, fresh]

    def test_one_in_quarantine_that_was_handed_back_is_one_still(self) -> None:
        quarantined = self.quarantined(0)
        claims = self.claim(4)
        self.add(0)
        self.release(claims)

        assert self.claimed(4) == quarantined
