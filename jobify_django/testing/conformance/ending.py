"""``settle``, ``cancel``, ``retry`` and ``prune``."""

from __future__ import annotations

from jobify_django.job import CANCELLED, DELAYED, FAILED, RUNNING, SUCCESSFUL, WAITING, JobError
from jobify_django.testing.conformance.ground import NOBODY, OTHER, POOL, Ground, a_queue, outcome

DAY = 24 * 3600.0


class Ending(Ground):
    """How jobs end, are taken up again, and are forgotten."""

    # settle

    def test_a_successful_job_keeps_its_result(self) -> None:
        claim = self.start()
        self.clock.advance(2)
        self.store.settle([outcome(claim, result='{"a":[1]}')])

        job = self.record(claim.id)

        assert (job.status, job.result, job.error) == (SUCCESSFUL, '{"a":[1]}', None)
        assert (job.ended_at, job.lease_until) == (self.clock.now, None)

    def test_an_error_of_whatever_text_is_kept(self) -> None:
        text = "".join(map(chr, [0, 7, 34, 39, 92, 0x85, 0xE9, 0x2028, 0xD800, 0xFFFF, 0xDFFF, 0x1F600]))
        claim = self.start()
        error = JobError(text, text * 100, text * 2_000)
        self.store.settle([outcome(claim, FAILED, error=error)])

        job = self.record(claim.id)

        assert (job.status, job.result, job.error) == (FAILED, None, error)

    def test_an_ended_job_is_neither_claimed_nor_rescued(self) -> None:
        self.end(FAILED)

        assert self.crash() == []
        assert self.claim() == []

    # cancel

    def test_a_cancelled_waiting_job_never_starts_and_makes_room(self) -> None:
        queue = a_queue(maxsize=2)
        cancelled, other = self.add(0, 0, queue=queue)

        assert dict(self.store.cancel([cancelled])) == {cancelled: WAITING}
        assert self.status(cancelled) is CANCELLED
        assert self.record(cancelled).ended_at == self.clock.now
        assert self.waiting(queue) == 1
        (fresh,) = self.add(0, queue=queue)
        assert self.claimed() == [other, fresh]

    def test_a_cancelled_delayed_job_never_starts_and_frees_no_room_it_never_took(self) -> None:
        (late,) = self.add(0, delay=60)
        queue = self.full()

        assert dict(self.store.cancel([late])) == {late: DELAYED}
        assert self.takes(queue=queue) == 0
        self.clock.advance(60)
        assert late not in self.claimed()
        assert self.status(late) is CANCELLED
        assert self.stats().delayed == 0

    def test_a_running_job_is_only_asked_to_end(self) -> None:
        claim = self.start()

        assert dict(self.store.cancel([claim.id])) == {claim.id: RUNNING}
        assert self.status(claim.id) is RUNNING
        assert self.record(claim.id).cancel_requested
        assert list(self.store.settle([outcome(claim, CANCELLED)])) == []
        assert self.status(claim.id) is CANCELLED

    def test_a_pool_can_ask_which_of_its_jobs_shall_end(self) -> None:
        mine, left, theirs = self.start(), self.start(), self.start(pool=OTHER)
        self.store.cancel([mine.id, theirs.id])

        assert list(self.store.sync(POOL, ()).cancel_requested) == [mine.id]
        assert list(self.store.sync(OTHER, ()).cancel_requested) == [theirs.id]
        assert not self.record(left.id).cancel_requested
        self.store.settle([outcome(mine, CANCELLED)])
        assert list(self.store.sync(POOL, ()).cancel_requested) == []

    def test_cancelling_an_ended_or_unknown_job_changes_nothing(self) -> None:
        ended = self.end(SUCCESSFUL)

        assert dict(self.store.cancel([ended, NOBODY])) == {ended: SUCCESSFUL}
        assert self.status(ended) is SUCCESSFUL

    # retry

    def test_a_failed_job_can_be_retried_and_is_eligible_from_now(self) -> None:
        claim = self.start()
        self.store.settle([outcome(claim, FAILED, error=JobError("builtins.ValueError", "no"))])
        self.clock.advance(5)

        assert list(self.store.retry([claim.id])) == [claim.id]

        job = self.record(claim.id)
        assert (job.status, job.error, job.ended_at) == (WAITING, None, None)
        assert (job.history[-1].attempt, job.history[-1].charged) == (1, False)
        assert (job.eligible_at, self.stats().oldest_wait) == (self.clock.now, 0)
        assert [(again.id, again.attempt) for again in self.claim(1)] == [(claim.id, 2)]

    def test_a_cancelled_job_can_be_retried_and_is_no_longer_asked_to_end(self) -> None:
        claim = self.start()
        self.store.cancel([claim.id])
        self.store.settle([outcome(claim, CANCELLED)])

        assert list(self.store.retry([claim.id])) == [claim.id]
        self.claim(1)
        assert not self.record(claim.id).cancel_requested
        assert list(self.store.sync(POOL, ()).cancel_requested) == []

    def test_a_retry_forgets_crashes(self) -> None:
        claim = self.start()
        while self.status(claim.id) is not FAILED:
            self.crash()
            self.claim(1)

        self.store.retry([claim.id])

        assert (self.record(claim.id).crashes, self.waiting()) == (0, 1)

    def test_a_retried_job_stands_where_the_order_of_now_puts_it(self) -> None:
        (retried,) = self.add(9)
        self.store.settle([outcome(claim, FAILED) for claim in self.claim()])
        waiting, newest = self.add(0, 0)
        self.tune(order="lifo")

        self.store.retry([retried])

        assert self.claimed() == [newest, waiting, retried]

    def test_only_failed_and_cancelled_jobs_are_retried(self) -> None:
        successful = self.end(SUCCESSFUL)
        ids = [successful, self.start().id, *self.add(0), NOBODY]

        assert list(self.store.retry(ids)) == []
        assert self.status(successful) is SUCCESSFUL
        assert self.waiting() == 1

    def test_a_retry_may_exceed_the_bound(self) -> None:
        failed = self.end(FAILED)
        queue = self.full()

        assert list(self.store.retry([failed])) == [failed]
        assert (self.waiting(queue), self.takes(queue=queue)) == (2, 0)

    # prune

    def prune(self, failed_older_than: float = DAY, limit: int = 500) -> int:
        """Prune what ended a day ago; return how many jobs."""
        return self.store.prune(older_than=DAY, failed_older_than=failed_older_than, limit=limit)

    def test_pruning_deletes_what_ended_long_enough_ago(self) -> None:
        old = self.end(SUCCESSFUL)
        self.clock.advance(2 * DAY)
        new = self.end(SUCCESSFUL)

        assert self.prune() == 1
        assert set(self.store.get([old, new])) == {new}
        assert self.prune() == 0

    def test_failed_and_cancelled_jobs_have_an_age_of_their_own(self) -> None:
        ids = [self.end(status) for status in (SUCCESSFUL, FAILED, CANCELLED)]
        self.clock.advance(2 * DAY)

        assert self.prune(failed_older_than=3 * DAY) == 1
        assert set(self.store.get(ids)) == set(ids[1:])
        assert self.prune() == 2

    def test_pruning_never_touches_a_job_that_has_not_ended(self) -> None:
        ids = [self.start().id, *self.add(0), *self.add(0, delay=30 * DAY)]
        self.clock.advance(20 * DAY)

        assert self.prune() == 0
        assert set(self.store.get(ids)) == set(ids)

    def test_pruning_deletes_no_more_than_its_limit(self) -> None:
        for status in (SUCCESSFUL, FAILED, CANCELLED) * 2:
            self.end(status)
        self.clock.advance(2 * DAY)

        assert [self.prune(limit=4), self.prune(limit=4)] == [4, 2]
