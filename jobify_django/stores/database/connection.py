"""Statements on the calling thread's connection, and what is true of every database's connections."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any, Protocol, TypeVar

from django.apps import apps
from django.db import router
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.utils import CursorWrapper

from jobify_django.exceptions import StoreUnmigrated
from jobify_django.runtime import Runtime

APP = "jobify_django"
ROUTER = "jobify_django.router.JobifyRouter"

T = TypeVar("T")
Row = tuple[Any, ...]

Held = Sequence[tuple[str, int]]
"""Attempts that hold their jobs: the jobs' ids, and the attempts' numbers."""

LONGEST_LOCK_WAIT = 20.0
"""Seconds a change waits for others who hold what it needs."""

SHORTEST_LOCK_WAIT = 2.0
"""The same for a change that should not wait: a short commit of another transaction is no reason to give
up."""

CHUNK = 500
"""Values in one statement."""


class Cursor(Protocol):
    """What ``execute`` returns."""

    rowcount: int

    def fetchone(self) -> Any:
        """Return the next row, or ``None``."""

    def fetchall(self) -> list[Any]:
        """Return the rows left."""


class Connection(Protocol):
    """A connection that statements with question marks, or with ``:name``, run on."""

    def execute(self, statement: str, values: Sequence[Any] | Mapping[str, Any] = ..., /) -> Cursor:
        """Run a statement."""


class Statements:
    """Runs statements with question marks on a Django cursor.

    Args:
        cursor: Django's.
        spell: makes of a statement what the driver wants.
        runtime: the machine it runs on.
        until: when, on its monotonic clock, the last of them may have waited for others' locks.
    """

    def __init__(
        self,
        cursor: CursorWrapper,
        spell: Callable[[str], str],
        runtime: Runtime,
        until: float | None = None,
    ) -> None:
        self._cursor = cursor
        self._spell = spell
        self._runtime = runtime
        self._until = until

    @property
    def lock_timeout(self) -> float:
        """Seconds the next statement may wait for others' locks."""
        return LONGEST_LOCK_WAIT if self._until is None else max(0.0, self._until - self._runtime.monotonic())

    def execute(self, statement: str, values: Sequence[Any] | Mapping[str, Any] = (), /) -> Cursor:
        """Run a statement; what it returns holds until the next one."""
        self._cursor.execute(self._spell(statement), values or None)
        cursor: Any = self._cursor
        return cursor  # type: ignore[no-any-return]


@lru_cache(maxsize=512)
def translate(statement: str) -> str:
    """Return a statement with ``%s`` for each ``?``, and ``%(name)s`` for each ``:name``."""
    return re.sub(r"(?<!:):([a-z]+)", r"%(\1)s", statement).replace("?", "%s")


def array(values: Iterable[Any]) -> str:
    """Return texts and numbers as the text of one array of PostgreSQL's: a statement has one value then,
    however many they are, and so one text. Drivers take ten times as long for a list."""
    return f"{{{','.join(map(_element, values))}}}"


def _element(value: Any) -> str:
    if isinstance(value, str):
        return '"{}"'.format(value.replace("\\", "\\\\").replace('"', '\\"'))
    return "NULL" if value is None else str(value)


def placeholders(values: Collection[Any]) -> str:
    """Return ``(?, ?, ...)``."""
    return f"({', '.join('?' * len(values))})"


def chunks(items: Sequence[T], size: int = CHUNK) -> Iterable[Sequence[T]]:
    """Return the items in parts that fit into one statement."""
    return (items[start : start + size] for start in range(0, len(items), size))


def by_ids(db: Connection, start: str, ids: Sequence[str], end: str = "") -> list[Row]:
    """Return the rows of a SELECT that goes on with ids, and then with ``end``; many ids come in parts."""
    return [
        row for part in chunks(ids) for row in db.execute(start + placeholders(part) + end, part).fetchall()
    ]


def change_by_ids(db: Connection, start: str, ids: Sequence[str], *values: Any) -> None:
    """Run a statement that takes values and goes on with ids; many ids come in parts."""
    for part in chunks(ids):
        db.execute(start + placeholders(part), (*values, *part))


def by_rows(
    db: Connection, statement: str, row: str, rows: Sequence[Row], before: Row = (), after: Row = ()
) -> list[Row]:
    """Return what a statement returns that has ``row`` for each of many rows of values, in place of its
    ``%s``, and other values before and after them; many rows come in parts."""
    found: list[Row] = []
    for part in chunks(rows):
        values = chain(before, chain.from_iterable(part), after)
        found += db.execute(statement % ", ".join([row] * len(part)), tuple(values)).fetchall()
    return found


def lock_wait(seconds: float | None) -> float:
    """Return how long a call may wait for others' locks, of what its caller allows."""
    return LONGEST_LOCK_WAIT if seconds is None else min(LONGEST_LOCK_WAIT, max(SHORTEST_LOCK_WAIT, seconds))


def sql_state(error: BaseException) -> str:
    """Return the code that PostgreSQL has given an error of Django's; an empty text without one."""
    cause = error.__cause__
    return getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None) or ""


def autocommits(wrapper: BaseDatabaseWrapper) -> bool:
    """Whether what is written outside of ``atomic`` is committed at once, and not when the caller says."""
    if wrapper.connection is None:
        return bool(wrapper.settings_dict["AUTOCOMMIT"])
    return wrapper.in_atomic_block or wrapper.autocommit


FOR_REQUESTS = ("pool", "server_side_binding")
"""Options that suit requests: a pool that others can empty, and a way to send statements one at a time."""


def unshared(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return an alias's settings for a connection that one thread keeps to itself."""
    options = {name: value for name, value in settings["OPTIONS"].items() if name not in FOR_REQUESTS}
    own = {"AUTOCOMMIT": True, "CONN_MAX_AGE": None, "CONN_HEALTH_CHECKS": False}
    return {**settings, **own, "OPTIONS": options}


def unmigrated(alias: str, reason: str) -> StoreUnmigrated:
    """Return the error of a database without this version's tables."""
    return StoreUnmigrated(f"database {alias!r} lacks this version's tables ({reason}): {_way_out(alias)}")


def _way_out(alias: str) -> str:
    migrate = f"run 'manage.py migrate{'' if alias == 'default' else f' --database {alias}'}'"
    if apps.apps_ready and not apps.is_installed(APP):
        return f"{APP!r} is not in INSTALLED_APPS. Add it there, then {migrate}."
    if not router.allow_migrate(alias, APP, model_name="job"):
        return (
            f"DATABASE_ROUTERS keep them off it, so 'migrate' would not make them there. Put {ROUTER!r} "
            f"before your own routers, then {migrate}; or name the database that has them in "
            "JOBIFY['DATABASE']."
        )
    return (
        f"{migrate}. If that finds nothing to do, this process has another database than the one that is "
        "migrated, or its user may not see the tables."
    )
