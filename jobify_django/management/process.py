"""A process that does nothing but run jobs: its signals, its end, its exit code."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Coroutine, Iterator, Sequence
from queue import Empty, SimpleQueue
from typing import Any

from jobify_django.exceptions import StoreError
from jobify_django.log import get_log, listed, quoted
from jobify_django.management.child import handled_signals
from jobify_django.management.heartbeat import Heartbeat
from jobify_django.pool import Service
from jobify_django.pool.loop import call_on_loop
from jobify_django.pool.pool import Pool
from jobify_django.pool.shutdown import Shutdown

logger = get_log("jobify.worker")

RELEASE_TIMEOUT = 3.5
"""Seconds after the grace in which the pools hand back what still runs; then the process ends anyhow."""

RELEASE_FROM_THREAD_TIMEOUT = 1.0
"""Seconds that a process whose event loop is stuck takes to hand its jobs back from another thread."""

EXIT_TIMEOUT = 0.5
"""Seconds Python has to shut down once the pools have stopped."""

SAME_SIGNAL_WITHIN = 0.25
"""Signals within so many seconds count as one: ``timeout`` signals its child and then its group, and foreman
sends TERM right after the terminal's Ctrl+C."""

ORPHANS_GRACE = 5.0
"""Seconds that the jobs of a process have to end when the one that started it is gone, at most."""

GONE = "reason=parent-gone"

STOP = ("SIGTERM", "SIGINT", "SIGHUP", "SIGBREAK")
ABORT = "SIGQUIT"
SNAPSHOT = "SIGUSR1"
DEADLINE_SET = "look at the deadline"
END = "end"


