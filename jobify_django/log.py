"""The loggers of this package. A project's filters and handlers on them are others' code: what they raise
must not end a loop of ours.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import traceback
from collections.abc import MutableMapping
from typing import Any


class Log(logging.LoggerAdapter[logging.Logger]):
    """A logger whose calls never raise, although a filter or a handler of the project does.

    ``logging`` itself catches only what a handler meets while it writes. What is caught here goes to stderr,
    as that does, unless ``logging.raiseExceptions`` is off.
    """

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        kwargs["stacklevel"] = kwargs.get("stacklevel", 1) + 1  # whoever calls this
        try:
            super().log(level, msg, *args, **kwargs)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            _complain(error, msg)

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        return msg, kwargs  # the base class would drop "extra"


def get_log(name: str) -> Log:
    """Return the logger of this name as one whose calls never raise."""
    return Log(logging.getLogger(name), {})


def _complain(error: BaseException, msg: object) -> None:
    if not logging.raiseExceptions:
        return
    with contextlib.suppress(Exception):
        sys.stderr.write(f"--- A filter or a handler raised; this line was not logged: {msg!r}\n")
        traceback.print_exception(error, file=sys.stderr)
