"""Running one job: find the task, read the arguments, call it, and say how it ended, as an ``Outcome``.

The steps are the same for ``def`` and ``async def``; only the call itself differs. Nothing a job raises
gets past here, and once it has ended nothing that fails afterwards takes its outcome away.
"""

from __future__ import annotations

import asyncio
import contextlib
import traceback
from collections.abc import Iterator, Sequence
from contextvars import Context
from typing import Any
from weakref import getweakrefcount

from asgiref.sync import SyncToAsync, ThreadSensitiveContext, sync_to_async
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

from jobify_django.conf import get_settings
from jobify_django.file import moved
from jobify_django.job import CANCELLED, FAILED, SUCCESSFUL, Claim, JobError, Outcome, make_outcome
from jobify_django.line import Inside, inside
from jobify_django.log import get_log
from jobify_django.payload import decode_call, encode
from jobify_django.pool.session import altered, end_session
from jobify_django.task import Task, tasks

logger = get_log("jobify.worker")

IDLE = 0  # libpq's PQTRANS_IDLE: outside any transaction

LONGEST_MESSAGE = 2_000
LONGEST_TRACEBACK = 32_000


def run_job(claim: Claim, pool: Inside | None = None) -> Outcome:
    """Run a job in this thread, in a context and with database connections of its own."""
    _tidy_connections(claim)
    try:
        # A new context: no language, time zone or variable of another job.
        value = Context().run(_call, claim, pool)
    except BaseException as error:
        outcome = failed(claim, error)
    else:
        outcome = _successful(claim, value)
    _tidy_connections(claim)
    return outcome


async def arun_job(claim: Claim, pool: Inside | None = None) -> Outcome:
    """Run an ``async def`` job; the caller gives each its own task and context.

    Raises ``CancelledError`` only when the job was cancelled from outside before it had ended.
    """
    # Without a thread of its own, all jobs' ORM calls would queue up behind one another. Set by hand, not
    # with "async with": the context is the job's alone, and most jobs never use the thread.
    own = _thread()
    SyncToAsync.thread_sensitive_context.set(own)
    try:
        value = await _call(claim, pool)
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        return failed(claim, error)
    except BaseException as error:
        return failed(claim, error)
    else:
        return _successful(claim, value)
    finally:
        threads = SyncToAsync.context_to_thread_executor
        # It has a thread only if that dictionary refers to it, weakly: the cheaper look first.
        if getweakrefcount(own) and own in threads:
            await _end_thread(own, claim)
        else:
            _unused.append(own)


async def _end_thread(own: ThreadSensitiveContext, claim: Claim) -> None:
    """Close the connections of a job's own thread, which ends with the job."""
    try:
        await asyncio.shield(sync_to_async(_close_connections)(claim))
    except asyncio.CancelledError:
        # Too late: how the job ended is known. Its thread goes on closing.
        logger.debug("job %s of %s was cancelled after its end", claim.id, claim.task)
    except BaseException as error:
        logger.warning("event=thread-not-tidied id=%s task=%s error=%r", claim.id, claim.task, error)
    finally:
        executor = SyncToAsync.context_to_thread_executor.pop(own, None)
        if executor is not None:
            executor.shutdown(wait=False)


_unused: list[ThreadSensitiveContext] = []
"""What jobs that made no ORM calls leave to those to come: making it takes longer than all else here."""


def _thread() -> ThreadSensitiveContext:
    try:
        return _unused.pop()
    except IndexError:
        return ThreadSensitiveContext()


def _call(claim: Claim, pool: Inside | None) -> Any:
    task: Task[Any, Any] = tasks[claim.task]
    args, kwargs = decode_call(claim.arguments)
    inside.set(pool)
    return task.function(*args, **kwargs)


def _successful(claim: Claim, value: Any) -> Outcome:
    if value is None:
        result = None
    else:
        try:
            result = encode(value, root="result", limit=get_settings().max_payload)
        except BaseException as error:
            # InvalidPayload, or whatever reading an object of the job's own classes raises.
            return failed(claim, error)
    return make_outcome((claim.id, claim.attempt, claim.queue, claim.task, SUCCESSFUL, result, None))


def cancelled(claim: Claim) -> Outcome:
    """Return the outcome of a job that was cancelled while it ran."""
    return Outcome(claim.id, claim.attempt, claim.queue, claim.task, CANCELLED)


def failed(claim: Claim, error: BaseException) -> Outcome:
    """Return the outcome of a job that raised."""
    described = describe(error)
    # The frames of a kept traceback would keep everything the job held.
    with contextlib.suppress(Exception):
        traceback.clear_frames(error.__traceback__)
    return Outcome(claim.id, claim.attempt, claim.queue, claim.task, FAILED, None, described)


def describe(error: BaseException) -> JobError:
    """Return an exception as data, whatever its ``__str__`` does."""
    kind = type(error)
    try:
        # Joined anew: a subclass of str may do anything when it is cut.
        message = "".join(str(error))
        text = "".join(traceback.format_exception(error))
    except BaseException:
        message = f"(its message could not be read: {kind.__name__}.__str__ raised)"
        text = _frames(error)
    return JobError(
        f"{kind.__module__}.{kind.__qualname__}", message[:LONGEST_MESSAGE], text[-LONGEST_TRACEBACK:]
    )


def _frames(error: BaseException) -> str:
    try:
        return "".join(traceback.format_tb(error.__traceback__))
    except BaseException:
        return ""


def _tidy_connections(claim: Claim) -> None:
    """Leave this thread's connections as a request would find them: usable, fresh enough, outside any
    transaction, and as they were made. Persistent ones (``CONN_MAX_AGE``) stay open unless a job changed
    them."""
    for connection in _connections():
        with _or_replaced(connection):
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


def _close_connections(claim: Claim) -> None:
    for connection in _connections():
        with _or_replaced(connection):
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
        logger.warning("event=connections-not-tidied error=%r", error)
        return ()


@contextlib.contextmanager
def _or_replaced(connection: BaseDatabaseWrapper) -> Iterator[None]:
    """Give the next job a new connection if this one cannot even be tidied."""
    try:
        yield
    except BaseException as error:
        alias = connection.alias
        logger.warning("event=connection-dropped database=%s error=%r", alias, error, exc_info=error)
        _drop(connection)


def _drop(connection: BaseDatabaseWrapper) -> None:
    with contextlib.suppress(BaseException):
        connection.close()
    with contextlib.suppress(AttributeError):
        del connections[connection.alias]


def _left_open(connection: BaseDatabaseWrapper) -> bool:
    raw: Any = connection.connection
    if raw is None:
        return False
    if connection.in_atomic_block:
        return True
    if getattr(raw, "closed", False):
        raise _Closed  # by the job, below Django
    if getattr(raw, "in_transaction", False):
        return True
    if connection.vendor == "postgresql":
        return bool(raw.info.transaction_status != IDLE)
    if connection.vendor == "mysql" and connection.get_autocommit():
        # Its driver cannot tell whether somebody has begun a transaction by hand.
        raw.rollback()
    return False


class _Closed(Exception):
    """A driver's connection was closed behind its wrapper's back."""


def _roll_back(connection: BaseDatabaseWrapper, claim: Claim) -> None:
    logger.error(
        "job %s of %s left a transaction open on database %r; it was rolled back",
        claim.id,
        claim.task,
        connection.alias,
    )
    end_session(connection)
    # A wrapper closed inside atomic() keeps thinking that it is in there; the next job gets a new one.
    _drop(connection)