class Process:
    """Runs a service until a signal, or until its work is done, and knows the exit code.

    A signal handler only puts the signal into a queue (``SimpleQueue.put`` may be interrupted anywhere);
    a thread acts on it. So signals work before the event loop exists, and while a job blocks it.

    Args:
        last_resort: whether the process may be ended with ``os._exit`` when its jobs outlive it.
    """

    def __init__(self, *, last_resort: bool) -> None:
        self._last_resort = last_resort
        self._signals: SimpleQueue[str] = SimpleQueue()
        self._shutdown = Shutdown(SAME_SIGNAL_WITHIN)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._grace = 0.0
        self._deadline: float | None = None
        self._has_stopped = False
        self.code = 0

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Listen to signals while the block runs, if this is the main thread; no other one can."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {
            number: signal.signal(number, self._note) for number in handled_signals((*STOP, ABORT, SNAPSHOT))
        }
        threading.Thread(target=self._watch, name="jobify-signals", daemon=True).start()
        try:
            yield
        finally:
            for number, handler in before.items():
                # Python drops its handlers as it ends; a late second signal would turn exit 0 into 143.
                signal.signal(number, signal.SIG_IGN if self._last_resort else handler)
            if not self._last_resort:
                self._signals.put(END)

    def run(
        self,
        service: Service,
        *,
        grace: float,
        until: Callable[[], Coroutine[Any, Any, int]] | None = None,
        heartbeat: Heartbeat | None = None,
        ready: Callable[[], None] = lambda: None,
    ) -> int:
        """Run the service until a signal, or until ``until()`` returns, and return the exit code.

        Args:
            service: the pools.
            grace: seconds that running jobs have to end.
            until: what to wait for beside signals; it returns the exit code if none came first.
            heartbeat: what to show meanwhile.
            ready: called once the pools run.
        """
        self._grace = grace
        try:
            asyncio.run(self._serve(service, until, heartbeat, ready))
        finally:
            if heartbeat is not None:
                heartbeat.end()
        return self.code

    async def _serve(
        self,
        service: Service,
        until: Callable[[], Coroutine[Any, Any, int]] | None,
        heartbeat: Heartbeat | None,
        ready: Callable[[], None],
    ) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        if self._shutdown.begun:
            return  # signalled while it booted: nothing was claimed
        self._shutdown.service = service
        await service.start()
        ready()
        waits: list[asyncio.Task[Any]] = [asyncio.create_task(self._stop.wait())]
        if until is not None:
            waits.append(asyncio.create_task(until()))
        showing = (
            asyncio.create_task(heartbeat.show_while_turning(service)) if heartbeat is not None else None
        )
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        by_itself = not self._shutdown.begun
        released = await self._shutdown.drain(self._grace)
        for task in (*waits, showing):
            if task is not None:
                task.cancel()
        logger.info("event=stopped handed_back=%d", len(released))
        if by_itself and self.code == 0:
            self.code = waits[-1].result()
        self._has_stopped = True
        self._end_within(EXIT_TIMEOUT)

    def orphaned(self) -> None:
        """Stop: the parent process is gone, and nothing else would end this one."""
        if not self._shutdown.begun:
            self.stop(min(self._grace, ORPHANS_GRACE), GONE)
        else:
            time.sleep(ORPHANS_GRACE)  # it has had a part of its grace already
            self.abort(GONE)

    # Signals

    def _note(self, number: int, frame: object) -> None:
        self._signals.put(signal.Signals(number).name)

    def _watch(self) -> None:
        while True:
            timeout = None if self._deadline is None else max(0.0, self._deadline - time.monotonic())
            try:
                name = self._signals.get(timeout=timeout)
            except Empty:
                # A wait may end early where it goes by a clock that was set meanwhile.
                if self._deadline is not None and time.monotonic() < self._deadline:
                    continue
                self._end_anyhow()
                return
            if name == END:
                return
            self._act_on(name)

    def _act_on(self, name: str) -> None:
        if name == SNAPSHOT:
            self._log_snapshot()
        elif name == ABORT:
            self.abort(f"signal={name}")
        elif name in STOP and (meaning := self._shutdown.meaning()) is not None:
            if meaning == "stop" and not self._shutdown.begun:
                self.stop(self._grace, f"signal={name}")
            else:
                self.abort(f"signal={name}")

    def stop(self, grace: float, why: str) -> None:
        """Claim nothing more, and end once the running jobs have ended or ``grace`` seconds are over."""
        self._grace = grace
        self._shutdown.stop()
        if self._shutdown.service is None:
            grace = 0.0
        logger.info("event=stopping %s grace=%g: again to hand running jobs back now", why, grace)
        self._end_within(grace + RELEASE_TIMEOUT)
        self._wake()

    def abort(self, why: str) -> None:
        """Hand the running jobs back now, and end."""
        self.code = 1
        logger.warning("event=aborting %s: handing running jobs back", why)
        self._end_within(RELEASE_TIMEOUT)
        self._shutdown.release_now()
        self._wake()

    def _wake(self) -> None:
        if self._loop is not None and self._stop is not None:
            call_on_loop(self._loop, self._stop.set)

    # The end

    def _end_within(self, seconds: float) -> None:
        self._deadline = time.monotonic() + seconds
        self._signals.put(DEADLINE_SET)  # whoever calls this

    def _end_anyhow(self) -> None:
        """End the process although Python would wait.

        A sync call that an ``async def`` job made on a thread (``sync_to_async``, ``to_thread``) can't be
        stopped, and ``concurrent.futures`` joins its threads when the interpreter ends: a job that sleeps for
        an hour would keep the process for an hour. Its job has been handed back, so nothing is lost.
        """
        if not self._last_resort:
            return
        if not self._has_stopped and self._pools:
            self.code = 1
            logger.critical("event=stuck: the event loop does not turn; handing jobs back from outside")
            release = threading.Thread(target=self._release, daemon=True)
            release.start()
            release.join(RELEASE_FROM_THREAD_TIMEOUT)
        logging.shutdown()
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(self.code)

    def _release(self) -> None:
        for pool in self._pools:
            try:
                released = pool.hand_back("its process was stuck")
                pool.store.retire(pool.id)
                logger.warning("event=released jobs=%s", listed(released))
            except StoreError as error:
                logger.error("event=stopped-without-store error=%r", str(error))

    # Looking

    def _log_snapshot(self) -> None:
        lines = []
        for pool in self._pools:
            for name, slots in pool.slots.items():
                lines.append(f"queue {quoted(name)}: {slots.busy} of {slots.size} workers busy")
                lines += [
                    f"  {listed((job.claim.id, job.claim.task), ' ')} attempt {job.claim.attempt}, "
                    f"{time.monotonic() - job.began:.1f} s"
                    for job in slots.jobs()
                ]
        names = {thread.ident: thread.name for thread in threading.enumerate()}
        for ident, frame in sys._current_frames().items():
            lines.append(f"thread {quoted(names.get(ident, str(ident)))}")
            lines += "".join(traceback.format_stack(frame)).rstrip().splitlines()
        running = [job for pool in self._pools for slots in pool.slots.values() for job in slots.jobs()]
        for task in (job.task for job in running if job.task is not None):
            lines.append(f"job on the event loop: {quoted(task.get_name())}")
            for frame in task.get_stack():
                lines += "".join(traceback.format_stack(frame, 1)).rstrip().splitlines()
        logger.warning("event=snapshot\n%s", "\n".join(lines), extra={"jobify": {"event": "snapshot"}})

    @property
    def _pools(self) -> Sequence[Pool]:
        return () if self._shutdown.service is None else self._shutdown.service.pools
