"""What one simulated process has of the store: its own listeners, its own calls, its own bad luck."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, NamedTuple

from jobify_django.exceptions import StoreError
from jobify_django.stores.base import Store
from jobify_django.stores.notifier import EVERY_KIND, ChangeDetector, Notification
from jobify_django.stores.value import Claimed, Demand
from tests.simulation.shared import Shared
from tests.simulation.story import answered, told
from tests.simulation.world import Over, Process

UNTOLD = frozenset(["sync", "pools", "stats", "heartbeat", "repair", "query", "position"])
LOOK = 0.02
"""Seconds between two looks at what others have written."""
MOST_CALLS = 150
"""Calls of one process in a second: these jobs are few, so more means that it turns in a circle."""


class Fault(NamedTuple):
    """What befalls a call, in this order. Times are in seconds.

    Attributes:
        before: how long it takes to reach the store.
        fails: whether it fails there.
        kills: whether the process dies once the work is done, before anybody knows.
        after: how long the reply takes.
        loses_reply: whether the call fails although its work is done.
    """

    before: float = 0.0
    fails: bool = False
    kills: bool = False
    after: float = 0.0
    loses_reply: bool = False


class View(Store):
    """The shared store, as one process sees it."""

    def __init__(
        self,
        whole: Shared,
        process: Process,
        fault: Callable[[Process, str], Fault],
        *,
        blocking: bool,
        watched: bool,
    ) -> None:
        self.whole = whole
        self.process = process
        self.world = whole.world
        self.fault = fault
        self.blocking = blocking
        self.shared = watched  # only then somebody looks for what other processes have written
        super().__init__(whole.store.alias, process.runtime)
        self.given: dict[tuple[str, int], float] = {}
        self.watch_claim: Callable[[Demand], None] = lambda demand: None
        self.deferred: list[float] = []
        self._pace = (0, 0)

    def change_detector(self) -> ChangeDetector:
        writes, process = self.whole.writes, self.process
        seen = 0

        def look() -> Collection[Notification]:
            nonlocal seen
            self.world.park(LOOK)
            before, seen = seen, writes.total() - writes[process]
            return () if seen == before else EVERY_KIND

        look.hears = True  # type: ignore[attr-defined]
        return look

    def in_transaction(self) -> bool:
        return self.world.held and self.whole.store.in_transaction()

    def repair(self) -> bool:
        if self._call("repair"):
            self.world.fail("the count of waiting jobs had to be repaired")
        return False

    def close(self) -> None:
        """All simulated processes share the one connection of the test's thread."""

    def _call(self, verb: str, *args: Any, **kwargs: Any) -> Any:
        world, process = self.world, self.process
        if world.over or process.dead:
            raise Over
        if world.current is None or world.held:
            return self.whole.call(verb, args, kwargs)
        self._hold_still()
        if verb == "claim":
            self.watch_claim(args[0])
        fault = self.fault(process, verb)
        self._spend(fault.before)
        if fault.fails:
            self._tell(verb, args, "fails")
            process.trouble(0.0, "failure")
            raise StoreError(f"{verb} does not work today.")
        result = self.whole.call(verb, args, kwargs)
        if what := answered(verb, result):
            self._tell(verb, args, what)
        if world.violation is not None:
            world.hub.switch()  # for good
        if fault.kills:
            process.crash(f"killed after {verb}")
        self._spend(fault.after)
        if fault.loses_reply:
            self._tell(verb, args, "its reply is lost")
            process.trouble(0.0, "failure")
            raise StoreError(f"the reply to {verb} was lost.")
        if isinstance(result, Claimed):
            self.given.update(dict.fromkeys(((c.id, c.attempt) for c in result.claims), world.now))
            if result.deferred:
                self.deferred.append(world.now)
        return result

    def _hold_still(self) -> None:
        second = int(self.world.now)
        self._pace = (second, self._pace[1] + 1 if self._pace[0] == second else 1)
        if self._pace[1] > MOST_CALLS:
            self.world.fail(f"{self.process.name} calls the store more than {MOST_CALLS} times in a second")

    def _spend(self, seconds: float) -> None:
        if seconds > 0:
            if seconds > 0.1:
                self.process.trouble(seconds, "delay")
            self.world.park(seconds)
        else:
            self.world.maybe_switch()

    def _tell(self, verb: str, args: tuple[Any, ...], what: str) -> None:
        if verb not in UNTOLD:
            self.world.note(f"{verb} {told(args)} -> {what}")


def _verb(name: str) -> Callable[..., Any]:
    def call(self: View, *args: Any, **kwargs: Any) -> Any:
        return self._call(name, *args, **kwargs)

    return call


for _name in Store.__abstractmethods__:
    setattr(View, _name, _verb(_name))
View.__abstractmethods__ = frozenset()  # type: ignore[attr-defined]
