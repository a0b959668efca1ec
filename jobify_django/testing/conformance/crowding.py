"""Many threads at once: the bound holds at every moment, and every job is claimed once."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from jobify_django.exceptions import StaleVersion
from jobify_django.outcome import Outcome
from jobify_django.stores.value import Demand, Lane
from jobify_django.testing.conformance.ground import LEASE, Ground, a_queue, outcome

PRODUCERS = 8
CLAIMERS = 3
EACH = 25
MAXSIZE = 5
LONGEST_WAIT = 60.0


class Crowding(Ground):
    """What holds while everybody pushes and shoves."""

    def test_the_bound_holds_and_nothing_is_lost_or_claimed_twice(self) -> None:
        crowd = _Crowd(self)

        crowd.run()

        assert crowd.errors == []
        assert max(crowd.depths) <= MAXSIZE, f"{max(crowd.depths)} jobs waited where {MAXSIZE} may"
        assert Counter(crowd.claimed) == Counter(crowd.added)
        assert len(crowd.added) == PRODUCERS * EACH
        stats = self.stats(crowd.queue)
        assert (stats.waiting, stats.running) == (0, 0)

    def test_of_tunings_at_the_same_moment_none_is_lost(self) -> None:
        versions: list[int] = []

        def tune(key: str) -> None:
            for value in range(1, EACH + 1):
                versions.append(store.tune(queue, {key: value}, actor="ada", source="code").version)
            store.close()

        store, queue = self.store, a_queue()
        _at_once(partial(tune, key) for key in ("workers", "maxsize") * 2)

        assert sorted(versions) == list(range(1, 4 * EACH + 1))
        state = self.state()
        assert (state.version, state.workers, state.maxsize) == (4 * EACH, EACH, EACH)

    def test_of_changes_made_from_one_version_at_the_same_moment_one_is_made(self) -> None:
        self.tune(workers=3)
        begin = threading.Barrier(PRODUCERS)
        made: list[int] = []
        refused: list[StaleVersion] = []

        def change(value: int) -> None:
            changes: dict[str, Any] = {"workers": value} if value % 2 else {"paused": True}
            begin.wait(LONGEST_WAIT)
            try:
                made.append(self.tune(expected=1, **changes).version)
            except StaleVersion as error:
                refused.append(error)
            finally:
                self.store.close()

        _at_once(partial(change, value + 1) for value in range(PRODUCERS))

        assert made == [2]
        assert {(one.queue, one.expected, one.version) for one in refused} == {("default", 1, 2)}
        assert len(refused) == PRODUCERS - 1
        assert self.state().version == 2


def _at_once(bodies: Iterable[Callable[[], None]]) -> None:
    threads = [threading.Thread(target=body) for body in bodies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONGEST_WAIT)


class _Crowd:
    def __init__(self, ground: Ground) -> None:
        self.store = ground.store
        self.queue = a_queue(maxsize=MAXSIZE)
        self.specs = [[ground.spec(number) for number in range(EACH)] for _ in range(PRODUCERS)]
        self.added: list[str] = []
        self.claimed: list[str] = []
        self.depths: list[int] = []
        self.errors: list[BaseException] = []
        self._room = threading.Semaphore(0)
        self._work = threading.Semaphore(0)
        self._all_done = threading.Event()

    def run(self) -> None:
        unsubscribes = [
            self.store.listen("room", lambda queue: self._room.release(PRODUCERS)),
            self.store.listen("work", lambda queue: self._work.release(CLAIMERS)),
        ]
        bodies: list[Callable[[], None]] = [partial(self._produce, number) for number in range(PRODUCERS)]
        bodies += [partial(self._claim, number) for number in range(CLAIMERS)]
        _at_once(partial(self._guarded, body) for body in (*bodies, self._sample))
        self._all_done.set()
        for unsubscribe in unsubscribes:
            unsubscribe()

    def _guarded(self, body: Callable[[], None]) -> None:
        try:
            body()
        except BaseException as error:
            self.errors.append(error)
            self._all_done.set()
        finally:
            self.store.close()

    def _produce(self, number: int) -> None:
        left = self.specs[number]
        while left and not self._all_done.is_set():
            # Batches of different sizes, so that adds are taken in part.
            added = self.store.add(self.queue, left[: 1 + number % 4])
            self.depths.append(added.depth)
            self.added += [spec.id for spec in left[: added.taken]]
            left = left[added.taken :]
            if not added.taken:
                # Polling is the truth, so a lost notification costs a moment and no more.
                self._room.acquire(timeout=0.05)

    def _claim(self, number: int) -> None:
        demand = Demand(f"pool-{number}", {"default": Lane(1 + number, LEASE)})
        ended: list[Outcome] = []
        while len(self.claimed) < PRODUCERS * EACH and not self._all_done.is_set():
            claims = self.store.claim(demand, ended).claims
            assert len(claims) <= 1 + number, "claimed more than wanted"
            self.claimed += [claim.id for claim in claims]
            ended = [outcome(claim) for claim in claims]
            if not ended:
                self._work.acquire(timeout=0.05)
        assert list(self.store.settle(ended)) == []
        if len(self.claimed) >= PRODUCERS * EACH:
            self._all_done.set()

    def _sample(self) -> None:
        while not self._all_done.is_set():
            self.depths.append(self.store.stats([self.queue])["default"].waiting)
