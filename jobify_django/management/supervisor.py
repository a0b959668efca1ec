"""``runjobs --processes N``: a process that keeps N others running, and does nothing else.

Its signal handlers and the threads that wait for its children only put what happened into one queue; the
main thread takes it out and acts.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from queue import Empty, SimpleQueue

from jobify_django.log import get_log
from jobify_django.management.child import EXIT_JOBS_LEFT, PASSED_ON, Child, handled_signals
from jobify_django.management.heartbeat import EVERY, HeartbeatFile

logger = get_log("jobify.worker")

MAX_PROCESSES = 64

STEADY = 60.0
"""Seconds after which a child that dies is no sign that the next would die at once."""

LONGEST_PAUSE = 30.0
"""Seconds until a child that dies again and again is replaced, at most."""

HEARTBEAT_TIMEOUT = 5.0
"""Seconds after which a child that has sent no heartbeat counts as stuck."""


def pause(deaths: int) -> float:
    """Return the seconds until a child is replaced after so many early deaths in a row."""
    return min(LONGEST_PAUSE, 2.0 ** (deaths - 1)) if deaths else 0.0


@dataclass
class ChildSlot:
    """Where one child after another works.

    Attributes:
        number: its name, from 1 on.
        child: the one that works there now.
        due: when the next is started, on the monotonic clock.
        deaths: how many in a row died early.
        code: what the last one that ended exited with; below 0 for a signal.
    """

    number: int
    child: Child | None = None
    due: float | None = None
    deaths: int = 0
    code: int = 0


class Supervisor:
    """Starts children, replaces those that die, and ends when all of them have ended for good.

    Args:
        processes: how many.
        batch: whether a child that exits with 0 (or ``EXIT_JOBS_LEFT``) has done what it could. Without it,
            it was recycled (``--max-jobs``) or asked to end, and is replaced.
    """

    def __init__(self, processes: int, *, batch: bool) -> None:
        self._slots = [ChildSlot(number) for number in range(1, processes + 1)]
        self._batch = batch
        self._events: SimpleQueue[int | tuple[ChildSlot, int]] = SimpleQueue()
        self._stopping = False
        self._was_ready = False
        self._failed = 0
        self._last = 0

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Listen to signals while the block runs, and ignore them afterwards: the process ends then."""
        numbers = handled_signals(PASSED_ON)
        for number in numbers:
            signal.signal(number, lambda number, frame: self._events.put(number))
        try:
            yield
        finally:
            for number in numbers:
                signal.signal(number, signal.SIG_IGN)

    def run(self, heartbeat: HeartbeatFile | None) -> int:
        """Run until all children have ended for good, and return the exit code.

        Args:
            heartbeat: the file to touch while every child's pools turn.
        """
        logger.info("event=supervising processes=%d pid=%d", len(self._slots), os.getpid())
        for slot in self._slots:
            slot.due = 0.0
        try:
            while self._start_due():
                self._take(self._timeout(heartbeat))
                if heartbeat is not None and self._turns():
                    heartbeat.show()
        finally:
            if heartbeat is not None:
                heartbeat.end()
        code = self._failed or self._code()
        logger.info("event=stopped code=%d", code)
        return code

    def _code(self) -> int:
        if any(slot.code not in (0, EXIT_JOBS_LEFT) for slot in self._slots):
            return 1
        # The last one that ended knows what was left in the end.
        return 0 if self._stopping else self._last

    # Children

    def _start_due(self) -> bool:
        """Start the children whose time has come; return whether any runs or is to be started."""
        for slot in self._slots:
            # A signal that has come by now may want none of them.
            if slot.due is not None and slot.due <= time.monotonic() and self._events.empty():
                self._start(slot)
        return any(slot.child is not None or slot.due is not None for slot in self._slots)

    def _start(self, slot: ChildSlot) -> None:
        try:
            child = Child(slot.number)
        except OSError as error:
            slot.deaths += 1
            wait = pause(slot.deaths)
            slot.due = time.monotonic() + wait
            logger.error(
                "event=process-not-started process=%d error=%r restart_in=%g", slot.number, str(error), wait
            )
            return
        slot.child, slot.due = child, None
        logger.info("event=process-started process=%d pid=%d", slot.number, child.process.pid)
        waits = threading.Thread(
            target=lambda: self._events.put((slot, child.wait())), name="jobify-child", daemon=True
        )
        waits.start()

    def _take(self, timeout: float | None) -> None:
        try:
            event = self._events.get(timeout=timeout)
        except Empty:
            return
        if isinstance(event, int):
            self._pass_on(event)
        else:
            self._note_end(*event)

    def _timeout(self, heartbeat: HeartbeatFile | None) -> float | None:
        if not self._events.empty():
            return 0.0
        times = [max(0.0, slot.due - time.monotonic()) for slot in self._slots if slot.due is not None]
        return min([*times, EVERY] if heartbeat is not None else times, default=None)

    def _note_end(self, slot: ChildSlot, code: int) -> None:
        child = slot.child
        assert child is not None
        child.close()
        slot.child, slot.code = None, code
        self._was_ready = self._was_ready or self._has_been_ready(child)
        self._last = code
        if self._stopping:
            self._note_stop(slot, child, code)
        elif (code == 0 and (self._batch or child.ready)) or (code == EXIT_JOBS_LEFT and self._batch):
            self._note_success(slot, child, code)
        elif not self._was_ready:
            self._give_up(slot, child, code)
        else:
            self._replace(slot, child, code)

    def _has_been_ready(self, ended: Child) -> bool:
        """Whether any child's pools ever ran: then what a restarted one stumbles over may pass."""
        running = self._running()
        for child in running:
            child.receive()
        return any(child.ready for child in (ended, *running))

    def _note_stop(self, slot: ChildSlot, child: Child, code: int) -> None:
        if not child.listening and code in (-signal.SIGTERM, -signal.SIGINT):
            slot.code = 0  # signalled while it booted: nothing was claimed
        logger.log(
            logging.WARNING if slot.code else logging.INFO,
            "event=process-ended process=%d pid=%d %s",
            slot.number,
            child.process.pid,
            _ending(code),
        )

    def _note_success(self, slot: ChildSlot, child: Child, code: int) -> None:
        slot.deaths = 0
        slot.due = None if self._batch else 0.0
        logger.info(
            "event=process-ended process=%d pid=%d code=%d%s",
            slot.number,
            child.process.pid,
            code,
            "" if self._batch else ": starting the next",
        )

    def _give_up(self, slot: ChildSlot, child: Child, code: int) -> None:
        logger.critical(
            "event=process-failed process=%d pid=%d %s: it could not start, nor has any other; stopping",
            slot.number,
            child.process.pid,
            _ending(code),
        )
        self._failed = code if code > 0 else 1
        self._stop(signal.SIGTERM)

    def _replace(self, slot: ChildSlot, child: Child, code: int) -> None:
        lived = time.monotonic() - child.started
        slot.deaths = 0 if lived >= STEADY else slot.deaths + 1
        wait = pause(slot.deaths)
        slot.due = time.monotonic() + wait
        logger.error(
            "event=process-died process=%d pid=%d %s after=%.1f restart_in=%g: its jobs run again when their "
            "leases are over",
            slot.number,
            child.process.pid,
            _ending(code),
            lived,
            wait,
        )

    def _turns(self) -> bool:
        """Whether every child's pools turn, and no slot is empty that should not be."""
        for child in self._running():
            child.receive()
        oldest = time.monotonic() - HEARTBEAT_TIMEOUT
        return all(
            slot.due is None and (slot.child is None or slot.child.last_heartbeat > oldest)
            for slot in self._slots
        )

    # Signals

    def _pass_on(self, number: int) -> None:
        name = signal.Signals(number).name
        if name == "SIGUSR1":
            self._log_snapshot()
            self._send(number)
        else:
            logger.info("event=stopping signal=%s processes=%d", name, len(self._running()))
            self._stop(number)

    def _stop(self, number: int) -> None:
        self._stopping = True
        for slot in self._slots:
            slot.due = None
        self._send(number)

    def _send(self, number: int) -> None:
        for child in self._running():
            child.send(number)

    def _running(self) -> list[Child]:
        return [slot.child for slot in self._slots if slot.child is not None]

    def _log_snapshot(self) -> None:
        now = time.monotonic()
        lines = []
        for slot in self._slots:
            if slot.child is not None:
                child = slot.child
                lines.append(f"process {slot.number}: pid {child.process.pid}, {now - child.started:.1f} s")
            elif slot.due is not None:
                lines.append(f"process {slot.number}: starts in {max(0.0, slot.due - now):.1f} s")
        logger.warning("event=snapshot\n%s", "\n".join(lines), extra={"jobify": {"event": "snapshot"}})


def _ending(code: int) -> str:
    """Return how a process ended, for the log."""
    if code >= 0:
        return f"code={code}"
    try:
        return f"signal={signal.Signals(-code).name}"
    except ValueError:
        return f"signal={-code}"
