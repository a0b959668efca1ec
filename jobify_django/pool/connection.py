"""The database connections of the thread that a job ran on, as the next job is to find them.

Nothing that fails here takes a job's outcome away.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from typing import Any

from django.db import Error, connections
from django.db.backends.base.base import BaseDatabaseWrapper

from jobify_django.file import moved
from jobify_django.job import Claim
from jobify_django.log import get_log, quoted
from jobify_django.pool.session import altered, end_session

logger = get_log("jobify.worker")

IDLE, UNKNOWN = 0, 4
"""libpq's PQTRANS_IDLE, outside any transaction, and PQTRANS_UNKNOWN, of a connection that is broken."""


def tidy_connections(claim: Claim, *, before: bool = False) -> None:
    """Leave this thread's connections as a request would find them: usable, fresh enough, outside any
    transaction, and as they were made. Persistent ones (``CONN_MAX_AGE``) stay open unless a job changed
    them.

    Args:
        claim: the job that has ended, or is about to start.
        before: the job is about to start, so whatever is found was done by others.
    """
    for connection in _connections():
        with _or_replaced(connection, claim, logging.DEBUG if before else logging.WARNING):
            connection.queries_log.clear()
            if _left_open(connection):
                _roll_back(connection, claim)
            elif altered(connection):
                end_session(connection)
                _drop(connection)
            elif moved(connection):
                connection.close()
            else:
                connection.close_if_unusable_or_obsolete()


def close_connections(claim: Claim) -> None:
    """Close the connections of this thread, which ends with the job."""
    for connection in _connections():
        with _or_replaced(connection, claim, logging.WARNING):
            if _left_open(connection):
                _roll_back(connection, claim)
            else:
                if altered(connection):
                    end_session(connection)
                connection.close()


def _connections() -> Sequence[BaseDatabaseWrapper]:
    """Return those of this thread's connections that were made."""
    try:
        return connections.all(initialized_only=True)
    except BaseException as error:
        logger.warning("event=connections-not-tidied error=%s", quoted(error))
        return ()


@contextlib.contextmanager
def _or_replaced(connection: BaseDatabaseWrapper, claim: Claim, level: int) -> Iterator[None]:
    """Give the next job a new connection if this one cannot even be tidied."""
    try:
        yield
    except _Ended:
        logger.log(
            level,
            "event=connection-dropped database=%s id=%s task=%s: it was ended by the server, the network "
            "or the job; what was not committed is lost",
            quoted(connection.alias),
            quoted(claim.id),
            quoted(claim.task),
        )
        _drop(connection)
    except BaseException as error:
        logger.warning(
            "event=connection-dropped database=%s id=%s task=%s error=%s: it could not be tidied",
            quoted(connection.alias),
            quoted(claim.id),
            quoted(claim.task),
            quoted(error),
            exc_info=error,
        )
        _drop(connection)


def _drop(connection: BaseDatabaseWrapper) -> None:
    with contextlib.suppress(BaseException):
        connection.close()
    with contextlib.suppress(AttributeError):
        del connections[connection.alias]


class _Ended(Exception):
    """A connection ended behind its wrapper's back: by the server, the network, or the job below Django."""


def _left_open(connection: BaseDatabaseWrapper) -> bool:
    """Whether a job left a transaction open; raises ``_Ended`` for a connection that has none any more."""
    raw: Any = connection.connection
    if raw is None:
        return False
    status = raw.info.transaction_status if connection.vendor == "postgresql" else IDLE
    if getattr(raw, "closed", False) or status == UNKNOWN:
        raise _Ended
    if connection.in_atomic_block or getattr(raw, "in_transaction", False) or status != IDLE:
        return True
    if connection.vendor == "mysql" and connection.get_autocommit():
        # Its driver cannot tell whether somebody has begun a transaction by hand.
        _end_transaction(connection)
    return False


def _end_transaction(connection: BaseDatabaseWrapper) -> None:
    """Roll back below Django, which may think otherwise; raises ``_Ended`` where nobody answers."""
    raw: Any = connection.connection
    try:
        with connection.wrap_database_errors:
            raw.rollback()
    except Error as error:
        raise _Ended from error


def _roll_back(connection: BaseDatabaseWrapper, claim: Claim) -> None:
    _end_transaction(connection)
    logger.error(
        "job %s of %s left a transaction open on database %r; it was rolled back",
        quoted(claim.id),
        quoted(claim.task),
        connection.alias,
    )
    end_session(connection)
    # A wrapper closed inside atomic() keeps thinking that it is in there; the next job gets a new one.
    _drop(connection)
