"""``Job``: the handle of one pushed call, usable in any process."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from datetime import UTC, datetime
from functools import partial
from types import coroutine
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar

from jobify_django.current import current
from jobify_django.exceptions import JobCancelled, JobFailed, JobNotFinished, JobNotFound
from jobify_django.job import CANCELLED, DELAYED, SUCCESSFUL, WAITING, JobError, JobRecord, JobSpec, JobStatus
from jobify_django.payload import decode, decode_call
from jobify_django.runtime import MACHINE
from jobify_django.stores import every_store, stores
from jobify_django.stores.base import Store
from jobify_django.stores.value import LiveJob
from jobify_django.waiting.awaited import not_found
from jobify_django.waiting.live import await_live_end
from jobify_django.waiting.loop import on_event_loop
from jobify_django.waiting.result import until_ended
from jobify_django.waiting.waker import arun, off_loop, run

R = TypeVar("R", covariant=True)
T = TypeVar("T")


class Job(Generic[R]):
    """One pushed call of a task.

    What it shows is what was last read; ``wait``, ``refresh`` and ``cancel`` read anew. In a thread where
    an event loop runs, ``wait`` and ``cancel`` return an awaitable instead of blocking.

    It can be pickled (into a cache, to another process), with what was last read. There it finds its store
    by name when it is asked to read; a job in memory is known to the process that pushed it, and to no other.
    """

    __slots__ = ("_pushed_at", "_record", "_source", "_store_or_name", "queue")

    def __init__(
        self, store: Store | str, queue: str, source: JobSpec | JobRecord | LiveJob, pushed_at: float = 0.0
    ) -> None:
        self.queue = queue
        self._store_or_name = store
        self._source = source
        self._pushed_at = pushed_at
        self._record = source if isinstance(source, JobRecord) else None

    def __repr__(self) -> str:
        return f"<Job {self.id} of {self.task}: {self.status}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Job) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __copy__(self) -> Job[R]:
        made: Job[R] = Job(self._store_or_name, self.queue, self._source, self._pushed_at)
        made._record = self._record
        return made

    def __deepcopy__(self, memo: object) -> Job[R]:
        return self.__copy__()

    def __reduce__(self) -> tuple[Any, ...]:
        live = self._live
        known: Any = self._record or (self._source if live is None else live.record())
        name = self._store_or_name if isinstance(self._store_or_name, str) else self._store_or_name.alias
        return unpickled, (name, self.queue, self._pushed_at, known._asdict())

    @property
    def _store(self) -> Store:
        if isinstance(self._store_or_name, str):
            self._store_or_name = stores[self._store_or_name]
        return self._store_or_name

    # What it is

    @property
    def id(self) -> str:
        """The job's id, a UUID in text."""
        return self._source.id

    @property
    def task(self) -> str:
        """The task's name."""
        return self._source.task

    @property
    def args(self) -> list[Any]:
        """The positional arguments, as the task gets them."""
        return decode_call(self._source.arguments)[0]

    @property
    def kwargs(self) -> dict[str, Any]:
        """The keyword arguments, as the task gets them."""
        return decode_call(self._source.arguments)[1]

    @property
    def priority(self) -> int:
        """The priority, from -100 to 100."""
        return self._source.priority

    @property
    def status(self) -> JobStatus:
        """Where the job was when last read."""
        if self._record is not None:
            return self._record.status
        if isinstance(self._source, JobSpec):
            later = self._source.eligible_at(self._pushed_at) > self._pushed_at
        else:
            live = self._live
            later = live is not None and live.record().status is DELAYED
        return DELAYED if later else WAITING

    @property
    def _live(self) -> LiveJob | None:
        # A spec and a record are tuples; no live job is.
        return None if isinstance(self._source, tuple) else self._source

    @property
    def attempts(self) -> int:
        """How often the job was started."""
        return self._record.attempt if self._record else 0

    @property
    def pushed_at(self) -> datetime:
        """When it was pushed, in UTC."""
        return _datetime(self._record.pushed_at if self._record else self._pushed_at)

    @property
    def started_at(self) -> datetime | None:
        """When the latest attempt started, in UTC."""
        return _datetime(self._record.started_at) if self._record and self._record.started_at else None

    @property
    def ended_at(self) -> datetime | None:
        """When it ended, in UTC."""
        return _datetime(self._record.ended_at) if self._record and self._record.ended_at else None

    @property
    def error(self) -> JobError | None:
        """The stored error of a failed job (type, message and traceback), as text."""
        return self._record.error if self._record else None

    # Waiting for it

    def wait(self, timeout: float | None = None) -> Awaitable[None]:
        """Wait until the job has ended, whatever the ending; ``result`` tells which.

        Blocks, and returns nothing, in sync code; returns an awaitable where an event loop runs.

        Args:
            timeout: seconds; ``None`` waits without end.

        Raises ``WaitTimeout``; ``JobNotFound`` if the store does not hold the job; ``WaitDeadlock`` if it was
        pushed in a transaction that is still open here, or inside a job, if no worker but those that wait
        could run this one.
        """
        if on_event_loop():
            return self.await_end(timeout)
        store = self._store
        self._record = run(partial(until_ended, store, self.id, self._live, timeout), store.runtime)
        return None  # type: ignore[return-value]

    async def await_end(self, timeout: float | None = None) -> None:
        """Wait as ``wait`` does, in async code."""
        live = self._live
        if live is not None and (live.status.ended or current.get() is None):
            self._record = await _awaitable(await_live_end(live, timeout, self._store.runtime.monotonic))
            return
        store = self._store
        steps = partial(until_ended, store, self.id, live, timeout)
        self._record = await arun(steps, store.runtime, blocking=store.blocking)

    def __await__(self) -> Generator[Any, Any, R]:
        """Wait until the job has ended, and return its result or raise as ``result`` does."""
        live = self._live
        if live is None or current.get() is not None:
            yield from self.await_end().__await__()
        else:
            # What ``await_end`` does, with fewer objects in between.
            self._record = yield from await_live_end(live, None, self._store.runtime.monotonic)
        return self.result()

    def result(self) -> R:
        """Return what the function returned.

        Raises ``JobFailed`` with the stored error, ``JobCancelled``, or ``JobNotFinished``. In sync code
        it looks into the store first; in async code it goes by what ``wait`` or ``arefresh`` last read.
        """
        record = self._record
        if (record is None or not record.status.ended) and not on_event_loop():
            self.refresh()
            record = self._record
        if record is not None and record.status is SUCCESSFUL:
            return decode(record.result) if record.result else None  # type: ignore[return-value]
        if record is not None and not record.status.known:
            raise JobNotFinished(
                f"job {self.id} has the status {str(record.status)!r}, which this version does not know: a "
                "newer release has written it. Look from a process that runs that one."
            )
        if record is None or not record.status.ended:
            raise JobNotFinished(f"job {self.id} is {self.status}: wait for it first.")
        _raise(record)

    # Looking at it, and acting

    def refresh(self) -> None:
        """Read the job anew; raises ``JobNotFound``."""
        if (live := self._live) is not None:
            self._record = live.record()
            return
        record = self._store.get((self.id,)).get(self.id)
        if record is None:
            elsewhere = "" if self._store.shared else ", or it is in the memory of the process that pushed it"
            raise not_found(self.id, elsewhere)
        self._record = record

    async def arefresh(self) -> None:
        """Read the job anew, in async code; raises ``JobNotFound``."""
        await self._ask(self.refresh)

    def record(self) -> JobRecord:
        """Read the job anew, and return all that its store knows of it; raises ``JobNotFound``."""
        self.refresh()
        assert self._record is not None
        return self._record

    def position(self) -> int | None:
        """Return how many jobs of its queue go before it; ``None`` when it does not wait."""
        return self._store.position(self.id)

    async def aposition(self) -> int | None:
        """Return what ``position`` does, in async code."""
        return await self._ask(partial(self._store.position, self.id))

    def cancel(self) -> Any:  # a bool, or an awaitable of one; acancel is the typed twin
        """Cancel the job.

        A job that has not started never will. A running ``async def`` is cancelled where it awaits; a running
        ``def`` cannot be stopped and ends as it ends. Returns whether it had not ended yet, which is ``True``
        for a running job that cannot be stopped, too (where an event loop runs: an awaitable of that); raises
        ``JobNotFound``.
        """
        return self.acancel() if on_event_loop() else self._cancel()

    async def acancel(self) -> bool:
        """Cancel the job, in async code."""
        return await self._ask(self._cancel)

    def _cancel(self) -> bool:
        before = self._store.cancel((self.id,)).get(self.id)
        self.refresh()
        return before is not None and not before.ended

    async def _ask(self, call: Callable[[], T]) -> T:
        store = self._store
        return await off_loop(call, store.runtime) if store.blocking else call()


