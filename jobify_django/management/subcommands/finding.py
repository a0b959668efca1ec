"""What the doctor finds, one line each, and how a check that breaks becomes one of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Literal, NamedTuple

from django.core import checks
from django.core.exceptions import ImproperlyConfigured

from jobify_django.exceptions import JobifyError, StoreError

Level = Literal["PASS", "NOTE", "WARN", "FAIL"]


class Finding(NamedTuple):
    """One line of the report.

    Attributes:
        level: PASS, it was checked and is right; NOTE, something to know, that is neither right nor wrong;
            WARN, jobs wait or soon will; FAIL, it does not work.
        text: what was found.
        fix: what to do about it.
        id: the check that found it, for programs.
    """

    level: Level
    text: str
    fix: str = ""
    id: str = ""


Check = Callable[[], Iterable[Finding]]


def from_message(message: checks.CheckMessage) -> Finding:
    """Return what a system check says."""
    level: Level = "NOTE"
    if message.level >= checks.WARNING:
        level = "FAIL" if message.level >= checks.ERROR else "WARN"
    return Finding(level, f"{message.id}: {message.msg}", message.hint or "", message.id or "")


def findings_of(
    id: str, subject: str, check: Check, *, reported_elsewhere: bool = False
) -> Iterator[Finding]:
    """Check, and make a FAIL of whatever that raises, ``SystemExit`` of an imported module too.

    Args:
        id: of the findings that have none.
        subject: what is checked, for the text of that FAIL.
        check: finds something.
        reported_elsewhere: whether it was said already if the store does not answer.
    """
    try:
        for finding in check():
            yield finding if finding.id else finding._replace(id=id)
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:
        if reported_elsewhere and isinstance(error, StoreError):
            return
        yield Finding("FAIL", f"{subject}: {described(error)}", id=id)


def described(error: BaseException) -> str:
    """Return what an error says; one that is not of this app with its type."""
    if isinstance(error, (JobifyError, ImproperlyConfigured)):
        return str(error)
    return f"{type(error).__qualname__}: {error}"
