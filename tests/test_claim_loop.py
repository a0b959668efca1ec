"""When a claim loop on a thread of its own makes its next turn: time passes only where a test lets it."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from jobify_django.pool import claim_loop
from jobify_django.pool.claim_loop import GATHER, AsyncClaimLoop, ThreadClaimLoop
from jobify_django.runtime import MACHINE
from tests.child import PATIENCE
from tests.workshop import elsewhere

NEVER = 3600.0


class Work:
    """The jobs of the pool, as far as its claim loop asks for them, and the turns that it made."""

    def __init__(self) -> None:
        self.gathering = False
        self.in_turn: Callable[[], object] = lambda: None
        self.when_forgotten: Callable[[], object] = lambda: None
        self.turns: queue.SimpleQueue[None] = queue.SimpleQueue()
        self.gathers: queue.SimpleQueue[None] = queue.SimpleQueue()
        self.time_passes = threading.Event()
        self.dead: list[BaseException] = []

    def turn(self) -> float:
        now, self.in_turn = self.in_turn, lambda: None
        now()
        self.turns.put(None)
        return NEVER

    def made(self) -> None:
        """Wait for a turn."""
        self.turns.get(timeout=PATIENCE)

    def gathers_now(self) -> None:
        """Wait until the loop waits for more outcomes."""
        self.gathers.get(timeout=PATIENCE)


@pytest.fixture
def work() -> Work:
    return Work()


@pytest.fixture
def loop(work: Work) -> Iterator[ThreadClaimLoop]:
    class Event(threading.Event):
        """One whose waits for more outcomes end when the test says so."""

        def wait(self, timeout: float | None = None) -> bool:
            if timeout == GATHER:
                work.gathers.put(None)
                while not (self.is_set() or work.time_passes.wait(0.001)):
                    pass
                return self.is_set()
            return super().wait(timeout)

        def clear(self) -> None:
            now, work.when_forgotten = work.when_forgotten, lambda: None
            now()
            super().clear()

    made = ThreadClaimLoop(
        lambda: None,
        work.turn,
        lambda: None,
        work.dead.append,
        lambda: work.gathering,
        replace(MACHINE, event=Event),
    )
    started, stop = threading.Event(), threading.Event()

    async def live() -> None:
        made.start()
        started.set()
        await asyncio.to_thread(stop.wait)
        assert await made.stop(PATIENCE)

    thread = threading.Thread(target=lambda: asyncio.run(live()), daemon=True)
    thread.start()
    started.wait(PATIENCE)
    work.made()  # the first one comes at once
    yield made
    work.gathering = False
    work.time_passes.set()
    stop.set()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert work.dead == []


def test_an_outcome_waits_for_those_of_the_jobs_that_started_with_it(
    loop: ThreadClaimLoop, work: Work
) -> None:
    work.gathering = True
    loop.wake_for_outcome()
    work.gathers_now()
    loop.wake_for_outcome()
    assert work.turns.empty()

    work.gathering = False
    loop.wake_for_outcome()  # the last of them
    work.made()
    assert work.turns.empty()


def test_an_outcome_waits_no_longer_than_it_may(loop: ThreadClaimLoop, work: Work) -> None:
    work.gathering = True
    loop.wake_for_outcome()
    work.gathers_now()
    assert work.turns.empty()

    work.time_passes.set()
    work.made()


def test_an_outcome_for_which_no_other_is_to_follow_is_stored_at_once(
    loop: ThreadClaimLoop, work: Work
) -> None:
    loop.wake_for_outcome()
    work.made()


def test_what_else_wakes_it_waits_for_no_outcome(loop: ThreadClaimLoop, work: Work) -> None:
    work.gathering = True
    loop.wake()
    work.made()


def test_outcomes_of_jobs_that_end_during_a_turn_wait_for_those_of_the_jobs_that_it_starts(
    loop: ThreadClaimLoop, work: Work
) -> None:
    def last_ends_then_others_start() -> None:
        loop.wake_for_outcome()
        work.gathering = True

    work.in_turn = last_ends_then_others_start
    loop.wake()
    work.made()
    work.gathers_now()
    assert work.turns.empty()

    work.gathering = False
    loop.wake_for_outcome()
    work.made()
    assert work.turns.empty()


def test_outcomes_of_jobs_that_end_during_a_turn_are_not_left_lying(
    loop: ThreadClaimLoop, work: Work
) -> None:
    def last_ends_then_others_start() -> None:
        loop.wake_for_outcome()
        work.gathering = True

    work.in_turn = last_ends_then_others_start
    loop.wake()
    work.made()
    work.gathers_now()
    work.time_passes.set()  # those others run for long
    work.made()


def test_what_wakes_it_during_a_turn_brings_the_next_one_at_once(loop: ThreadClaimLoop, work: Work) -> None:
    def woken_then_jobs_start() -> None:
        loop.wake()
        work.gathering = True

    work.in_turn = woken_then_jobs_start
    loop.wake()
    work.made()
    work.made()


def test_the_last_job_may_end_just_as_its_loop_begins_to_wait_for_it(
    loop: ThreadClaimLoop, work: Work
) -> None:
    """Its ring comes between the look at the jobs and the step that lets outcomes wait."""

    def last_ends() -> None:
        work.gathering = False
        loop.wake_for_outcome()

    def jobs_start() -> None:
        work.gathering = True
        work.when_forgotten = last_ends

    work.in_turn = jobs_start
    loop.wake()
    work.made()
    work.made()


# On the event loop


class Clock(asyncio.SelectorEventLoop):
    """An event loop whose time the test moves, and that counts its timers."""

    def __init__(self) -> None:
        super().__init__()
        self.later = 0.0
        self.timers = 0

    def time(self) -> float:
        return super().time() + self.later

    def call_at(self, when: float, *rest: Any, **context: Any) -> Any:
        self.timers += 1
        return super().call_at(when, *rest, **context)


@pytest.mark.parametrize("pauses", [[60.0] * 100, [60.0, 90.0] * 50], ids=["alike", "longer"])
def test_turns_on_the_event_loop_share_a_timer(pauses: list[float]) -> None:
    turns = 0

    def turn() -> float:
        nonlocal turns
        turns += 1
        return pauses[(turns - 1) % len(pauses)]

    async def run(clock: Clock) -> None:
        loop = AsyncClaimLoop(lambda: None, turn, lambda: None, raised.append, lambda: False, MACHINE)
        loop.start()
        for _ in pauses:
            await asyncio.sleep(0)
            loop.wake()
        await asyncio.sleep(0)
        made, before = clock.timers, turns
        clock.later += 200  # the timer is due, and so is the turn
        await pass_by()
        assert turns == before + 1
        assert made == 1
        await loop.stop(1)

    raised: list[BaseException] = []
    elsewhere(lambda: _on_a(run))
    assert raised == []


def test_a_turn_on_the_event_loop_comes_when_the_latest_said() -> None:
    pauses = iter([60.0, 600.0, 1.0, 60.0, 60.0])
    turns: list[float] = []

    async def run(clock: Clock) -> None:
        def turn() -> float:
            turns.append(clock.later)
            return next(pauses)

        loop = AsyncClaimLoop(lambda: None, turn, lambda: None, turns.remove, lambda: False, MACHINE)  # type: ignore[arg-type]
        loop.start()
        await pass_by()
        loop.wake()
        await pass_by()
        clock.later = 100.0  # the first timer goes off, and the turn is not due
        await pass_by()
        assert turns == [0.0, 0.0]
        loop.wake()
        await pass_by()
        assert turns == [0.0, 0.0, 100.0]
        clock.later = 102.0  # that one asked for an earlier turn
        await pass_by()
        assert turns == [0.0, 0.0, 100.0, 102.0]
        clock.later = 170.0
        await pass_by()
        assert turns == [0.0, 0.0, 100.0, 102.0, 170.0]
        await loop.stop(1)

    elsewhere(lambda: _on_a(run))


@pytest.mark.parametrize(
    ("took", "in_each_round"), [(0.0, [2, 2, 1]), (100.0, [1, 1, 1, 1, 1])], ids=["short", "long"]
)
def test_a_turn_on_the_event_loop_that_is_woken_meanwhile_is_followed_by_one_at_once_if_it_was_short(
    monkeypatch: pytest.MonkeyPatch, took: float, in_each_round: list[int]
) -> None:
    monkeypatch.setattr(claim_loop, "AT_ONCE", 60.0)
    turns: list[int] = []
    rounds = 0

    async def run(clock: Clock) -> None:
        nonlocal rounds

        def turn() -> float:
            turns.append(rounds)
            clock.later += took
            if len(turns) < 5:
                loop.wake()
            return NEVER

        loop = AsyncClaimLoop(lambda: None, turn, lambda: None, failed.append, lambda: False, MACHINE)
        loop.start()
        for rounds in range(10):  # noqa: B007
            await asyncio.sleep(0)
        assert [turns.count(number) for number in sorted(set(turns))] == in_each_round
        await loop.stop(1)

    failed: list[BaseException] = []
    elsewhere(lambda: _on_a(run))
    assert failed == []


def test_a_turn_on_the_event_loop_that_is_interrupted_keeps_what_woke_it() -> None:
    turns = 0

    async def run(clock: Clock) -> None:
        def turn() -> float:
            nonlocal turns
            turns += 1
            if turns == 1:
                loop.wake()
                raise KeyboardInterrupt
            return NEVER

        loop = AsyncClaimLoop(lambda: None, turn, lambda: None, lambda error: None, lambda: False, MACHINE)
        loop.start()
        await pass_by()
        await loop.stop(1)

    def interrupted(clock_run: Callable[[Clock], Any]) -> None:
        clock = Clock()
        try:
            waiting = clock.create_task(clock_run(clock))
            with pytest.raises(KeyboardInterrupt):
                clock.run_until_complete(waiting)
            clock.run_until_complete(waiting)
        finally:
            clock.close()

    elsewhere(lambda: interrupted(run))
    assert turns == 2


def test_no_turn_follows_one_on_the_event_loop_that_failed_even_if_it_was_woken_meanwhile() -> None:
    turns = 0

    async def run(clock: Clock) -> None:
        def turn() -> float:
            nonlocal turns
            turns += 1
            loop.wake()
            raise ValueError("a fault of ours")

        loop = AsyncClaimLoop(lambda: None, turn, lambda: None, failed.append, lambda: False, MACHINE)
        loop.start()
        await pass_by()
        loop.wake()
        await pass_by()
        await loop.stop(1)

    failed: list[BaseException] = []
    elsewhere(lambda: _on_a(run))
    assert turns == len(failed) == 1


async def pass_by() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def _on_a(run: Callable[[Clock], Any]) -> None:
    clock = Clock()
    try:
        clock.run_until_complete(run(clock))
    finally:
        clock.close()
