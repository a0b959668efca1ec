"""Waiting for jobs to end, for everybody of this process who waits on one store.

One of the waiting asks the store for all of them, so that ten thousand waits cost one query a poll. If it
cannot (its thread is busy, its event loop is blocked), another one does, and no wait times out without a look
of its own.
"""

from __future__ import annotations

import itertools
import math
import os
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

from jobify_django.bell import OVERDUE, Bell, Call, Pause, Steps
from jobify_django.exceptions import JobNotFound, WaitDeadlock, WaitTimeout
from jobify_django.job import RUNNING, JobRecord
from jobify_django.line import LOOK_AT_WORKERS, Inside, inside
from jobify_django.stores.base import Store
from jobify_django.stores.value import Anchor

SHORTEST_POLL = 0.05
LONGEST_POLL = 1.0

LONGEST_WATCH = 15.0
"""Seconds after which everybody looks whether the one who asks for all does."""


def until_ended(
    store: Store, id: str, anchor: Anchor | None, timeout: float | None, bell: Bell
) -> Steps[JobRecord]:
    """Return the job's record once it has ended. An anchor is read instead of the store.

    Raises ``WaitTimeout`` after ``timeout`` seconds, ``JobNotFound`` if the store does not hold the job, and
    ``WaitDeadlock`` if no worker could run it meanwhile: none sees it, or each of them waits.
    """
    record = yield from _read_committed(store, id, anchor, timeout)
    if record.status.ended:
        return record
    job = inside.get()
    if job is None or timeout == 0:  # 0 only looks
        return (yield from _until_ended(store, id, anchor, timeout, bell))
    queue = (yield from _read(store, id, anchor)).queue
    workers = _Workers(store, id, anchor, queue, job)
    left = job.begin_wait(queue, anyway=True)
    try:
        if not left:
            yield from workers.assert_others()
        return (yield from _until_ended(store, id, anchor, timeout, bell, workers))
    finally:
        job.end_wait()


class _Workers:
    """Whether a worker is left to run the job that another job waits for.

    Those that were left when the wait began may be taken by others who wait meanwhile.
    """

    def __init__(self, store: Store, id: str, anchor: Anchor | None, queue: str, job: Inside) -> None:
        self._store = store
        self._id = id
        self._anchor = anchor
        self._queue = queue
        self._job = job
        self._pause = LOOK_AT_WORKERS
        self.next_look = time.monotonic() + self._pause

    def look(self) -> Steps[None]:
        """Look again, if it is time to; raises ``WaitDeadlock``."""
        if time.monotonic() < self.next_look:
            return
        if not self._job.may_go_on(self._queue):
            yield from self.assert_others()
            self._pause = min(2 * self._pause, LONGEST_WATCH)
        self.next_look = time.monotonic() + self._pause

    def assert_others(self) -> Steps[None]:
        """Raise ``WaitDeadlock`` if only the workers of this process, which all wait, could run the job."""
        pools = [pool for pool in (yield Call(self._store.pools)) if self._queue in pool.queues]
        here = (socket.gethostname(), os.getpid())
        others = len(pools) - any((pool.host, pool.pid) == here for pool in pools)
        # Read after the pools: one that has started is no matter of workers any more.
        record = yield from _read(self._store, self._id, self._anchor)
        if not others and record.status is not RUNNING and not record.status.ended:
            raise WaitDeadlock(
                f"job {self._id} is in queue {self._queue!r}, and every worker that serves it is taken by a "
                "job that waits, so waiting for it here would never end. Raise WORKERS of the queue, push it "
                "to another queue with using(queue=...), or do not wait for it: it runs once this job has "
                "ended."
            )


def _until_ended(
    store: Store,
    id: str,
    anchor: Anchor | None,
    timeout: float | None,
    bell: Bell,
    workers: _Workers | None = None,
) -> Steps[JobRecord]:
    deadline = math.inf if timeout is None else time.monotonic() + timeout
    watch: Watch = store.beside("watch", Watch, store)
    wish = watch.join(id, anchor, bell)
    poll = SHORTEST_POLL
    looked = True
    try:
        # Once more: it may have ended before this wait could be told.
        if (ended := (yield from _ended(store, id, anchor))) is not None:
            return ended
        while True:
            if watch.is_led_by(wish):
                began = time.monotonic()
                if began >= watch.not_before:
                    ids = watch.ids()
                    watch.deliver(ids, (yield Call(partial(watch.ask, ids))))
                    looked = True
                    # However many wait and however often they are rung, asking takes a third of the time.
                    watch.not_before = began + 3 * (time.monotonic() - began)
                    poll = min(poll * 1.5, LONGEST_POLL)
                    seconds = poll
                else:
                    seconds = watch.not_before - began
            else:
                seconds = watch.patience_of(wish)
            if wish.done:
                return _found(wish.record, id)
            left = deadline - time.monotonic()
            if left <= 0:
                # Who asks for all may be unable to.
                if not looked and (ended := (yield from _ended(store, id, anchor))) is not None:
                    return ended
                raise WaitTimeout(f"job {id} had not ended after {timeout:g} s; it goes on.")
            seconds = min(seconds, left)
            if workers is not None:
                yield from workers.look()
                seconds = max(0.0, min(seconds, workers.next_look - time.monotonic()))
            yield Pause(seconds)
            looked = False
            if wish.told:
                wish.told = False
                looked = True
                if (ended := (yield from _ended(store, id, anchor))) is not None:
                    return ended
    finally:
        watch.leave(wish)


