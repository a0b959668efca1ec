"""Warning of jobs in queues that neither the settings of this process nor a live pool serve."""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from typing import Any

from django.db import connections

from jobify_django.exceptions import StoreError
from jobify_django.log import get_log, quoted
from jobify_django.pool.report import report_rescued
from jobify_django.repeated_failure import RepeatedFailure
from jobify_django.runtime import MACHINE, Runtime
from jobify_django.stores import every_store
from jobify_django.stores.base import Store
from jobify_django.unconfigured import UnconfiguredQueue, unconfigured_in

logger = get_log("jobify.worker")

CHECK_EVERY = 60.0
"""Seconds between two checks. A queue is logged once, and again if it was gone meanwhile."""

LAST_CHECK = 0.5
"""Seconds that ``join`` waits for a check that is under way."""


class UnconfiguredWatch:
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
        self._warned_of: dict[Store, set[str]] = {}
        self._deserted: set[Store] = set()
        self._failures = RepeatedFailure(runtime)
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
            self._thread.join(LAST_CHECK)

    def _run(self) -> None:
        while True:
            try:
                self.check()
            except Exception as error:
                if (report := self._failures.fail(error)) is not None:
                    logger.warning(
                        "event=upkeep-failed error=%r", str(error), exc_info=error if report.new else None
                    )
            else:
                self._failures.recovered()
            finally:
                connections.close_all()  # this thread's
            if self._stop.wait(CHECK_EVERY):
                return

    def check(self) -> None:
        """Check once, and log what is new."""
        for store in every_store():
            with contextlib.suppress(StoreError):  # its pools say that it is away
                if store not in self._served:
                    self._rescue(store)
                self._check_store(store)

    def _check_store(self, store: Store) -> None:
        found = {queue.name: queue for queue in unconfigured_in(store) if _waits(queue)}
        warned_of = self._warned_of.get(store, set())
        self._warned_of[store] = set(found)
        for name in sorted(found.keys() - warned_of):
            _warn(found[name])

    def _rescue(self, store: Store) -> None:
        """Take the jobs of dead pools back where no pool is alive to do it, or they would run for ever.

        Only at the second check in a row that finds none: after an outage, pools report themselves anew.
        """
        if store.pools():
            self._deserted.discard(store)
        elif store not in self._deserted:
            self._deserted.add(store)
        else:
            for one in store.rescue():
                report_rescued(one)


def _waits(queue: UnconfiguredQueue) -> bool:
    return not queue.stats.pools and bool(queue.stats.waiting or queue.stats.delayed)


def _warn(queue: UnconfiguredQueue) -> None:
    logger.warning(
        "event=unserved queue=%s store=%s waiting=%d delayed=%d: %s, and no live pool serves it there, so "
        "its jobs wait; %s",
        quoted(queue.name),
        quoted(queue.store.alias),
        queue.stats.waiting,
        queue.stats.delayed,
        queue.fault,
        queue.remedy,
    )
