"""Warning of jobs in queues that neither the settings of this process nor a live pool serve."""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from typing import Any

from django.db import connections

from jobify_django.exceptions import StoreError
from jobify_django.leftover import Leftover, leftovers_in
from jobify_django.log import get_log, quoted
from jobify_django.outage import Outage
from jobify_django.pool.report import report_rescued
from jobify_django.runtime import MACHINE, Runtime
from jobify_django.stores import every_store
from jobify_django.stores.base import Store

logger = get_log("jobify.worker")

LOOK_EVERY = 60.0
"""Seconds between two checks. A queue is logged once, and again if it was gone meanwhile."""

LAST_LOOK = 0.5
"""Seconds that ``join`` waits for a check that is under way."""


class LeftoverWatch:
    """A thread that checks every store that may hold jobs, at once and every minute.

    It is no chore of a pool: a store that no setting names has none, and one that does not answer must not
    keep a pool's upkeep from renewing leases.

    Args:
        served: the stores that have a pool in this process; pools of theirs rescue and prune there.
        runtime: the machine it runs on.
    """

    def __init__(self, served: Collection[Store], runtime: Runtime = MACHINE) -> None:
        self._runtime = runtime
        self._served = served
        self._said: dict[Store, set[str]] = {}
        self._deserted: set[Store] = set()
        self._trouble = Outage(runtime)
        self._stop = runtime.event()
        self._thread: Any = None

    def start(self) -> None:
        """Begin, on a thread of its own."""
        thread = self._runtime.thread(target=self._run, name="jobify-upkeep-unserved", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # the system has no room for it; jobs run all the same
            logger.warning("event=upkeep-failed error=%r", str(error))
        else:
            self._thread = thread

    def stop(self) -> None:
        """End soon."""
        self._stop.set()

    def join(self) -> None:
        """Wait for the end, but not for a database that does not answer."""
        if self._thread is not None:
            self._thread.join(LAST_LOOK)

    def _run(self) -> None:
        while True:
            try:
                self.look()
            except Exception as error:
                if (word := self._trouble.fail(error)) is not None:
                    logger.warning(
                        "event=upkeep-failed error=%r", str(error), exc_info=error if word.new else None
                    )
            else:
                self._trouble.over()
            finally:
                connections.close_all()  # this thread's
            if self._stop.wait(LOOK_EVERY):
                return

    def look(self) -> None:
        """Check once, and log what is new."""
        for store in every_store():
            with contextlib.suppress(StoreError):  # its pools say that it is away
                if store not in self._served:
                    self._rescue(store)
                self._look_into(store)

    def _look_into(self, store: Store) -> None:
        found = {leftover.name: leftover for leftover in leftovers_in(store) if _waits(leftover)}
        said = self._said.get(store, set())
        self._said[store] = set(found)
        for name in sorted(found.keys() - said):
            _warn(found[name])

    def _rescue(self, store: Store) -> None:
        """Take the jobs of dead pools back where no pool is alive to do it, or they would run for ever.

        Only at the second look in a row that finds none: after an outage, pools report themselves anew.
        """
        if store.pools():
            self._deserted.discard(store)
        elif store not in self._deserted:
            self._deserted.add(store)
        else:
            for one in store.rescue():
                report_rescued(one)


def _waits(leftover: Leftover) -> bool:
    return not leftover.stats.pools and bool(leftover.stats.waiting or leftover.stats.delayed)


def _warn(leftover: Leftover) -> None:
    logger.warning(
        "event=unserved queue=%s store=%s waiting=%d delayed=%d: %s, and no live pool serves it there, so "
        "its jobs wait; %s",
        quoted(leftover.name),
        quoted(leftover.store.alias),
        leftover.stats.waiting,
        leftover.stats.delayed,
        leftover.fault,
        leftover.remedy,
    )
