"""Warning of pushes that nobody would run: no live pool serves the queue, or none elsewhere has the task."""

from __future__ import annotations

import math

from jobify_django.log import get_log, quoted
from jobify_django.outage import Outage
from jobify_django.runtime import Runtime
from jobify_django.stores.base import Store
from jobify_django.waiting.waker import Call, Steps

logger = get_log("jobify.push")

LOOK_EVERY = 2.5
"""Seconds between two looks of one process at one queue."""


class UnservedWarnings:
    """Warns, once a queue, when jobs are pushed that no live pool would run, and once a task, when none
    could."""

    def __init__(self, runtime: Runtime) -> None:
        self._monotonic = runtime.monotonic
        self._next_look: dict[str, float] = {}
        self._told_of: set[str] = set()
        self._trouble = Outage(runtime)

    def warn_of_main(self, store: Store, task: str, queue: str) -> None:
        """Say that a task is pushed which only this process has, if this process does not serve the queue."""
        if not store.shared or task in self._told_of or store.served[queue] > 0:
            return
        self._told_of.add(task)
        logger.warning(
            "event=main-task task=%s queue=%s: the module it is declared in is this process's own script or "
            "shell, so the workers of other processes do not have it, and its jobs wait for ever unless this "
            "process runs them. Move it into a module 'tasks' of an installed app.",
            quoted(task),
            quoted(queue),
        )

    def is_due(self, queue: str) -> bool:
        """Whether the last look at the queue is old."""
        return self._monotonic() >= self._next_look.get(queue, 0.0)

    def look(self, store: Store, queue: str) -> Steps[None]:
        """Look whether a pool serves the queue."""
        self._next_look[queue] = self._monotonic() + LOOK_EVERY
        try:
            pools = yield Call(store.pools)
        except Exception as error:  # the push itself went through: its caller must not push again
            if (word := self._trouble.fail(error)) is not None:
                logger.warning(
                    "event=lookout-failed store=%s queue=%s looks=%d: cannot tell whether a worker is alive",
                    quoted(store.alias),
                    quoted(queue),
                    word.times,
                    exc_info=word.new,
                )
            return
        if times := self._trouble.over():
            logger.info("event=lookout-back store=%s looks=%d", quoted(store.alias), times)
        if store.notifier.heard("work") and not any(pool.is_here(store.runtime) for pool in pools):
            return  # this process's own pool has just started, and not reported itself yet
        if not any(queue in pool.queues for pool in pools):
            self._next_look[queue] = math.inf
            logger.warning(
                "no worker is alive for queue %r: its jobs wait until 'manage.py runjobs' runs, or the site "
                "is served by an ASGI server that supports lifespan, with jobify_django.asgi.lifespan in "
                "asgi.py. 'manage.py jobs doctor' tells more.",
                queue,
            )
