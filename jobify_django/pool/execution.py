"""Running one job: read the arguments, call the task, and say how it ended, as an ``Outcome``.

The steps are the same for ``def`` and ``async def``; only the call itself differs. What the call returns
decides: a ``def`` around an ``async def`` begins on a thread, and the coroutine that it returns is run on the
event loop. Nothing a job raises gets past here, and once it has ended nothing that fails afterwards takes its
outcome away.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import traceback
from collections.abc import Coroutine
from contextvars import Context
from types import CoroutineType, TracebackType
from typing import Any, NamedTuple
from weakref import getweakrefcount

from asgiref.sync import SyncToAsync, ThreadSensitiveContext

from jobify_django.conf import get_settings
from jobify_django.current import current
from jobify_django.job import JobError
from jobify_django.log import get_log, quoted
from jobify_django.outcome import Outcome, failed, succeeded
from jobify_django.payload import decode_call, encode
from jobify_django.pool.connection import close_connections, tidy_connections
from jobify_django.pool.slots import RunningJob

logger = get_log("jobify.worker")

LONGEST_MESSAGE = 2_000
LONGEST_TRACEBACK = 32_000

HERE = os.path.join(os.path.dirname(__file__), "")

LONGEST_CHAIN = 100
"""How many causes and members of one exception have their frames cleared, at most."""

Work = Coroutine[Any, Any, Any]


class Unfinished(NamedTuple):
    """What a job that began on a thread has left to run on the event loop."""

    work: Work
    context: Context


def run_job(running: RunningJob, *, tidy: bool = False) -> Outcome | Unfinished:
    """Run a job in this thread, in a context and with database connections of its own.

    Args:
        running: the job.
        tidy: another job has ended on this thread just now, so its connections are tidy.

    Returns an ``Unfinished`` for ``arun_job`` if what it called is an ``async def`` after all.
    """
    if not tidy:
        tidy_connections(running.claim, before=True)
    # A new one: no language, time zone or variable of another job.
    context = Context()
    outcome: Outcome | Unfinished
    try:
        value = context.run(_call, running)
    except BaseException as error:
        outcome = raised(running, error)
    else:
        unfinished = isinstance(value, CoroutineType)
        outcome = Unfinished(value, context) if unfinished else _returned(running, value)
    tidy_connections(running.claim)
    return outcome


async def arun_job(running: RunningJob, work: Work | None = None) -> Outcome:
    """Run an ``async def`` job, or the rest of one that ``run_job`` began. Each call needs an asyncio task
    and a context of its own.

    Raises ``CancelledError`` only when the job was cancelled from outside before it had ended.
    """
    # Without a thread of its own, all jobs' ORM calls would queue up behind one another. Set by hand, not
    # with "async with": the context is the job's alone, and most jobs never use the thread.
    try:
        own = _spare_contexts.pop()
    except IndexError:
        own = ThreadSensitiveContext()
    SyncToAsync.thread_sensitive_context.set(own)
    try:
        value = await (_call(running) if work is None else work)
        while isinstance(value, CoroutineType):  # a decorator's own "async def" that does not await
            value = await value
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        return raised(running, error)
    except BaseException as error:
        return raised(running, error)
    else:
        return _returned(running, value)
    finally:
        threads = SyncToAsync.context_to_thread_executor
        # It has a thread only if that dictionary refers to it, weakly: the cheaper look first.
        if getweakrefcount(own) and own in threads:
            await _end_thread(own, running)
        else:
            _spare_contexts.append(own)


async def _end_thread(own: ThreadSensitiveContext, running: RunningJob) -> None:
    """Close the connections of a job's own thread, which ends with the job."""
    claim, sync_to_async = running.claim, running.slots.runtime.sync_to_async
    try:
        await asyncio.shield(sync_to_async(close_connections)(claim))
    except asyncio.CancelledError:
        # Too late: how the job ended is known. Its thread goes on closing.
        logger.debug("job %s of %s was cancelled after its end", quoted(claim.id), quoted(claim.task))
    except BaseException as error:
        logger.warning(
            "event=thread-not-tidied id=%s task=%s error=%s",
            quoted(claim.id),
            quoted(claim.task),
            quoted(error),
        )
    finally:
        executor = SyncToAsync.context_to_thread_executor.pop(own, None)
        if executor is not None:
            executor.shutdown(wait=False)


_spare_contexts: list[ThreadSensitiveContext] = []
"""Contexts that have no thread yet, for the next jobs: a job that made no ORM calls puts its own back. Making
one takes longer than all else here."""


def _call(running: RunningJob) -> Any:
    args, kwargs = decode_call(running.claim.arguments)
    current.set(running)
    return running.job_task.function(*args, **kwargs)


def _returned(running: RunningJob, value: Any) -> Outcome:
    if value is None:
        return succeeded(running.claim)
    try:
        result = encode(value, root="result", limit=get_settings().max_payload)
    except BaseException as error:
        # InvalidPayload, or whatever reading an object of the job's own classes raises.
        return raised(running, error)
    return succeeded(running.claim, result)


def raised(running: RunningJob, error: BaseException) -> Outcome:
    """Return the outcome of a job that raised, and keep the exception for the report."""
    with contextlib.suppress(Exception):
        error.__traceback__ = _without_pool_frames(error.__traceback__)
    described = describe(error)
    _clear_frames(error)
    running.exception = error
    return failed(running.claim, described)


def _without_pool_frames(trace: TracebackType | None) -> TracebackType | None:
    """Return a traceback from the job's function on, without the pool's frames, if it got there."""
    own = trace
    while own is not None and own.tb_frame.f_code.co_filename.startswith(HERE):
        own = own.tb_next
    return own or trace


def _clear_frames(error: BaseException) -> None:
    """Clear the variables in the frames of an exception, of its causes, and of the members of a group: they
    would keep everything alive that the job held."""
    seen: dict[int, BaseException] = {}
    left: list[BaseException | None] = [error]
    while left and len(seen) < LONGEST_CHAIN:
        one = left.pop()
        if one is None or id(one) in seen:
            continue
        seen[id(one)] = one
        with contextlib.suppress(Exception):
            traceback.clear_frames(one.__traceback__)
            left += [one.__cause__, one.__context__, *getattr(one, "exceptions", ())]


def describe(error: BaseException) -> JobError:
    """Return an exception as data, whatever its ``__str__`` does."""
    kind = type(error)
    try:
        # Joined anew: a subclass of str may do anything when it is cut.
        message = "".join(str(error))
        text = "".join(traceback.format_exception(error))
    except BaseException:
        message = f"(its message could not be read: {kind.__name__}.__str__ raised)"
        text = ""
        with contextlib.suppress(BaseException):
            text = "".join(traceback.format_tb(error.__traceback__))
    return JobError(
        f"{kind.__module__}.{kind.__qualname__}", message[:LONGEST_MESSAGE], text[-LONGEST_TRACEBACK:]
    )
