"""Whether a job changed a connection in a way that would reach the next job: its session, or its wrapper.

A ``SET``, a temporary table or a lock of the session lives as long as the connection, and so does what a
backend keeps on the wrapper (django-tenants its schema). Undoing that would take a round trip after each job,
and what the project itself had set would be lost with it: a connection that was changed is closed instead.
Nothing is asked of the database to find out; the statements of a job are looked at as they pass.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from typing import Any

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created
from django.utils.functional import cached_property

from jobify_django.current import current
from jobify_django.file import KEPT, NOTED

# What a push prepares is left: its name is made from its text, so it is the same whoever says it.
STATEMENT = re.compile(
    r"""(?:^|;|\*/)\s*
        (?:SET\s+(?!LOCAL\b|TRANSACTION\b|CONSTRAINTS\b|STATEMENT\b) | RESET\b | USE\b | PRAGMA\b.*=
         | ATTACH\b | LISTEN\b | PREPARE\s+(?!jobify_) | CREATE\s+(?:LOCAL\s+|GLOBAL\s+)?TEMP
         | LOCK\s+TABLES\b)""",
    re.IGNORECASE | re.VERBOSE,
)
CALLS = ("set_config(", "advisory_lock(", "advisory_lock_shared(", "get_lock(", ":=")
UNTIL_COMMIT = re.compile(r"set_config\([^()]*,\s*true\s*\)")
ORDINARY = ("SELECT ", "INSERT ", "UPDATE ", "DELETE ", "SAVEPOINT ", "RELEASE ")


def lasting(sql: str) -> bool:
    """Whether the effect of a statement outlives its transaction."""
    lower = sql.lower()
    if "set_config" in lower:
        lower = UNTIL_COMMIT.sub("", lower)
    if ("_lock" in lower or "set_config" in lower or ":=" in lower) and any(call in lower for call in CALLS):
        return True
    # The expression is slow on a long statement, and most need none.
    return not (sql.startswith(ORDINARY) and ";" not in sql) and STATEMENT.search(sql) is not None


WORKING = frozenset(
    {
        "connection",
        "settings_dict",
        "queries_log",
        "autocommit",
        "savepoint_state",
        "savepoint_ids",
        "close_at",
        "errors_occurred",
        "health_check_enabled",
        "health_check_done",
        "closed_in_transaction",
        "isolation_level",
        "transaction_mode",
        "init_commands",
        "execute_wrappers",
        "_named_cursor_idx",
        "_thread_sharing_lock",
        "_thread_ident",
        "rollback_exc",
        "commit_on_exit",
        "run_on_commit",
        NOTED,
        KEPT,
    }
)
"""What Django itself changes on a wrapper at work, and what we note there."""

PLAIN = (str, bytes, int, float, bool, tuple, frozenset, type(None))


class StatementWatch:
    """Looks at each statement on a connection for one whose effect lasts."""

    found = False

    def __call__(self, execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: Any) -> Any:
        """Run a statement."""
        self.found = self.found or lasting(sql if isinstance(sql, str) else str(sql))
        return execute(sql, params, many, context)


def altered(connection: BaseDatabaseWrapper) -> bool:
    """Whether a connection differs from a new one in more than Django's own working state."""
    return any(watch.found for watch in _watches_of(connection)) or _other_attributes(connection)


def end_session(connection: BaseDatabaseWrapper) -> None:
    """Close the driver's connection itself, so that no pool lends it to the next one."""
    raw = connection.connection
    if raw is not None and getattr(connection, "pool", None) is not None:
        with contextlib.suppress(Exception):
            raw.close()


class Fresh:
    """What a wrapper has that nobody has used yet."""

    def __init__(self, made: BaseDatabaseWrapper) -> None:
        own = {name: value for name, value in vars(made).items() if name not in WORKING}
        self.plain = [(name, value) for name, value in own.items() if isinstance(value, PLAIN)]
        self.other = [(name, type(value)) for name, value in own.items() if not isinstance(value, PLAIN)]
        self.names = {*WORKING, *own}
        """Attributes that are no change by being there."""


_fresh: dict[tuple[type, str], Fresh] = {}


def _other_attributes(connection: BaseDatabaseWrapper) -> bool:
    kind, present = type(connection), vars(connection)
    fresh = _fresh.get((kind, connection.alias))
    if fresh is None:
        made = connections.create_connection(connection.alias)
        fresh = _fresh[kind, connection.alias] = Fresh(made)
    for name, before in fresh.plain:
        value = present.get(name, before)
        if value is not before and value != before:
            return True
    for name, its_type in fresh.other:
        if name in present and type(present[name]) is not its_type:
            return True
    for name in present:
        if name not in fresh.names:
            if not isinstance(getattr(kind, name, None), cached_property):
                return True
            fresh.names.add(name)  # it was only asked for
    return False


def _watches_of(connection: BaseDatabaseWrapper) -> list[StatementWatch]:
    return [one for one in connection.execute_wrappers if isinstance(one, StatementWatch)]


def _watch_statements(connection: BaseDatabaseWrapper, **kwargs: object) -> None:
    """Look at the statements of a new connection, if a job has made it: then ``current`` is set."""
    watches = _watches_of(connection)
    if current.get() is not None and not watches:
        connection.execute_wrappers.insert(0, StatementWatch())
    for watch in watches:
        watch.found = False  # a new session


connection_created.connect(_watch_statements, dispatch_uid="jobify_django.pool.session")
