"""Every error this app raises, in one tree. Each message says what happened and what to do next."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    # The one circle of types, for whoever catches ``QueueFull``: a protocol in place of ``Job`` could not be
    # passed on as one, and an exception cannot be generic, for ``except`` names it without its argument.
    from jobify_django.handle import Job


class JobifyError(Exception):
    """The root of every error this app raises. Each can be pickled and copied, with all it carries."""

    def __reduce__(self) -> tuple[Any, ...]:
        # Python's own way calls the class with ``args``, which fails for one that takes more than a message.
        return _unpickled, (type(self), self.args), self.__dict__ or None


def _unpickled(kind: type[JobifyError], args: tuple[Any, ...]) -> JobifyError:
    error = kind.__new__(kind, *args)
    error.args = args
    return error


# Declaring and naming


class InvalidTask(JobifyError, TypeError):
    """A function cannot be a task, or a task was declared or changed with a wrong value."""


class DuplicateTask(JobifyError, ValueError):
    """Two different functions claim one task name."""


class UnknownTask(JobifyError, LookupError):
    """No task of this name is registered in this process."""


class UnknownQueue(JobifyError, LookupError):
    """A queue's name is not in ``JOBIFY["QUEUES"]``."""


class UnknownBand(JobifyError, LookupError):
    """A priority band's name is not in ``JOBIFY["PRIORITIES"]``."""


class InvalidPayload(JobifyError, ValueError):
    """An argument or a result does not survive JSON unchanged, or is too large.

    ``path`` names the offending value, as in ``args[0]["when"]``.
    """

    def __init__(self, message: str, path: str) -> None:
        super().__init__(message)
        self.path = path


class InvalidTuning(JobifyError, ValueError):
    """A live value of a queue is out of range."""


class StaleVersion(JobifyError):
    """A queue was to be changed from one version, and has another: somebody changed it meanwhile.

    Attributes:
        queue: the queue's name.
        expected: the version that the change was made from.
        version: the version that the queue has.
    """

    def __init__(self, queue: str, *, expected: int, version: int) -> None:
        super().__init__(
            f"queue {queue!r} has version {version}, and this change was made from version {expected}: it was"
            " changed in between, so nothing was changed now. Look at its values, and if the change is still"
            f" right, make it again from version {version}."
        )
        self.queue = queue
        self.expected = expected
        self.version = version


# Pushing


class QueueFull(JobifyError):
    """The queue had no room, and the push was not allowed to wait (any longer).

    Attributes:
        queue: the queue's name.
        depth: how many jobs were waiting in it.
        maxsize: how many may wait in it.
        retry_after: seconds after which a new try is sensible (a whole number, at least 1).
        taken: how many jobs of a ``push_many`` were taken before the room ran out; they will run.
        pushed: their handles. They are pickled along with the error, and usable as any pickled ``Job``.
    """

    def __init__(
        self, queue: str, *, depth: int, maxsize: int, retry_after: int, reason: str, taken: int = 0
    ) -> None:
        some = f" {taken} of the jobs were taken and will run." if taken else ""
        super().__init__(
            f"queue {queue!r} is full: {depth} jobs wait and maxsize is {maxsize}. {reason}{some} "
            f"Try again in {retry_after} s, or raise WORKERS or MAXSIZE of the queue."
        )
        self.queue = queue
        self.depth = depth
        self.maxsize = maxsize
        self.retry_after = retry_after
        self.taken = taken
        self.pushed: list[Job[Any]] = []


# Waiting for a job


class JobNotFound(JobifyError, LookupError):
    """The store holds no job of this id: it was never committed, or it ended and was pruned."""


class JobNotFinished(JobifyError):
    """The job has no result yet; wait for it first."""


class WaitTimeout(JobifyError, TimeoutError):
    """The job had not ended when the time given to ``wait`` was over. It goes on all the same."""


class WaitDeadlock(JobifyError):
    """A wait would never end: the job was pushed in a transaction that is still open here, or a job waits for
    another whose queue has no worker left but those that wait."""


class JobFailed(JobifyError):
    """The job ended with an error.

    ``error_type`` is the stored dotted name of the exception's class and ``traceback`` its stored
    text (both data: nothing is imported or rebuilt from them).
    """

    def __init__(self, message: str, *, error_type: str = "", traceback: str = "") -> None:
        super().__init__(message)
        self.error_type = error_type
        self.traceback = traceback


class JobCancelled(JobifyError):
    """The job was cancelled, so it has no result."""


# Stores


class StoreError(JobifyError):
    """The store could not do what it was asked; the cause says why."""


class StoreUnmigrated(StoreError):
    """The database lacks the tables or columns of this version. The message says what makes them: adding the
    app to ``INSTALLED_APPS``, a router, or ``manage.py migrate``."""


class StoreUncertain(StoreError):
    """The connection broke while a change was being committed: it may be stored, or not."""


class StoreBusy(StoreError):
    """The database stayed locked by others for longer than the store tries."""
