"""The loggers of this package. A project's filters and handlers on them are others' code: what they raise
must not end a loop of ours.

A logger is made when the first line goes through it, never at import: ``dictConfig`` switches off every
logger that is there already, unless the project thought of ``disable_existing_loggers``.
"""

from __future__ import annotations

import contextlib
import logging
import re
import sys
import traceback
from collections.abc import Iterable, MutableMapping
from functools import cached_property
from typing import Any

PLAIN = re.compile(r"[\w.:/@+-]+")

SENTINEL = "jobify.sentinel"
"""A logger that no project names and nothing uses. If it is disabled, a configuration has disabled all
loggers that it did not name."""


class Log(logging.LoggerAdapter[logging.Logger]):
    """A logger whose calls never raise, although a filter or a handler of the project does.

    ``logging`` itself catches only what a handler meets while it writes. What is caught here goes to stderr,
    as that does, unless ``logging.raiseExceptions`` is off.

    Args:
        name: the logger's name; it is looked up at the first use.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self.extra = {}

    @cached_property
    def logger(self) -> logging.Logger:  # type: ignore[override]
        """The logger itself, made now if the project has not named it."""
        logging.getLogger(SENTINEL)
        return logging.getLogger(self._name)

    def isEnabledFor(self, level: int) -> bool:
        """Whether a line of this level would be written."""
        if self.logger.disabled:
            self._enable_again()
        return self.logger.isEnabledFor(level)

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """Write a line, whose ``msg`` is the same for every line of its kind; text from outside in ``args``
        goes through ``quoted``, or is written as ``%r``."""
        kwargs["stacklevel"] = kwargs.get("stacklevel", 1) + 1  # whoever calls this
        try:
            super().log(level, msg, *args, **kwargs)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            _complain(error, msg)

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """Leave ``extra`` alone, which the base class would drop."""
        return msg, kwargs

    def _enable_again(self) -> None:
        """Be on again where a later ``dictConfig`` or ``fileConfig`` has switched off all it did not name.

        The new configuration would have applied to a logger made a moment later, and a job that fails must
        not go without a word. A project silences one by its level, or by ``disabled`` on this one.
        """
        if logging.getLogger(SENTINEL).disabled:
            self.logger.disabled = False


def get_log(name: str) -> Log:
    """Return the logger of this name as one whose calls never raise."""
    return Log(name)


def quoted(value: object) -> str:
    """Return text from outside (a name from a row, a path, a host) as a line may hold it: as it is if it is
    one plain word, otherwise quoted, so that it cannot end the line or look like another field."""
    text = value if isinstance(value, str) else described(value)
    return text if PLAIN.fullmatch(text) else repr(text)


def listed(values: Iterable[object], separator: str = ",") -> str:
    """Return several such texts, each as ``quoted`` has it."""
    return separator.join(map(quoted, values))


def described(thing: object) -> str:
    """Return a thing's ``repr``, or its type where that raises."""
    try:
        return repr(thing)
    except Exception:
        return f"<{type(thing).__qualname__}>"


def _complain(error: BaseException, msg: object) -> None:
    if not logging.raiseExceptions:
        return
    with contextlib.suppress(Exception):
        sys.stderr.write(f"--- A filter or a handler raised; this line was not logged: {msg!r}\n")
        traceback.print_exception(error, file=sys.stderr)
