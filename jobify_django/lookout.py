"""Noticing that nobody runs a queue's jobs, from the side that pushes them."""

from __future__ import annotations

import math
import os
import socket
import time
from collections import Counter

from jobify_django.bell import Call, Steps
from jobify_django.log import get_log, quoted
from jobify_django.outage import Outage
from jobify_django.stores.base import Store

logger = get_log("jobify.push")

GLANCE_EVERY = 2.5
"""Seconds between two looks of one process at one queue."""


def served(store: Store) -> Counter[str]:
    """Return how many pools of this process serve each queue of a store."""
    return store.beside("served", Counter)


class Lookout:
    """Warns, once a queue, when jobs are pushed that no live pool would run, and once a task, when none
    could."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._next: dict[str, float] = {}
        self._main: set[str] = set()
        self._blind = Outage()

    def warn_of_main(self, task: str, queue: str) -> None:
        """Say that a task is pushed which only this process has, if this process does not serve the queue."""
        if not self._store.shared or task in self._main or served(self._store)[queue] > 0:
            return
        self._main.add(task)
        logger.warning(
            "event=main-task task=%s queue=%s: the module it is declared in is this process's own script or "
            "shell, so the workers of other processes do not have it, and its jobs wait for ever unless this "
            "process runs them. Move it into a module 'tasks' of an installed app.",
            quoted(task),
            quoted(queue),
        )

    def is_due(self, queue: str) -> bool:
        """Whether the last look at the queue is old."""
        return time.monotonic() >= self._next.get(queue, 0.0)

    def glance(self, queue: str) -> Steps[None]:
        """Look whether a pool serves the queue."""
        self._next[queue] = time.monotonic() + GLANCE_EVERY
        try:
            pools = yield Call(self._store.pools)
        except Exception as error:  # the push itself went through: its caller must not push again
            if (word := self._blind.fail(error)) is not None:
                logger.warning(
                    "event=lookout-failed store=%s queue=%s looks=%d: cannot tell whether a worker is alive",
                    quoted(self._store.alias),
                    quoted(queue),
                    word.times,
                    exc_info=word.new,
                )
            return
        if times := self._blind.over():
            logger.info("event=lookout-back store=%s looks=%d", quoted(self._store.alias), times)
        here = (socket.gethostname(), os.getpid())
        if self._store.hints.heard("work") and here not in ((pool.host, pool.pid) for pool in pools):
            return  # this process's own pool has just started, and not reported itself yet
        if not any(queue in pool.queues for pool in pools):
            self._next[queue] = math.inf
            logger.warning(
                "no worker is alive for queue %r: its jobs wait until 'manage.py runjobs' runs, or the site "
                "is served by an ASGI server that supports lifespan, with jobify_django.asgi.lifespan in "
                "asgi.py. 'manage.py jobs doctor' tells more.",
                queue,
            )
