"""How ``manage.py jobs`` reads its arguments and shows values."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from io import TextIOWrapper
from typing import Any

from django.core.management.base import CommandError, OutputWrapper

from jobify_django.conf import QueueSettings
from jobify_django.job import JobRecord, JobStatus
from jobify_django.payload import UNREADABLE, in_lines, readable
from jobify_django.stores import queues_by_store, stores

USAGE = 2
"""The exit code of a wrong command line, as argparse has it."""

INTERRUPTED = 130
"""The exit code after Ctrl+C, as shells have it."""


@contextlib.contextmanager
def piped() -> Iterator[None]:
    """While the block runs, let whoever reads stdout leave before the end, as ``head`` does."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names may be in any script
    try:
        yield
    except BrokenPipeError:
        pass
    finally:
        try:
            sys.stdout.flush()
        except BrokenPipeError:
            # Or Python complains of it when it ends, and spoils the exit code.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Progress:
    """Says on a terminal how far a long command is; into a file or a pipe it writes nothing."""

    def __init__(self, err: OutputWrapper) -> None:
        self._err = err

    def __call__(self, text: str) -> None:
        """Write a line over the last one; whatever is written next stands over this one."""
        if self._err.isatty():
            self._err.write(f"\r\x1b[K{text}\r", str, ending="")
            self._err.flush()


INDENTED = 5
"""How many times as long as on one line a JSON text may be in many."""

FIRST, LAST = -62_135_596_800.0, 253_402_300_799.0
"""The first and the last second that a date can stand for, from the year 1 to 9999."""

TIMES = ("pushed_at", "eligible_at", "started_at", "ended_at")
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def elsewhere(queue: QueueSettings, *, owns_process: bool) -> bool:
    """Return whether the queue is out of this process's reach: in the memory of the one that serves it."""
    return owns_process and not stores.of(queue).shared


def refuse_elsewhere(queue: QueueSettings, *, owns_process: bool) -> None:
    """Raise ``CommandError`` if what is done to the queue here would end with this process."""
    if elsewhere(queue, owns_process=owns_process):
        raise CommandError(
            f"queue {queue.name!r} is in the memory of the process that serves it, and no other one can "
            "reach it: do this from its own code, or set the queue's STORE to 'database'."
        )


def seconds(text: str) -> float:
    """Return the seconds of ``90``, ``90s``, ``15m``, ``5h`` or ``7d``; raises ``usage``."""
    found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,3})?)([smhd]?)", text)
    if found is None:
        raise usage(f"{text!r} is no duration; write 90s, 15m, 5h or 7d.")
    return float(found[1]) * UNITS[found[2] or "s"]


def usage(message: str) -> CommandError:
    """Return the error of a command line that cannot be carried out as it is written."""
    return CommandError(message, returncode=USAGE)


def isoformat(at: float | None) -> str | None:
    """Return a time in UTC as ISO 8601 text; one that no calendar has is the first or the last it has."""
    if at is None or math.isnan(at):
        return None
    return datetime.fromtimestamp(min(max(at, FIRST), LAST), UTC).isoformat(timespec="milliseconds")


def clocks() -> Mapping[str, float]:
    """Return what time it is in each queue: stores have clocks of their own."""
    times = ((store.clock(), queues) for store, queues in queues_by_store().items())
    return {queue.name: now for now, queues in times for queue in queues}


def job_values(record: JobRecord, now: float) -> dict[str, Any]:
    """Return a job as JSON values.

    ``age`` are the seconds since it was pushed; ``run`` those that its latest attempt took, or has taken so
    far, and ``None`` where it has none or one that was interrupted. Arguments or a result that nobody can
    read are ``None``, and stand under ``unreadable`` as they are: nothing is kept from who looks for it.

    Args:
        record: the job.
        now: the time on its store's clock.
    """
    call, result = readable(record.arguments, call=True), readable(record.result)
    args, kwargs = (None, None) if call is UNREADABLE else call
    unreadable = {} if call is not UNREADABLE else {"arguments": record.arguments}
    if result is UNREADABLE:
        result, unreadable["result"] = None, record.result or ""
    return {
        "id": record.id,
        "task": record.task,
        "queue": record.queue,
        "status": str(record.status),
        "priority": record.priority,
        "attempts": record.attempt,
        "crashes": record.crashes,
        **{name: isoformat(getattr(record, name)) for name in TIMES},
        "age": round(max(0.0, now - record.pushed_at), 3),
        "run": _run(record, now),
        "pool": record.pool,
        "args": args,
        "kwargs": kwargs,
        "result": result,
        "error": None if record.error is None else asdict(record.error),
        "interruptions": [
            {"attempt": one.attempt, "reason": one.reason, "at": isoformat(one.at), "charged": one.charged}
            for one in record.history
        ],
        **({"unreadable": unreadable} if unreadable else {}),
    }


def _run(record: JobRecord, now: float) -> float | None:
    end = now if record.status is JobStatus.RUNNING else record.ended_at
    interrupted = any(one.attempt == record.attempt for one in record.history)
    if record.started_at is None or end is None or interrupted:
        return None
    return round(max(0.0, end - record.started_at), 3)


def document(value: Any) -> str:
    """Return JSON text for people and programs; on one line if indents would make it many times as long."""
    text = json.dumps(value, ensure_ascii=True)
    return in_lines(value, 10_000 + INDENTED * len(text), ascii=True) or text
