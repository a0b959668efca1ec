"""``claim``: who goes first, how many, and as which attempt."""

from __future__ import annotations

from jobify_django.job import RUNNING, SUCCESSFUL, WAITING
from jobify_django.stores.value import Lane
from jobify_django.testing.conformance.ground import ARGUMENTS, LEASE, OTHER, POOL, Ground, a_queue, outcome


class Claiming(Ground):
    """What ``claim`` promises."""

    # Order

    def test_the_highest_priority_goes_first(self) -> None:
        low, high, middle, lowest = self.add(-5, 100, 10, -100)

        assert self.claimed() == [high, middle, low, lowest]

    def test_equal_priorities_go_first_in_first_out_also_of_one_add(self) -> None:
        ids = self.add(*[5] * 20)
        specs = [self.spec(5) for _ in range(20)]
        self.takes(*specs)

        assert self.claimed() == ids + [spec.id for spec in specs]

    def test_fifo_takes_the_oldest_and_lifo_the_newest_and_both_ignore_priority(self) -> None:
        for order, step in (("fifo", 1), ("lifo", -1)):
            queue = a_queue(order, order=order)
            ids = self.add(1, 100, -100, 50, queue=queue)

            assert self.claimed(queue=queue) == ids[::step]

    def test_order_holds_over_many_claims(self) -> None:
        low, high = self.add(1, 9)
        assert self.claimed(1) == [high]
        (higher,) = self.add(5)

        assert self.claimed(1) == [higher]
        assert self.claimed(1) == [low]

    def test_a_due_job_stands_where_it_was_pushed(self) -> None:
        ids = self.add(0, delay=60) + self.add(0)
        self.clock.advance(60)

        assert self.claimed() == ids

    # How many

    def test_a_claim_takes_exactly_what_it_wants(self) -> None:
        self.add(*[0] * 5)

        assert len(self.claim(3)) == 3
        assert self.waiting() == 2
        assert [len(self.claim(want)) for want in (0, 3, 3)] == [0, 2, 0]

    def test_a_claim_takes_of_each_queue_what_it_wants_of_it(self) -> None:
        mail, slow = a_queue("mail"), a_queue("slow")
        for queue in (self.queue, mail, slow):
            self.add(0, 0, 0, queue=queue)

        claims = self.ask({"default": 2, "mail": 1}).claims

        assert sorted(claim.queue for claim in claims) == ["default", "default", "mail"]
        assert self.waiting(slow) == 3

    def test_a_paused_queue_gives_nothing(self) -> None:
        ids = self.add(0, 0)
        self.tune(paused=True)

        assert self.claim() == []
        self.tune(paused=False)
        assert self.claimed() == ids

    def test_a_delayed_job_is_not_claimed_before_it_is_due(self) -> None:
        ids = self.add(0, delay=60)

        assert self.claim() == []
        self.clock.advance(59.5)
        assert self.claim() == []
        self.clock.advance(0.5)
        assert self.claimed() == ids

    def test_a_claim_tells_when_the_next_delayed_job_is_due(self) -> None:
        assert self.ask({"default": 1}).next_due is None
        self.add(0, 0, delay=60)
        self.add(0, delay=20)
        self.clock.advance(5)

        assert self.ask({"default": 1}).next_due == 15

    def test_a_due_job_of_a_paused_queue_lets_no_pool_turn_in_a_circle(self) -> None:
        self.add(0, delay=20)
        self.tune(paused=True)
        self.clock.advance(20)

        claimed = self.ask({"default": 1})

        assert (list(claimed.claims), claimed.next_due) == ([], None)

    # What it gives

    def test_a_claim_carries_the_job_which_runs_in_its_pool_until_its_lease_ends(self) -> None:
        (id,) = self.add(7)
        pushed_at = self.clock.now
        self.clock.advance(3)

        (claim,) = self.claim(1)

        assert (claim.id, claim.attempt, claim.queue, claim.task) == (id, 1, "default", "app.tasks.a")
        assert (claim.arguments, claim.priority) == (ARGUMENTS, 7)
        assert claim.pushed_at == claim.eligible_at == pushed_at
        assert claim.started_at == self.clock.now
        job = self.record(id)
        assert (job.status, job.attempt, job.pool) == (RUNNING, 1, POOL)
        assert (job.started_at, job.lease_until) == (self.clock.now, self.clock.now + LEASE)

    def test_no_job_is_claimed_twice(self) -> None:
        self.add(0, 0, 0)

        assert set(self.claimed(2)).isdisjoint(self.claimed(2, pool=OTHER))

    def test_a_claim_tells_the_live_values_of_the_queues_asked_for(self) -> None:
        self.tune(workers=3)

        states = self.ask({"default": 1, "mail": 0}).states

        assert (states["default"].workers, states["default"].version) == (3, 1)
        assert (states["mail"].workers, states["mail"].version) == (None, 0)

    def test_a_claim_stores_outcomes_even_where_nothing_waits_or_is_wanted(self) -> None:
        first, second, third = self.start(), self.start(), self.start()
        (other,) = self.add(0)

        assert self.claimed(1, outcomes=[outcome(first, result="1")]) == [other]
        assert self.claim(1, outcomes=[outcome(second)]) == []
        assert self.claim(0, outcomes=[outcome(third)]) == []
        assert {self.status(claim.id) for claim in (first, second, third)} == {SUCCESSFUL}

    def test_a_claim_tells_which_outcomes_it_refused(self) -> None:
        good, stale = self.start(), self.start()
        self.release([stale])
        given = [outcome(good), outcome(stale)]

        assert list(self.ask({"default": 0}, given).refused) == [given[1]]
        assert self.status(stale.id) is WAITING

    def test_a_capped_queue_runs_no_more_than_its_cap_in_all_pools(self) -> None:
        self.add(0, 0, 0, 0)

        assert len(self.claim(1, max_running=3)) == 1
        assert len(self.claim(4, pool=OTHER, max_running=3)) == 2
        assert self.claim(4, max_running=3) == []

    def test_an_ended_job_makes_room_under_the_cap_in_the_same_claim(self) -> None:
        first, second = self.add(0, 0)
        (claim,) = self.claim(2, max_running=1)

        assert claim.id == first
        assert self.claimed(2, max_running=1, outcomes=[outcome(claim)]) == [second]

    def test_a_lease_that_ran_out_frees_its_place_under_the_cap(self) -> None:
        first, second = self.add(0, 0)
        self.claim(1, max_running=1, lease=10)
        self.clock.advance(10.5)

        assert self.claimed(2, pool=OTHER, max_running=1) == [second]
        assert self.status(first) is RUNNING

    def test_a_cap_of_one_queue_is_none_of_another(self) -> None:
        self.add(0, 0)
        self.add(0, 0, queue=a_queue("mail"))
        self.claim(2, max_running=1)

        claims = self.ask({"default": Lane(2, LEASE, max_running=1), "mail": 2}).claims

        assert [claim.queue for claim in claims] == ["mail", "mail"]

    def test_jobs_of_tasks_a_pool_does_not_know_are_passed_over_and_keep_their_place(self) -> None:
        (strange,) = self.add(5, task="app.tasks.new")
        (known,) = self.add(0)

        assert self.claimed(2, unknown_tasks={"app.tasks.new"}) == [known]
        assert self.claimed(2, unknown_tasks={"app.tasks.new"}) == []
        assert self.status(strange) is WAITING
        assert self.store.position(strange) == 0
        assert self.claimed(2, pool=OTHER) == [strange]

    def test_of_tasks_that_differ_in_case_alone_the_one_that_is_known_runs(self) -> None:
        (strange,) = self.add(5, task="app.tasks.Send")
        (known,) = self.add(0, task="app.tasks.send")

        assert self.claimed(2, unknown_tasks={"app.tasks.Send"}) == [known]
        assert self.status(strange) is WAITING
