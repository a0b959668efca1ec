"""Notifications: with all of them lost polling finds the work, but inside a process none may be lost."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

from jobify_django.job import FAILED
from jobify_django.stores.notifier import Kind
from jobify_django.testing.conformance.ground import Ground, a_queue, outcome


class Waking(Ground):
    """What the listeners of the same process are called with, and when."""

    def heard(self, kind: Kind) -> list[object]:
        """Begin to listen; return the list of what is heard, without what could be about anything."""
        heard: list[object] = []
        listen = self.store.listen
        self._stops.append(listen(kind, lambda about: None if about is None else heard.append(about)))
        return heard

    @cached_property
    def _stops(self) -> list[Callable[[], None]]:
        return []

    def teardown_method(self) -> None:
        """Stop listening: pytest calls it so."""
        while self._stops:
            self._stops.pop()()

    def tearDown(self) -> None:
        """Stop listening: unittest calls it so."""
        self.teardown_method()
        getattr(super(), "tearDown", lambda: None)()

    def test_an_add_notifies_of_work_unless_it_takes_nothing(self) -> None:
        queue = self.full()
        heard = self.heard("work")

        self.takes(queue=queue)
        assert heard == []
        self.add(0, queue=a_queue("mail"))
        assert "mail" in heard

    def test_a_claim_notifies_of_room_unless_it_takes_nothing(self) -> None:
        heard = self.heard("room")

        self.claim(1)
        assert heard == []
        self.add(0)
        self.claim(1)
        # Perhaps twice: the store's own word comes back from outside.
        assert set(heard) == {"default"}

    def test_an_outcome_notifies_of_the_end_also_within_a_claim_unless_it_is_refused(self) -> None:
        first, second = self.start(), self.start()
        heard = self.heard("ended")

        self.store.settle([outcome(first)])
        assert heard == [[first.id]]
        self.claim(1, outcomes=[outcome(first), outcome(second)])
        assert heard == [[first.id], [second.id]]
        self.store.settle([outcome(first)])
        assert heard == [[first.id], [second.id]]

    def test_jobs_that_come_back_notify_of_work(self) -> None:
        claim = self.start()
        heard = self.heard("work")

        self.release([claim])
        assert "default" in heard
        heard.clear()
        self.claim(1)
        self.crash()
        assert "default" in heard

    def test_a_retry_notifies_of_work(self) -> None:
        id = self.end(FAILED)
        heard = self.heard("work")
        self.store.retry([id])

        assert "default" in heard

    def test_cancelling_a_waiting_job_notifies_of_room_and_at_the_end(self) -> None:
        (id,) = self.add(0)
        room, ended = self.heard("room"), self.heard("ended")
        self.store.cancel([id])

        assert "default" in room
        assert ended == [[id]]

    def test_a_job_failed_by_its_crashes_notifies_of_the_end(self) -> None:
        claim = self.start()
        heard = self.heard("ended")
        while self.status(claim.id) is not FAILED:
            assert heard == []
            self.crash()
            self.claim(1)

        assert heard == [[claim.id]]

    def test_a_tuning_notifies_of_work_and_at_room(self) -> None:
        work, room = self.heard("work"), self.heard("room")
        self.tune(maxsize=5)

        assert "default" in work
        assert "default" in room

    def test_who_no_longer_listens_hears_nothing(self) -> None:
        heard: list[object] = []
        self.store.listen("work", heard.append)()
        self.add(0)

        # A watcher's "something may have changed" (None) may have been on its way already.
        assert "default" not in heard
