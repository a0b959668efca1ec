"""``finish``, ``cancel``, ``retry`` and ``prune``."""

from __future__ import annotations

from jobify_django.job import JobError, JobStatus
from jobify_django.testing.conformance.ground import LEASE, OTHER, POOL, Ground, a_queue, outcome

DAY = 24 * 3600.0
NOBODY = "00000000-0000-7000-8000-00000000ffff"


class Ending(Ground):
    """How jobs end, are taken up again, and are forgotten."""

    # finish

    def test_a_successful_job_keeps_its_result(self) -> None:
        claim = self.start()
        self.clock.advance(2)
        self.store.settle([outcome(claim, result='{"a":[1]}')])

        job = self.record(claim.id)

        assert (job.status, job.result, job.error) == (JobStatus.SUCCESSFUL, '{"a":[1]}', None)
        assert (job.ended_at, job.lease_until) == (self.clock.now, None)

    def test_a_failed_job_keeps_its_error(self) -> None:
        claim = self.start()
        error = JobError("builtins.ValueError", 'no "x" \u2028 \u00e9', "Traceback ...")
        self.store.settle([outcome(claim, JobStatus.FAILED, error=error)])

        job = self.record(claim.id)

        assert (job.status, job.result, job.error) == (JobStatus.FAILED, None, error)

    def test_an_error_of_whatever_text_is_kept(self) -> None:
        text = "".join(map(chr, [0, 7, 34, 39, 92, 0x85, 0x2028, 0xD800, 0xFFFF, 0xDFFF, 0x1F600]))
        claim = self.start()
        error = JobError(text, text * 100, text * 2_000)
        self.store.settle([outcome(claim, JobStatus.FAILED, error=error)])

        assert self.record(claim.id).error == error

    def test_an_ended_job_is_neither_claimed_nor_rescued(self) -> None:
        self.end(JobStatus.FAILED)
        self.clock.advance(LEASE + 1)

        assert self.claim() == []
        assert list(self.store.rescue()) == []

    # cancel

    def test_a_cancelled_waiting_job_never_starts(self) -> None:
        cancelled, other = self.add(0, 0)

        assert dict(self.store.cancel([cancelled])) == {cancelled: JobStatus.WAITING}
        assert self.status(cancelled) is JobStatus.CANCELLED
        assert self.record(cancelled).ended_at == self.clock.now
        assert self.claimed() == [other]

    def test_cancelling_makes_room(self) -> None:
        queue = a_queue(maxsize=1)
        (id,) = self.add(0, queue=queue)

        self.store.cancel([id])

        assert self.waiting(queue) == 0
        assert self.store.add(queue, [self.spec()]).taken == 1

    def test_a_cancelled_delayed_job_never_starts(self) -> None:
        (id,) = self.add(0, delay=60)

        assert dict(self.store.cancel([id])) == {id: JobStatus.DELAYED}
        self.clock.advance(60)
        assert self.claim() == []
        assert self.status(id) is JobStatus.CANCELLED
        assert self.store.stats([self.queue])["default"].delayed == 0

    def test_cancelling_a_delayed_job_frees_no_room_it_never_took(self) -> None:
        queue = a_queue(maxsize=1)
        (late,) = self.add(0, queue=queue, delay=60)
        self.add(0, queue=queue)

        self.store.cancel([late])

        assert self.store.add(queue, [self.spec()]).taken == 0

    def test_a_running_job_is_only_asked_to_end(self) -> None:
        claim = self.start()

        assert dict(self.store.cancel([claim.id])) == {claim.id: JobStatus.RUNNING}
        assert self.status(claim.id) is JobStatus.RUNNING
        assert self.record(claim.id).cancel_requested
        assert list(self.store.settle([outcome(claim, JobStatus.CANCELLED)])) == []
        assert self.status(claim.id) is JobStatus.CANCELLED

    def test_a_pool_can_ask_which_of_its_jobs_shall_end(self) -> None:
        mine, left, theirs = self.start(), self.start(), self.start(pool=OTHER)
        self.store.cancel([mine.id, theirs.id])

        assert list(self.store.sync(POOL, ()).cancel_requested) == [mine.id]
        assert list(self.store.sync(OTHER, ()).cancel_requested) == [theirs.id]
        assert not self.record(left.id).cancel_requested
        self.store.settle([outcome(mine, JobStatus.CANCELLED)])
        assert list(self.store.sync(POOL, ()).cancel_requested) == []

    def test_cancelling_an_ended_or_unknown_job_changes_nothing(self) -> None:
        ended = self.end(JobStatus.SUCCESSFUL)

        assert dict(self.store.cancel([ended, NOBODY])) == {ended: JobStatus.SUCCESSFUL}
        assert self.status(ended) is JobStatus.SUCCESSFUL

    # retry

    def test_a_failed_job_can_be_retried(self) -> None:
        claim = self.start()
        self.store.settle([outcome(claim, JobStatus.FAILED, error=JobError("builtins.ValueError", "no"))])
        self.clock.advance(5)

        assert list(self.store.retry([claim.id])) == [claim.id]

        job = self.record(claim.id)
        assert (job.status, job.error, job.ended_at) == (JobStatus.WAITING, None, None)
        assert (job.history[-1].attempt, job.history[-1].charged) == (1, False)
        (again,) = self.claim(1)
        assert (again.id, again.attempt) == (claim.id, 2)

    def test_a_cancelled_job_can_be_retried_and_is_no_longer_asked_to_end(self) -> None:
        claim = self.start()
        self.store.cancel([claim.id])
        self.store.settle([outcome(claim, JobStatus.CANCELLED)])

        assert list(self.store.retry([claim.id])) == [claim.id]
        self.claim(1)
        assert not self.record(claim.id).cancel_requested
        assert list(self.store.sync(POOL, ()).cancel_requested) == []

    def test_a_retry_forgets_crashes(self) -> None:
        claim = self.start()
        while self.status(claim.id) is not JobStatus.FAILED:
            self.clock.advance(LEASE + 1)
            self.store.rescue()
            self.claim(1)

        self.store.retry([claim.id])

        assert (self.record(claim.id).crashes, self.waiting()) == (0, 1)

    def test_a_retried_job_is_eligible_from_now(self) -> None:
        id = self.end(JobStatus.FAILED)
        self.clock.advance(100)
        self.store.retry([id])

        assert self.record(id).eligible_at == self.clock.now
        assert self.store.stats([self.queue])["default"].oldest_wait == 0

    def test_a_retried_job_stands_where_the_order_of_now_puts_it(self) -> None:
        retried = self.end(JobStatus.FAILED)
        waiting, newest = self.add(0, 0)
        self.tune(order="lifo")

        self.store.retry([retried])

        assert self.claimed() == [newest, waiting, retried]

    def test_only_failed_and_cancelled_jobs_are_retried(self) -> None:
        successful = self.end(JobStatus.SUCCESSFUL)
        running = self.start().id
        (waiting,) = self.add(0)

        assert list(self.store.retry([successful, waiting, running, NOBODY])) == []
        assert self.status(successful) is JobStatus.SUCCESSFUL
        assert self.waiting() == 1

    def test_a_retry_may_exceed_the_bound(self) -> None:
        queue = a_queue(maxsize=1)
        failed = self.end(JobStatus.FAILED)
        self.add(0, queue=queue)

        assert list(self.store.retry([failed])) == [failed]
        assert self.waiting(queue) == 2
        assert self.store.add(queue, [self.spec()]).taken == 0

    # prune

    def test_pruning_deletes_what_ended_long_enough_ago(self) -> None:
        old = self.end(JobStatus.SUCCESSFUL)
        self.clock.advance(2 * DAY)
        new = self.end(JobStatus.SUCCESSFUL)

        assert self.store.prune(older_than=DAY, failed_older_than=DAY) == 1
        assert set(self.store.get([old, new])) == {new}
        assert self.store.prune(older_than=DAY, failed_older_than=DAY) == 0

    def test_failed_and_cancelled_jobs_have_an_age_of_their_own(self) -> None:
        ids = [self.end(status) for status in (JobStatus.SUCCESSFUL, JobStatus.FAILED, JobStatus.CANCELLED)]
        self.clock.advance(2 * DAY)

        assert self.store.prune(older_than=DAY, failed_older_than=3 * DAY) == 1
        assert set(self.store.get(ids)) == set(ids[1:])
        assert self.store.prune(older_than=DAY, failed_older_than=DAY) == 2

    def test_pruning_never_touches_a_job_that_has_not_ended(self) -> None:
        ids = [self.start().id, *self.add(0), *self.add(0, delay=30 * DAY)]
        self.clock.advance(20 * DAY)

        assert self.store.prune(older_than=DAY, failed_older_than=DAY) == 0
        assert set(self.store.get(ids)) == set(ids)

    def test_pruning_deletes_no_more_than_its_limit(self) -> None:
        for status in (JobStatus.SUCCESSFUL, JobStatus.FAILED, JobStatus.CANCELLED) * 2:
            self.end(status)
        self.clock.advance(2 * DAY)

        assert self.store.prune(older_than=DAY, failed_older_than=DAY, limit=4) == 4
        assert self.store.prune(older_than=DAY, failed_older_than=DAY, limit=4) == 2
