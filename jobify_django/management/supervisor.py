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
from jobify_django.management.child import LEFT, PASSED_ON, Child, heeded
from jobify_django.management.heartbeat import EVERY, Heartbeat

logger = get_log("jobify.worker")

MAX_PROCESSES = 64

STEADY = 60.0
"""Seconds after which a child that dies is no sign that the next would die at once."""

LONGEST_PAUSE = 30.0
"""Seconds until a child that dies again and again is replaced, at most."""

PULSE = 5.0
"""Seconds after which a child that has sent no heartbeat counts as stuck."""


def pause(deaths: int) -> float:
    """Return the seconds until a child is replaced after so many early deaths in a row."""
    return min(LONGEST_PAUSE, 2.0 ** (deaths - 1)) if deaths else 0.0


@dataclass
class Place:
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
        batch: whether a child that exits with 0 (or ``LEFT``) has done what it could. Without it, it was
            recycled (``--max-jobs``) or asked to end, and is replaced.
    """

    def __init__(self, processes: int, *, batch: bool) -> None:
        self._places = [Place(number) for number in range(1, processes + 1)]
        self._batch = batch
        self._events: SimpleQueue[int | tuple[Place, int]] = SimpleQueue()
        self._stopping = False
        self._proven = False
        self._failed = 0
        self._last = 0

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Listen to signals while the block runs, and ignore them afterwards: the process ends then."""
        numbers = heeded(PASSED_ON)
        for number in numbers:
            signal.signal(number, lambda number, frame: self._events.put(number))
        try:
            yield
        finally:
            for number in numbers:
                signal.signal(number, signal.SIG_IGN)

    def run(self, heartbeat: Heartbeat | None) -> int:
        """Run until all children have ended for good, and return the exit code.

        Args:
            heartbeat: the file to touch while every child's pools turn.
        """
        logger.info("event=supervising processes=%d pid=%d", len(self._places), os.getpid())
        for place in self._places:
            place.due = 0.0
        try:
            while self._start_due():
                self._take(self._patience(heartbeat))
                if heartbeat is not None and self._turns():
                    heartbeat.show()
        finally:
            if heartbeat is not None:
                heartbeat.end()
        code = self._failed or self._code()
        logger.info("event=stopped code=%d", code)
        return code

    def _code(self) -> int:
        if any(place.code not in (0, LEFT) for place in self._places):
            return 1
        # The last one that ended knows what was left in the end.
        return 0 if self._stopping else self._last

    # Children

    def _start_due(self) -> bool:
        """Start the children whose time has come; return whether any runs or is to be started."""
        for place in self._places:
            # A signal that has come by now may want none of them.
            if place.due is not None and place.due <= time.monotonic() and self._events.empty():
                self._start(place)
        return any(place.child is not None or place.due is not None for place in self._places)

    def _start(self, place: Place) -> None:
        try:
            child = Child(place.number)
        except OSError as error:
            place.deaths += 1
            wait = pause(place.deaths)
            place.due = time.monotonic() + wait
            logger.error(
                "event=process-not-started process=%d error=%r restart_in=%g", place.number, str(error), wait
            )
            return
        place.child, place.due = child, None
        logger.info("event=process-started process=%d pid=%d", place.number, child.process.pid)
        waits = threading.Thread(
            target=lambda: self._events.put((place, child.wait())), name="jobify-child", daemon=True
        )
        waits.start()

    def _take(self, patience: float | None) -> None:
        try:
            event = self._events.get(timeout=patience)
        except Empty:
            return
        if isinstance(event, int):
            self._pass_on(event)
        else:
            self._note_end(*event)

    def _patience(self, heartbeat: Heartbeat | None) -> float | None:
        if not self._events.empty():
            return 0.0
        times = [max(0.0, place.due - time.monotonic()) for place in self._places if place.due is not None]
        return min([*times, EVERY] if heartbeat is not None else times, default=None)

    def _note_end(self, place: Place, code: int) -> None:
        child = place.child
        assert child is not None
        child.close()
        place.child, place.code = None, code
        self._proven = self._proven or self._has_proven(child)
        self._last = code
        if self._stopping:
            self._note_stop(place, child, code)
        elif (code == 0 and (self._batch or child.ready)) or (code == LEFT and self._batch):
            self._note_success(place, child, code)
        elif not self._proven:
            self._give_up(place, child, code)
        else:
            self._replace(place, child, code)

    def _has_proven(self, ended: Child) -> bool:
        """Whether any child's pools ever ran: then what a restarted one stumbles over may pass."""
        running = self._running()
        for child in running:
            child.hear()
        return any(child.ready for child in (ended, *running))

    def _note_stop(self, place: Place, child: Child, code: int) -> None:
        if not child.listening and code in (-signal.SIGTERM, -signal.SIGINT):
            place.code = 0  # signalled while it booted: nothing was claimed
        logger.log(
            logging.WARNING if place.code else logging.INFO,
            "event=process-ended process=%d pid=%d %s",
            place.number,
            child.process.pid,
            _ending(code),
        )

    def _note_success(self, place: Place, child: Child, code: int) -> None:
        place.deaths = 0
        place.due = None if self._batch else 0.0
        logger.info(
            "event=process-ended process=%d pid=%d code=%d%s",
            place.number,
            child.process.pid,
            code,
            "" if self._batch else ": starting the next",
        )

    def _give_up(self, place: Place, child: Child, code: int) -> None:
        logger.critical(
            "event=process-failed process=%d pid=%d %s: it could not start, nor has any other; stopping",
            place.number,
            child.process.pid,
            _ending(code),
        )
        self._failed = code if code > 0 else 1
        self._stop(signal.SIGTERM)

    def _replace(self, place: Place, child: Child, code: int) -> None:
        lived = time.monotonic() - child.started
        place.deaths = 0 if lived >= STEADY else place.deaths + 1
        wait = pause(place.deaths)
        place.due = time.monotonic() + wait
        logger.error(
            "event=process-died process=%d pid=%d %s after=%.1f restart_in=%g: its jobs run again when their "
            "leases are over",
            place.number,
            child.process.pid,
            _ending(code),
            lived,
            wait,
        )

    def _turns(self) -> bool:
        """Whether every child's pools turn, and no place is empty that should not be."""
        for child in self._running():
            child.hear()
        oldest = time.monotonic() - PULSE
        return all(
            place.due is None and (place.child is None or place.child.beat > oldest) for place in self._places
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
        for place in self._places:
            place.due = None
        self._send(number)

    def _send(self, number: int) -> None:
        for child in self._running():
            child.send(number)

    def _running(self) -> list[Child]:
        return [place.child for place in self._places if place.child is not None]

    def _log_snapshot(self) -> None:
        now = time.monotonic()
        lines = []
        for place in self._places:
            if place.child is not None:
                child = place.child
                lines.append(f"process {place.number}: pid {child.process.pid}, {now - child.started:.1f} s")
            elif place.due is not None:
                lines.append(f"process {place.number}: starts in {max(0.0, place.due - now):.1f} s")
        logger.warning("event=snapshot\n%s", "\n".join(lines), extra={"jobify": {"event": "snapshot"}})


def _ending(code: int) -> str:
    """Return how a process ended, for the log."""
    if code >= 0:
        return f"code={code}"
    try:
        return f"signal={signal.Signals(-code).name}"
    except ValueError:
        return f"signal={-code}"
