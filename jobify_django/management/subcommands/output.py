"""How ``manage.py jobs`` reads its arguments and shows values."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from django.core.management.base import CommandError, OutputWrapper

from jobify_django.conf import QueueSettings
from jobify_django.exceptions import InvalidPayload
from jobify_django.job import JobRecord
from jobify_django.payload import cut, decode, decode_call
from jobify_django.stores import stores


class Progress:
    """Says on a terminal how far a long command is; into a file or a pipe it writes nothing."""

    def __init__(self, err: OutputWrapper) -> None:
        self._err = err

    def __call__(self, text: str) -> None:
        """Write a line over the last one; whatever is written next stands over this one."""
        if self._err.isatty():
            self._err.write(f"\r\x1b[K{text}\r", str, ending="")
            self._err.flush()


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
    """Return the seconds of ``90``, ``90s``, ``15m``, ``5h`` or ``7d``; raises ``CommandError``."""
    found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,3})?)([smhd]?)", text)
    if found is None:
        raise CommandError(f"{text!r} is no duration; write 90s, 15m, 5h or 7d.")
    return float(found[1]) * UNITS[found[2] or "s"]


def moment(at: float | None) -> str | None:
    """Return a time in UTC as ISO 8601 text."""
    return None if at is None else datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")


def job_values(record: JobRecord) -> dict[str, Any]:
    """Return a job as JSON values."""
    args, kwargs = _call(record.arguments)
    return {
        "id": record.id,
        "task": record.task,
        "queue": record.queue,
        "status": str(record.status),
        "priority": record.priority,
        "attempts": record.attempt,
        "crashes": record.crashes,
        "pushed_at": moment(record.pushed_at),
        "eligible_at": moment(record.eligible_at),
        "started_at": moment(record.started_at),
        "ended_at": moment(record.ended_at),
        "pool": record.pool,
        "args": args,
        "kwargs": kwargs,
        "result": None if record.result is None else _result(record.result),
        "error": None
        if record.error is None
        else {"type": record.error.type, "message": record.error.message},
        "interruptions": [
            {"attempt": one.attempt, "reason": one.reason, "at": moment(one.at), "charged": one.charged}
            for one in record.history
        ],
    }


# What cannot be read is shown as it is stored, in the place of what it should be.


def _call(arguments: str) -> tuple[Any, Any]:
    try:
        return decode_call(arguments)
    except InvalidPayload:
        return f"cannot be read: {cut(arguments).text}", {}


def _result(text: str) -> Any:
    try:
        value = decode(text)
        json.dumps(value)  # one that is nested too deeply can be read and not written
    except (InvalidPayload, RecursionError):
        return f"cannot be read: {cut(text).text}"
    return value


def document(value: Any) -> str:
    """Return JSON text for people and programs."""
    return json.dumps(value, indent=2, ensure_ascii=True)


def table(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """Return rows under headings, in columns as wide as they need."""
    cells = [[plain(row.get(column)) for column in columns] for row in rows]
    widths = [max(len(line[at]) for line in [list(columns), *cells]) for at in range(len(columns))]
    lines = [
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
        for line in [list(columns), *cells]
    ]
    return "\n".join(lines)


def plain(value: object) -> str:
    """Return a value on one line, with nothing in it that a terminal would obey."""
    text = "" if value is None else str(value)
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)
