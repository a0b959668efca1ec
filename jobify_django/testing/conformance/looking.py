"""``get``, ``query``, ``count``, ``position``, ``stats``, ``queues``, and the pools."""

from __future__ import annotations

from jobify_django.job import FAILED, SUCCESSFUL, WAITING
from jobify_django.stores.value import POOL_ALIVE, JobQuery
from jobify_django.testing.conformance.ground import NOBODY, OTHER, POOL, Ground, a_pool, a_queue, outcome


class Looking(Ground):
    """What can be seen of jobs, queues and pools."""

    # get, query and count

    def test_get_returns_the_jobs_that_exist_of_however_many(self) -> None:
        specs = [self.spec() for _ in range(1200)]
        self.takes(*specs, queue=a_queue(maxsize=2000))
        ids = [spec.id for spec in specs]

        for some in (ids, ids[:2], []):
            assert set(self.store.get([*some, NOBODY])) == set(some)
        assert dict(self.store.get([])) == {}

    def test_waiting_jobs_are_found_in_claim_order(self) -> None:
        low, high, middle = self.add(1, 9, 5)

        assert self.query(queue="default", status=WAITING) == [high, middle, low]

    def test_other_jobs_are_found_newest_first(self) -> None:
        ids = []
        for _ in range(3):
            ids.append(self.end(FAILED))
            self.clock.advance(1)

        assert self.query(status=FAILED) == self.query() == ids[::-1]

    def test_jobs_are_found_oldest_first(self) -> None:
        ids = []
        for _ in range(3):
            ids += self.add(0)
            self.clock.advance(1)
        self.claim(1)

        assert self.query(order="oldest") == ids
        assert self.query(order="oldest", offset=1, limit=1) == ids[1:2]

    def test_waiting_jobs_are_found_newest_first_too(self) -> None:
        ids = []
        for priority in (1, 9, 5):
            ids += self.add(priority)
            self.clock.advance(1)

        assert self.query(status=WAITING, order="newest") == ids[::-1]
        assert self.query(status=WAITING, order="claim") == [ids[1], ids[2], ids[0]]

    def test_jobs_are_found_by_queue_status_and_task(self) -> None:
        failed = self.end(FAILED)
        (mailed,) = self.add(0, queue=a_queue("mail"))
        (other,) = self.add(0, task="app.tasks.b")

        assert self.query(queue="mail") == [mailed]
        assert self.query(status=FAILED) == [failed]
        assert self.query(task="app.tasks.b") == [other]
        assert self.query(queue="mail", status=FAILED) == []
        assert set(self.query()) == {failed, mailed, other}

    def test_a_query_begins_where_it_is_told_and_returns_no_more_than_its_limit(self) -> None:
        ids = self.add(0, 0, 0)

        assert self.query(status=WAITING, limit=2) == ids[:2]
        assert self.query(status=WAITING, offset=1, limit=1) == [ids[1]]
        assert self.query(offset=2) == [ids[0]]

    def test_a_query_for_ids_obeys_its_other_conditions(self) -> None:
        ids = self.add(0, 0)
        failed = self.end(FAILED, queue=a_queue("ending"))

        assert self.query(ids=[ids[0], failed, NOBODY], status=WAITING) == [ids[0]]
        assert self.query(ids=[]) == []

    def test_a_query_for_the_newest_ends_goes_by_them(self) -> None:
        claims = [self.start() for _ in range(3)]
        self.add(0)
        for claim in (claims[1], claims[2], claims[0]):
            self.clock.advance(1)
            self.store.settle([outcome(claim, FAILED)])

        assert self.query(status=FAILED, order="ended", limit=2) == [claims[0].id, claims[2].id]
        assert len(self.query(order="ended")) == 3

    def test_a_query_without_payload_leaves_the_large_values_out(self) -> None:
        self.release([self.start()])
        (claim,) = self.claim()
        self.store.settle([outcome(claim, result='"long"')])

        (job,) = self.store.query(JobQuery(payload=False))

        assert (job.arguments, job.result, job.error, job.history) == ("", None, None, ())
        assert (job.id, job.status, job.attempt) == (claim.id, SUCCESSFUL, 2)

    def test_jobs_are_counted_up_to_a_limit(self) -> None:
        self.add(0, 0, 0)
        self.add(0, queue=a_queue("mail"))

        assert self.store.count(JobQuery(queue="default")) == 3
        assert self.store.count(JobQuery(limit=2)) == 2
        assert self.store.count(JobQuery(status=FAILED)) == 0

    # position

    def test_position_counts_the_jobs_that_go_before(self) -> None:
        low, high, middle = self.add(1, 9, 5)

        assert [self.store.position(id) for id in (high, middle, low)] == [0, 1, 2]
        self.claim(1)
        assert [self.store.position(id) for id in (middle, low)] == [0, 1]

    def test_equal_jobs_are_positioned_as_they_came_in_their_queue(self) -> None:
        self.add(9, queue=a_queue("mail"))

        assert [self.store.position(id) for id in self.add(0, 0, 0)] == [0, 1, 2]

    def test_only_a_waiting_job_has_a_position(self) -> None:
        ids = [self.start().id, *self.add(0, delay=60), self.end(FAILED), NOBODY]

        assert [self.store.position(id) for id in ids] == [None] * 4

    # stats

    def test_stats_count_jobs_by_what_they_do(self) -> None:
        self.end(SUCCESSFUL)
        self.start()
        self.add(0, 0, 0)
        self.add(0, 0, delay=60)

        stats = self.stats()

        assert (stats.queue, stats.waiting, stats.delayed, stats.running) == ("default", 3, 2, 1)

    def test_stats_tell_what_is_in_force(self) -> None:
        queue = a_queue(workers=4, maxsize=50, order="fifo")
        stats = self.stats(queue)
        assert (stats.workers, stats.maxsize, stats.order, stats.paused) == (4, 50, "fifo", False)

        self.tune(queue, workers=2, maxsize=7, order="lifo", paused=True)

        stats = self.stats(queue)
        assert (stats.workers, stats.maxsize, stats.order, stats.paused) == (2, 7, "lifo", True)
        assert stats.state.version == 1

    def test_stats_of_a_queue_that_was_never_used_are_zero(self) -> None:
        stats = self.store.stats([a_queue("unused"), self.queue])

        assert set(stats) == {"unused", "default"}
        assert (stats["unused"].waiting, stats["unused"].oldest_wait, stats["unused"].pools) == (0, 0, [])

    def test_stats_tell_how_long_the_oldest_job_has_waited_and_never_less_than_no_time(self) -> None:
        assert self.stats().oldest_wait == 0
        self.add(0)
        self.clock.advance(5)
        self.add(9)
        self.clock.advance(2)

        assert self.stats().oldest_wait == 7
        self.clock.advance(-60)
        assert self.stats().oldest_wait == 0

    def test_a_delayed_job_waits_since_it_is_due(self) -> None:
        self.add(0, delay=60)
        self.clock.advance(63)

        stats = self.stats()

        assert (stats.waiting, stats.delayed, stats.oldest_wait) == (1, 0, 3)

    # queues

    def test_queues_are_those_that_hold_jobs_which_have_not_ended(self) -> None:
        assert set(self.store.queues()) == set()
        self.add(0, 0, queue=a_queue("waits"))
        self.add(0, queue=a_queue("is_delayed"), delay=60)
        claim = self.start(queue=a_queue("runs"))
        self.store.cancel(self.add(0, queue=a_queue("has_ended")))

        assert set(self.store.queues()) == {"waits", "is_delayed", "runs"}
        self.store.settle([outcome(claim)])
        assert set(self.store.queues()) == {"waits", "is_delayed"}

    def test_a_queue_with_jobs_of_every_status_is_told_once(self) -> None:
        for queue in map(a_queue, "bac"):
            self.add(0, 0, queue=queue)
            self.add(0, queue=queue, delay=60)
            self.claim(1, queue=queue)

        assert sorted(self.store.queues()) == ["a", "b", "c"]

    def test_a_store_that_works_is_set_up(self) -> None:
        assert self.store.is_set_up()

    # Pools

    def alive(self) -> list[str]:
        """Return the ids of the pools alive, which all serve the queue."""
        ids = sorted(pool.id for pool in self.store.pools())
        assert sorted(pool.id for pool in self.stats().pools) == ids
        return ids

    def test_a_pool_that_reported_itself_is_alive(self) -> None:
        pool = a_pool(POOL, "default", "mail")
        self.store.heartbeat(pool)
        self.clock.advance(3)

        (seen,) = self.store.pools()

        assert (seen.id, seen.host, seen.pid, seen.kind) == (pool.id, pool.host, pool.pid, pool.kind)
        assert (seen.started_at, dict(seen.queues), seen.age) == (pool.started_at, dict(pool.queues), 3)

    def test_stats_name_the_pools_that_serve_a_queue(self) -> None:
        self.store.heartbeat(a_pool(POOL, "default"))
        self.store.heartbeat(a_pool(OTHER, "mail", "default"))

        stats = self.store.stats([self.queue, a_queue("mail")])

        assert {pool.id for pool in stats["default"].pools} == {POOL, OTHER}
        assert {pool.id for pool in stats["mail"].pools} == {OTHER}

    def test_a_pool_that_stays_silent_is_no_longer_alive(self) -> None:
        self.store.heartbeat(a_pool(POOL))
        self.clock.advance(POOL_ALIVE - 1)
        self.store.heartbeat(a_pool(OTHER))
        self.clock.advance(2)

        assert self.alive() == [OTHER]

    def test_a_pool_that_reports_again_is_seen_once_and_fresh(self) -> None:
        self.store.heartbeat(a_pool(POOL, "default"))
        self.clock.advance(10)
        self.store.heartbeat(a_pool(POOL, "mail"))

        (seen,) = self.store.pools()

        assert (seen.age, set(seen.queues)) == (0, {"mail"})

    def test_a_heartbeat_tells_what_the_pool_must_know(self) -> None:
        mine, _ = self.start(), self.start()
        self.store.cancel([mine.id])
        self.tune(workers=7)

        told = self.store.heartbeat(a_pool(POOL, "default", "mail"))

        assert told.states == self.store.sync("", ["default", "mail"]).states
        assert told.states["default"].workers == 7
        assert list(told.cancel_requested) == [mine.id]
        assert list(self.store.heartbeat(a_pool(OTHER, "default")).cancel_requested) == []

    def test_a_heartbeat_tells_of_leases_if_the_store_has_looked(self) -> None:
        assert self.store.heartbeat(a_pool(POOL)).leases in (None, (None, None))
        short, long = self.start(), self.start()
        self.renew(short, lease=10.0)
        self.renew(long, lease=60.0)
        now = self.clock()

        leases = self.store.heartbeat(a_pool(POOL)).leases

        assert leases in (None, (now + 10.0, now + 60.0))

    def test_a_retired_pool_is_forgotten(self) -> None:
        self.store.heartbeat(a_pool(POOL))
        self.store.retire(POOL)
        self.store.retire(OTHER)

        assert self.alive() == []

    def test_a_pool_whose_clock_was_ahead_is_not_alive_for_as_long(self) -> None:
        self.clock.advance(86_400)
        self.store.heartbeat(a_pool(POOL))
        self.clock.advance(-86_400)
        self.store.heartbeat(a_pool(OTHER))

        assert self.alive() == [OTHER]
        self.store.heartbeat(a_pool(POOL))
        assert self.alive() == [POOL, OTHER]