def _ended(store: Store, id: str, anchor: Anchor | None) -> Steps[JobRecord | None]:
    record = yield from _read(store, id, anchor)
    return record if record.status.ended else None


def _read_committed(store: Store, id: str, anchor: Anchor | None, timeout: float | None) -> Steps[JobRecord]:
    """Read a job that is to be waited for; raises ``WaitDeadlock`` if this thread has yet to commit it."""
    if anchor is not None:
        return anchor.record()
    # In one call: an event loop runs each on another thread.
    found, unseen = yield Call(lambda: (store.get((id,)).get(id), timeout != 0 and store.unseen(id)))
    record = _found(found, id)
    if unseen and not record.status.ended:
        raise WaitDeadlock(f"job {id} is not committed, and waiting for it here would never end: {unseen}")
    return record


def _read(store: Store, id: str, anchor: Anchor | None) -> Steps[JobRecord]:
    if anchor is not None:
        return anchor.record()
    return _found((yield Call(partial(store.get, (id,)))).get(id), id)


def _found(record: JobRecord | None, id: str) -> JobRecord:
    if record is None:
        raise JobNotFound(
            f"the store holds no job {id}: its transaction is not committed or was rolled back, or it "
            "ended and was pruned (JOBIFY['RETENTION'])."
        )
    return record


class Wish:
    """One wait for one job's end."""

    __slots__ = ("anchor", "bell", "done", "id", "number", "record", "told")

    def __init__(self, number: int, id: str, anchor: Anchor | None, bell: Bell) -> None:
        self.number = number
        self.id = id
        self.anchor = anchor
        self.bell = bell
        self.told = False
        self.done = False
        self.record: JobRecord | None = None


class Watch:
    """All the waits of this process on one store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._wishes: dict[str, list[Wish]] = {}
        self._order: dict[Wish, None] = {}
        self._arrivals = itertools.count()
        self._asking = 0
        self._due = math.inf
        self.not_before = 0.0
        self._unsubscribe: Callable[[], None] | None = None

    @property
    def leader(self) -> Wish | None:
        """Who asks for all: the one who has waited longest."""
        with self._lock:
            return self._first()

    def ids(self) -> list[str]:
        """Return the ids of the jobs waited for."""
        with self._lock:
            return list(self._wishes)

    def join(self, id: str, anchor: Anchor | None, bell: Bell) -> Wish:
        """Start a wait."""
        with self._lock:
            wish = Wish(next(self._arrivals), id, anchor, bell)
            self._wishes.setdefault(id, []).append(wish)
            self._order[wish] = None
            if self._first() is wish:
                self._due = time.monotonic() + OVERDUE
            if self._unsubscribe is None:
                self._unsubscribe = self._store.hints.subscribe("ended", self._on_ended)
        return wish

    def leave(self, wish: Wish) -> None:
        """End a wait; if it led, another leads."""
        with self._lock:
            if wish not in self._order:
                return  # its event loop was closed
            led = self._first() is wish
            self._forget(wish)
            heir = self._first() if led else None
            if heir is not None:
                self._due = max(time.monotonic(), self.not_before) + OVERDUE
            unsubscribe = None
            if not self._order:
                unsubscribe, self._unsubscribe = self._unsubscribe, None
        if heir is not None:
            heir.bell.ring()
        if unsubscribe is not None:
            unsubscribe()

    def is_led_by(self, wish: Wish) -> bool:
        """Whether this one is to ask for all: also if the leader has not begun to in its time."""
        with self._lock:
            if self._first() is wish:
                return True
            if self._asking or time.monotonic() < self._due:
                return False
            self._order = {wish: None, **self._order}
            self._due = time.monotonic() + OVERDUE
            return True

    def patience_of(self, wish: Wish) -> float:
        """Seconds until this one must look again whether the leader asks: the longer it waits, the sooner."""
        with self._lock:
            leader = self._first()
            assert leader is not None
            rank = min(abs(wish.number - leader.number), len(self._order))
            return max(0.0, self._due - time.monotonic()) + min(OVERDUE * rank, LONGEST_WATCH)

    def ask(self, ids: Sequence[str]) -> Mapping[str, JobRecord]:
        """Read the jobs, for all."""
        began = time.monotonic()
        with self._lock:
            self._asking += 1
        try:
            return self._store.get(ids)
        finally:
            now = time.monotonic()
            with self._lock:
                self._asking -= 1
                self._due = now + max(LONGEST_POLL, 3 * (now - began)) + OVERDUE

    def _first(self) -> Wish | None:
        while (first := next(iter(self._order), None)) is not None and first.bell.dead:
            self._forget(first)
        return first

    def _forget(self, wish: Wish) -> None:
        del self._order[wish]
        mine = self._wishes[wish.id]
        mine.remove(wish)
        if not mine:
            del self._wishes[wish.id]

    def deliver(self, ids: Iterable[str], records: Mapping[str, JobRecord]) -> None:
        """Hand out what the leader found: ended jobs, and jobs that are gone."""
        with self._lock:
            for id in ids:
                for wish in self._wishes.get(id, ()):
                    record = wish.anchor.record() if wish.anchor is not None else records.get(id)
                    if record is None or record.status.ended:
                        wish.done, wish.record = True, record
                        wish.bell.ring()

    def _on_ended(self, ids: object) -> None:
        if ids is None:
            if (leader := self.leader) is not None:
                leader.bell.ring()
            return
        with self._lock:
            wishes = [wish for id in ids for wish in self._wishes.get(id, ())]  # type: ignore[attr-defined]
        for wish in wishes:
            wish.told = True
            wish.bell.ring()
