"""Warning when jobs are pushed that no worker would run.

There are two such cases: no pool that is alive serves the queue of the jobs, or their task is declared where
only this process can import it. (A pool is what runs jobs in one process: its workers for some queues.)
"""

from __future__ import annotations

import math

from jobify_django.log import get_log, quoted
from jobify_django.repeated_failure import RepeatedFailure
from jobify_django.runtime import Runtime
from jobify_django.stores.base import Store
from jobify_django.waiting.waker import BlockingCall, Steps

logger = get_log("jobify.push")

CHECK_EVERY = 2.5
"""Seconds between two checks of one process whether a queue is served."""


class UnservedWarnings:
    """Warns once of each queue that no live pool serves, and once of each task that only this process has."""

    def __init__(self, runtime: Runtime) -> None:
        self._monotonic = runtime.monotonic
        self._next_check: dict[str, float] = {}
        self._warned_of: set[str] = set()
        self._failures = RepeatedFailure(runtime)

    def warn_unless_served_here(self, store: Store, task: str, queue: str) -> None:
        """Warn, once, that no other process can run a task, unless this one serves the task's queue.

        The caller has found that other processes cannot import the task.
        """
        if not store.shared or task in self._warned_of or store.queues_here[queue] > 0:
            return
        self._warned_of.add(task)
        logger.warning(
            "event=main-task task=%s queue=%s: the module it is declared in is this process's own script or "
            "shell, so the workers of other processes do not have it, and its jobs wait for ever unless this "
            "process runs them. Move it into a module 'tasks' of an installed app.",
            quoted(task),
            quoted(queue),
        )

    def is_due(self, queue: str) -> bool:
        """Whether it is time to check again that a pool serves the queue."""
        return self._monotonic() >= self._next_check.get(queue, 0.0)

    def warn_if_unserved(self, store: Store, queue: str) -> Steps[None]:
        """Check that a pool serves the queue, and warn if none does."""
        self._next_check[queue] = self._monotonic() + CHECK_EVERY
        try:
            pools = yield BlockingCall(store.pools)
        except Exception as error:  # the push itself went through: its caller must not push again
            if (report := self._failures.fail(error)) is not None:  # ``None``: this error was logged just now
                # "Lookout" is this check, in the log.
                logger.warning(
                    "event=lookout-failed store=%s queue=%s looks=%d: cannot tell whether a worker is alive",
                    quoted(store.alias),
                    quoted(queue),
                    report.times,
                    exc_info=report.new,
                )
            return
        if times := self._failures.recovered():
            logger.info("event=lookout-back store=%s looks=%d", quoted(store.alias), times)
        # A pool of this process listens for work: it has just started, and the store does not know it yet.
        if store.notifier.has_listeners("work") and not any(pool.is_here(store.runtime) for pool in pools):
            return
        if not any(queue in pool.queues for pool in pools):
            self._next_check[queue] = math.inf
            logger.warning(
                "no worker is alive for queue %r: its jobs wait until 'manage.py runjobs' runs, or the site "
                "is served by an ASGI server that supports lifespan, with jobify_django.asgi.lifespan in "
                "asgi.py. 'manage.py jobs doctor' tells more.",
                queue,
            )
