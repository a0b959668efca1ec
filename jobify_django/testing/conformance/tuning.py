"""``tune`` and ``sync``: live values, their versions, and what a new order does to jobs."""

from __future__ import annotations

import pytest

from jobify_django.exceptions import StaleVersion
from jobify_django.testing.conformance.ground import Ground, a_queue


class Tuning(Ground):
    """What can be changed while jobs run."""

    def test_a_queue_begins_as_the_settings_say(self) -> None:
        state = self.state()

        assert (state.queue, state.version, state.paused) == ("default", 0, False)
        assert (state.workers, state.maxsize, state.order) == (None, None, None)

    def test_a_tuned_value_is_kept(self) -> None:
        returned = self.store.tune(self.queue, {"workers": 3, "order": "fifo"}, actor="ada", source="admin")

        state = self.state()

        assert returned == state
        assert (state.workers, state.maxsize, state.order, state.paused) == (3, None, "fifo", False)

    def test_each_tuning_is_a_new_version_and_leaves_the_other_values(self) -> None:
        changes = ({"workers": 3, "maxsize": 5}, {"paused": True}, {"workers": 4}, {"workers": 4})

        assert [self.tune(**change).version for change in changes] == [1, 2, 3, 4]

        state = self.state()
        assert (state.workers, state.maxsize, state.paused, state.version) == (4, 5, True, 4)

    def test_a_change_made_from_another_version_is_refused_and_changes_nothing(self) -> None:
        self.tune(workers=3)

        for version in (0, 2):
            with pytest.raises(StaleVersion, match=f"has version 1, .* from version {version}") as caught:
                self.tune(workers=9, expected=version)
            assert (caught.value.expected, caught.value.version) == (version, 1)

        assert (self.state().workers, self.state().version) == (3, 1)
        assert self.store.tune(self.queue, {"workers": 9}, actor="", source="code", expected=1).version == 2

    def test_the_first_change_is_made_from_version_0(self) -> None:
        assert self.tune(workers=9, expected=0).version == 1

    def test_none_gives_a_value_back_to_the_settings(self) -> None:
        queue = a_queue(workers=8, maxsize=50)
        self.tune(queue, workers=3, maxsize=5, order="fifo")

        self.tune(queue, workers=None, maxsize=None, order=None)

        state, stats = self.state(), self.stats(queue)
        assert (state.workers, state.maxsize, state.order, state.version) == (None, None, None, 2)
        assert (stats.workers, stats.maxsize, stats.order) == (8, 50, "priority")

    def test_queues_are_tuned_apart(self) -> None:
        self.tune(workers=3)

        states = self.store.sync("", ["default", "mail"]).states

        assert (states["default"].workers, states["mail"].workers, states["mail"].version) == (3, None, 0)

    def test_a_new_order_applies_to_jobs_that_wait(self) -> None:
        first, second, third = self.add(1, 9, 5)

        self.tune(order="fifo")
        assert [self.store.position(id) for id in (first, second, third)] == [0, 1, 2]
        self.tune(order="lifo")
        assert [self.store.position(id) for id in (third, second, first)] == [0, 1, 2]
        self.tune(order=None)
        assert self.claimed() == [second, third, first]

    def test_a_new_order_applies_to_jobs_that_come_after(self) -> None:
        (first,) = self.add(1)
        self.tune(order="fifo")
        (second,) = self.add(9)
        self.tune(order="lifo")
        (third,) = self.add(-9)

        assert self.claimed() == [third, second, first]

    def test_a_new_order_applies_to_delayed_jobs(self) -> None:
        ids = self.add(1, 9, delay=60)
        self.tune(order="fifo")
        self.clock.advance(60)

        assert self.claimed() == ids

    def test_a_new_order_applies_to_jobs_that_come_back(self) -> None:
        self.tune(order="lifo")
        ids = self.add(0, 0, 0)
        (claim,) = self.claim(1)
        assert claim.id == ids[2]
        self.tune(order="fifo")

        self.release([claim])

        assert self.claimed() == ids

    def test_a_new_order_applies_to_rescued_jobs(self) -> None:
        first, second = self.add(9, 1)
        self.claim(1)
        self.tune(order="lifo")
        self.crash()

        assert self.claimed() + self.claimed() == [second, first]

    def test_nobody_loses_their_place_by_pause_and_resume(self) -> None:
        ids = self.add(0, 0, 0)
        self.tune(paused=True)
        ids += self.add(0)
        self.tune(paused=False)

        assert self.claimed() == ids

    def test_changes_are_told_newest_first_where_they_are_kept(self) -> None:
        if not self.store.keeps_changes:
            assert list(self.store.changes("default")) == []
            return
        self.tune(workers=3)
        self.clock.advance(5)
        self.tune(workers=None, paused=True)
        self.tune(a_queue("mail"), maxsize=7)

        newest, oldest = self.store.changes("default")

        assert (newest.version, newest.actor, newest.source) == (2, "ada", "code")
        assert (oldest.version, oldest.actor, oldest.source) == (1, "ada", "code")
        assert (newest.changed_at, oldest.changed_at) == (self.clock.now, self.clock.now - 5)
        nothing = {"workers": None, "maxsize": None, "order": None, "paused": False}
        assert newest.before == oldest.after == {**nothing, "workers": 3}
        assert (oldest.before, newest.after) == (nothing, {**nothing, "paused": True})
        assert len(self.store.changes("default", 1)) == 1