def unpickled(store: str, queue: str, pushed_at: float, values: dict[str, Any]) -> Job[Any]:
    """Return a handle that was pickled; of what another release knows of a job, what this one knows too."""
    kind: Any = JobRecord if "status" in values else JobSpec
    known = {name: values[name] for name in kind._fields if name in values}
    return Job(store, queue, kind(**known), pushed_at)


def get_job(id: str) -> Job[Any]:
    """Return the job of this id, in whichever store it is; raises ``JobNotFound``."""
    for store in every_store():
        if (record := store.get((id,)).get(id)) is not None:
            return Job(store, record.queue, record)
    raise JobNotFound(no_store_holds(id))


def no_store_holds(id: str) -> str:
    """Return what is said of an id that no store knows."""
    return f"no store holds a job {id!r}: it was never committed, or it ended and was pruned."


async def aget_job(id: str) -> Job[Any]:
    """Return the same, in async code."""
    return await off_loop(partial(get_job, id), MACHINE)  # no store is known yet


if TYPE_CHECKING:

    class PushedJob(Job[R]):
        """What ``push`` returns: the job in sync code, an awaitable of the job where an event loop runs."""

        def __await__(self) -> Generator[Any, Any, Job[R]]: ...  # type: ignore[override]

else:
    PushedJob = Job


@coroutine
def _awaitable(steps: Generator[Any, Any, T]) -> Generator[Any, Any, T]:
    return (yield from steps)


def _raise(record: JobRecord) -> NoReturn:
    if record.status is CANCELLED:
        raise JobCancelled(f"job {record.id} of {record.task} was cancelled.")
    error = record.error or JobError("", "it failed without a stored error")
    raise JobFailed(
        f"job {record.id} of {record.task} failed: {error.type}: {error.message}",
        error_type=error.type,
        traceback=error.traceback,
    )


def _datetime(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
