"""``add``: the bound, all or a part, and twice the same."""

from __future__ import annotations

from jobify_django.job import DELAYED, RUNNING, SUCCESSFUL, WAITING
from jobify_django.testing.conformance.ground import ARGUMENTS, Ground, a_queue, outcome


class Adding(Ground):
    """What ``add`` promises."""

    def test_an_added_job_is_stored_as_it_was_given(self) -> None:
        (id,) = self.add(7)

        job = self.record(id)

        assert (job.id, job.queue, job.task, job.priority) == (id, "default", "app.tasks.a", 7)
        assert job.arguments == ARGUMENTS
        assert (job.status, job.attempt, job.crashes) == (WAITING, 0, 0)
        assert (job.pushed_at, job.eligible_at) == (self.clock.now, self.clock.now)
        assert (job.started_at, job.ended_at, job.result, job.error) == (None,) * 4
        assert job.history == ()

    def test_add_tells_what_it_took_and_how_the_queue_stands(self) -> None:
        added = self.store.add(a_queue(maxsize=5), [self.spec(), self.spec()])

        assert (added.taken, added.depth, added.maxsize) == (2, 2, 5)

    def test_add_takes_the_first_jobs_that_fit_and_into_a_full_queue_none(self) -> None:
        queue = a_queue(maxsize=3)
        self.add(0, queue=queue)
        specs = [self.spec() for _ in range(4)]

        for offered, taken in ((specs, 2), (specs[2:], 0)):
            added = self.store.add(queue, offered)
            assert (added.taken, added.depth, added.maxsize) == (taken, 3, 3)
        assert set(self.store.get([spec.id for spec in specs])) == {specs[0].id, specs[1].id}
        assert self.waiting(queue) == 3

    def test_add_of_a_whole_takes_all_or_none(self) -> None:
        queue = a_queue(maxsize=3)
        self.add(0, queue=queue)
        specs = [self.spec() for _ in range(3)]

        assert self.store.add(queue, specs, all_or_nothing=True).taken == 0
        assert self.store.get([spec.id for spec in specs]) == {}
        assert self.store.add(queue, specs[:2], all_or_nothing=True).taken == 2

    def test_a_claim_makes_room(self) -> None:
        queue = self.full()
        assert self.takes(queue=queue) == 0

        self.claim(1)

        assert self.takes(queue=queue) == 1

    def test_a_tuned_maxsize_is_the_bound(self) -> None:
        queue = a_queue(maxsize=1)
        self.tune(queue, maxsize=3)

        added = self.store.add(queue, [self.spec() for _ in range(5)])

        assert (added.taken, added.maxsize) == (3, 3)

    def test_a_lowered_maxsize_drops_nothing(self) -> None:
        ids = self.add(0, 0, 0)
        self.tune(maxsize=1)

        assert (self.waiting(), self.takes()) == (3, 0)
        assert self.claimed() == ids

    def test_queues_have_bounds_of_their_own(self) -> None:
        self.full()

        assert self.takes(queue=a_queue("mail", maxsize=1)) == 1

    def test_a_delayed_job_always_finds_room(self) -> None:
        late, dated = self.spec(delay=60), self.spec(at=self.clock.now + 60)

        added = self.store.add(self.full(), [late, dated])

        assert (added.taken, added.depth) == (2, 1)
        assert self.status(late.id) is self.status(dated.id) is DELAYED

    def test_delayed_jobs_leave_the_room_to_others_until_they_are_due(self) -> None:
        queue = a_queue(maxsize=1)
        self.add(0, 0, queue=queue, delay=60)

        assert self.takes(queue=queue) == 1

    def test_due_jobs_count_at_once_and_may_exceed_the_bound(self) -> None:
        queue = a_queue(maxsize=2)
        self.add(0, 0, 0, queue=queue, delay=60)
        self.clock.advance(60)

        added = self.store.add(queue, [self.spec()])

        assert (added.taken, added.depth, self.waiting(queue)) == (0, 3, 3)

    def test_a_delayed_job_does_not_open_the_way_for_those_behind_it(self) -> None:
        specs = [self.spec(), self.spec(delay=60), self.spec(), self.spec(delay=60)]

        assert self.takes(*specs, queue=a_queue(maxsize=1)) == 2

    def test_a_moment_that_has_passed_is_now_and_takes_room(self) -> None:
        queue = self.full()
        (id,) = self.add(0, at=self.clock.now - 60)

        assert (self.status(id), self.record(id).eligible_at) == (WAITING, self.clock.now)
        for at in (self.clock.now, self.clock.now - 60):
            assert self.takes(self.spec(at=at), queue=queue) == 0

    def test_adding_a_job_twice_adds_it_once(self) -> None:
        spec = self.spec()
        self.store.add(self.queue, [spec])

        again = self.store.add(self.queue, [spec])

        assert (again.taken, again.depth) == (1, 1)
        assert self.claimed() == [spec.id]

    def test_a_known_job_counts_as_taken_by_a_full_queue(self) -> None:
        queue = a_queue(maxsize=1)
        spec = self.spec()

        assert [self.takes(spec, queue=queue) for _ in range(2)] == [1, 1]
        assert self.takes(spec, self.spec(), queue=queue) == 1

    def test_adding_a_job_that_runs_or_has_ended_changes_nothing(self) -> None:
        spec = self.spec()
        self.takes(spec)
        (claim,) = self.claim(1)

        assert (self.takes(spec), self.status(spec.id)) == (1, RUNNING)
        self.store.settle([outcome(claim)])
        assert (self.takes(spec), self.status(spec.id)) == (1, SUCCESSFUL)
        assert self.waiting() == 0

    def test_jobs_that_come_back_may_exceed_the_bound_and_then_nothing_is_added(self) -> None:
        queue = self.full(2)
        claims = self.claim(2)
        self.add(0, 0, queue=queue)

        self.release(claims)

        for waiting in (4, 3, 2):
            assert (self.waiting(queue), self.takes(queue=queue)) == (waiting, 0)
            self.claim(1)
        assert self.takes(queue=queue) == 1

    def test_impatience_is_no_reason_to_refuse_what_nobody_holds_up(self) -> None:
        specs = [self.spec() for _ in range(3)]

        for spec, lock_timeout in zip(specs, (0.0, 5.0, None), strict=True):
            assert self.store.add(self.queue, [spec], lock_timeout=lock_timeout).taken == 1
        assert self.claimed() == [spec.id for spec in specs]

    def test_a_delay_too_short_for_the_clock_is_none(self) -> None:
        self.clock.now = 1.7e9
        queue = self.full(3)
        short = self.spec(delay=1e-7)

        added = self.store.add(queue, [short])

        assert (added.taken, added.depth, self.waiting(queue)) == (0, 3, 3)
        assert self.store.get([short.id]) == {}

    def test_add_tells_the_moment_that_settles_which_jobs_are_delayed(self) -> None:
        self.clock.now = 1.7e9
        specs = [self.spec(delay=delay) for delay in (0.0, 1e-7, 0.5)]
        specs += [self.spec(at=self.clock.now + after) for after in (-60, 0, 60)]

        now = self.store.add(self.queue, specs).now

        for spec in specs:
            delayed = self.status(spec.id) is DELAYED
            assert delayed == (spec.eligible_at(now) > now)
