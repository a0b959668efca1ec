"""What a worker process writes to stderr: one line an event, for people or for machines."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import Literal

LogFormat = Literal["text", "json"]

LEVELS = {0: logging.WARNING, 1: logging.INFO}


def configure(format: LogFormat, verbosity: int, process: int | None = None) -> None:
    """Make the ``jobify`` loggers write to stderr, unless the project has given them a handler of its own.

    Args:
        format: ``"text"`` or ``"json"``.
        verbosity: Django's ``-v``: 0 shows warnings, 1 what happens, 2 and more everything.
        process: the name of this one, if there are several.
    """
    logger = logging.getLogger("jobify")
    if logger.handlers:
        return
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter(process) if format == "json" else TextFormatter(process))
    logger.addHandler(handler)
    logger.setLevel(LEVELS.get(verbosity, logging.DEBUG))
    if logging.getLogger().handlers:
        logger.propagate = False  # or the root's handlers would write every line once more


class TextFormatter(logging.Formatter):
    """``2026-01-31 12:00:00,123 INFO [2] event=done id=…``, without the process's name if it is alone."""

    def __init__(self, process: int | None) -> None:
        name = f"[{process}] " if process else ""
        super().__init__(f"%(asctime)s %(levelname)s {name}%(message)s")


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
