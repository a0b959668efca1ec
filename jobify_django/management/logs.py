"""What a worker process writes to stderr where the project's ``LOGGING`` does not say: one line an event, for
people or for machines."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import Any, Literal

LogFormat = Literal["text", "json"]

LEVELS = {0: logging.WARNING, 1: logging.INFO}

INDENT = "    "


def configure(format: LogFormat, verbosity: int, process: int | None = None) -> bool:
    """Make the ``jobify`` loggers write to stderr, unless the project has a handler that gets their lines.

    With one, all is left as the project wants it: its handlers, its levels, who passes what on to whom.

    Args:
        format: ``"text"`` or ``"json"``.
        verbosity: Django's ``-v``: 0 shows warnings, 1 what happens, 2 and more everything.
        process: the name of this one, if there are several.

    Returns whether it is this handler that writes.
    """
    logger = logging.getLogger("jobify")
    for handler in [one for one in logger.handlers if isinstance(one, Stderr)]:
        logger.removeHandler(handler)  # of an earlier call in this process
    if configured():
        return False
    handler = Stderr()
    handler.setFormatter(JsonFormatter(process) if format == "json" else TextFormatter(process))
    logger.addHandler(handler)
    logger.setLevel(LEVELS.get(verbosity, logging.DEBUG))
    return True


def configured() -> bool:
    """Whether the project has a handler for the lines of the ``jobify`` loggers, its own or the root's."""
    logger = logging.getLogger("jobify")
    below = [
        one
        for name, one in list(logging.root.manager.loggerDict.items())
        if name.startswith("jobify.") and isinstance(one, logging.Logger)
    ]
    return logger.hasHandlers() or any(one.handlers for one in below)


def shows_events() -> bool:
    """Whether a line for each job that ends well would be written, as far as levels tell."""
    return logging.getLogger("jobify.worker").isEnabledFor(logging.INFO)


class Stderr(logging.StreamHandler[Any]):
    """The handler that ``configure`` adds."""


class TextFormatter(logging.Formatter):
    """``2026-01-31 12:00:00,123 INFO [2] event=done id=…``, without the process's name if it is alone.

    A traceback's lines are indented, and what cannot be printed is escaped in them: no error's message can
    look like a line of its own.
    """

    def __init__(self, process: int | None) -> None:
        name = f"[{process}] " if process else ""
        super().__init__(f"%(asctime)s %(levelname)s {name}%(message)s")

    def formatException(self, error: Any) -> str:
        """Return a traceback for below the line."""
        lines = super().formatException(error).splitlines()
        return "\n".join(INDENT + "".join(map(_printable, line)) for line in lines)


def _printable(character: str) -> str:
    return character if character.isprintable() or character == "\t" else repr(character)[1:-1]


class JsonFormatter(logging.Formatter):
    """One JSON object a line: ``time``, ``level``, ``logger``, ``message``, and the fields of a job event.

    ``process`` is its name where there are several.
    """

    def __init__(self, process: int | None) -> None:
        super().__init__()
        self._named = {"process": process} if process else {}

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            **self._named,
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "jobify", {}),
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)
