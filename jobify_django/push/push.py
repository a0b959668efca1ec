"""Pushing calls of a task, the same way for sync and async code.

``start_push`` adds the jobs if that needs no waiting, or leaves them to a commit. Otherwise it returns a
``PendingPush``, whose ``steps`` are a generator: ``run`` drives it in a thread, ``arun`` on an event loop.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from django.db import connections, transaction

from jobify_django.conf import get_settings
from jobify_django.exceptions import InvalidPayload, InvalidTask, QueueFull
from jobify_django.handle import Job
from jobify_django.job import JobSpec
from jobify_django.payload import encode_call
from jobify_django.push.admission import Admission
from jobify_django.push.plan import Pushable, PushPlan
from jobify_django.stores.base import Store
from jobify_django.stores.value import LiveJob
from jobify_django.waiting.loop import called_through_async_to_sync
from jobify_django.waiting.waker import BlockingCall, Steps, Waker, run

Calls = Sequence[tuple[tuple[Any, ...], dict[str, Any]]]


def push(task: Pushable, calls: Calls) -> list[Job[Any]]:
    """Push calls of a task in sync code, and return the jobs."""
    jobs_or_pending = start_push(task, calls, on_loop=False)
    if isinstance(jobs_or_pending, list):
        return jobs_or_pending
    return run(jobs_or_pending.steps, jobs_or_pending.plan.store.runtime)


def start_push(task: Pushable, calls: Calls, *, on_loop: bool) -> list[Job[Any]] | PendingPush:
    """Push calls of a task, or leave them to a commit, and return the handles. If that needs a wait, or a
    call on an event loop that may block, return a ``PendingPush`` instead, which is to be driven.

    ``on_loop`` says whether an event loop runs in this thread.
    """
    if not calls:
        return []
    plan = plan_of(task)
    specs = _specs(plan, calls)
    # Async code holds no transaction open across an await. But sync code may hold one open while it waits for
    # this coroutine (``async_to_sync``), and only the thread of that sync code can tell.
    if on_loop and plan.on_commit and called_through_async_to_sync():
        return PendingPush(plan, specs, sync_caller=True)
    if on_loop and plan.store.blocking:
        return PendingPush(plan, specs)
    # Until the commit no store holds the jobs. Those for which there is no room then are never stored,
    # although their handles were returned.
    if not on_loop and plan.on_commit and (database := _open_elsewhere(plan.store)) is not None:
        PendingPush(plan, specs).leave_to_commit(database)
        return _handles(plan, specs)
    jobs = _add_at_once(plan, specs)
    return PendingPush(plan, specs) if jobs is None else jobs


def plan_of(task: Pushable) -> PushPlan:
    """Return a task's plan under the settings in force; raises ``UnknownQueue``, ``UnknownBand``.

    The task keeps the plan until the settings or one of its own attributes change. Making a
    plan also warns, once, of a task that only this process can import.
    """
    settings = get_settings()
    plan = task._plan
    if plan is None or plan.settings is not settings or task._stores.of(plan.queue) is not plan.store:
        plan = PushPlan.of(task, settings)
        object.__setattr__(task, "_plan", plan)  # a plain assignment would drop the plan again
        if task.declaration.is_importable_only_here:
            plan.unserved.warn_unless_served_here(plan.store, task.name, plan.queue.name)
    return plan


class PendingPush:
    """Jobs that are still to be pushed: after a wait, with calls that may block, or at a commit.

    Args:
        plan: the task's.
        specs: the jobs.
        sync_caller: whether sync code waits for the coroutine that pushes, and may hold a transaction open.
    """

    __slots__ = ("_admission", "_given_up", "_specs", "_sync_caller", "plan")

    def __init__(self, plan: PushPlan, specs: Sequence[JobSpec], *, sync_caller: bool = False) -> None:
        self.plan = plan
        self._specs = specs
        self._sync_caller = sync_caller
        self._given_up = False
        self._admission: Admission | None = None

    @property
    def accepted(self) -> int:
        """How many of the jobs the store has accepted, as far as is known here."""
        return 0 if self._admission is None else self._admission.accepted

    def steps(self, waker: Waker) -> Steps[list[Job[Any]]]:
        """Add the jobs, waiting for room, or leave them to a commit; return their handles."""
        return self._admit_or_leave(waker) if self._sync_caller else self._admit(waker)

    def leave_to_commit(self, database: str) -> None:
        """Add the jobs when this thread's transaction on a database commits."""
        transaction.on_commit(self._at_commit, using=database)

    def _at_commit(self) -> None:
        # It may wait for room here, as every push, for as long as its timeout says. What it raises, QueueFull
        # for example, comes out of the ``atomic`` block after the commit, and Django runs no later hooks.
        if not self._given_up:
            run(self._admit, self.plan.store.runtime)

    def _admit_or_leave(self, waker: Waker) -> Steps[list[Job[Any]]]:
        try:
            left = yield BlockingCall(self._leave_to_open_transaction, on_thread=True)
        except BaseException:  # the caller was cancelled and gets no handles, so the jobs must not be added
            self._given_up = True
            raise
        return _handles(self.plan, self._specs) if left else (yield from self._admit(waker))

    def _leave_to_open_transaction(self) -> bool:
        """Leave the jobs to the commit if a transaction is open elsewhere; return whether one was."""
        database = _open_elsewhere(self.plan.store)
        if database is not None:
            self.leave_to_commit(database)
        return database is not None

    def _admit(self, waker: Waker) -> Steps[list[Job[Any]]]:
        """Add the jobs, waiting for room; then check that a pool serves the queue, if a check is due."""
        plan = self.plan
        admission = self._admission = Admission(plan, self._specs)
        try:
            yield from admission.steps(waker)
            if plan.unserved.is_due(plan.queue.name):
                yield from plan.unserved.warn_if_unserved(plan.store, plan.queue.name)
        except QueueFull as full:
            full.pushed = self._accepted(admission)
            raise
        except Exception:  # a store that has just failed is not asked to cancel what it had accepted before
            raise
        except GeneratorExit:  # closed: from here on a generator may not yield a call to the store
            raise
        except BaseException:  # the caller was cancelled or interrupted, and gets no handles
            yield from admission.cancel_added()
            raise
        return self._accepted(admission)

    def _accepted(self, admission: Admission) -> list[Job[Any]]:
        """Return the handles of the jobs that the store has accepted so far."""
        return _handles(self.plan, admission.jobs or self._specs[: admission.accepted], admission.pushed_at)


def calls_of(calls: Iterable[tuple[Any, ...] | Mapping[str, Any]]) -> Calls:
    """Return calls as pairs of positional and keyword arguments; raises ``InvalidTask``."""
    pairs: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
    for number, call in enumerate(calls):
        if isinstance(call, Mapping):
            pairs.append(((), dict(call)))
        elif isinstance(call, tuple):
            pairs.append((call, {}))
        else:
            raise InvalidTask(
                f"call {number} of push_many is {call!r}; give a tuple of positional arguments "
                "or a dict of keyword arguments."
            )
    return pairs


def _specs(plan: PushPlan, calls: Calls) -> list[JobSpec]:
    """Return the jobs; raises ``TypeError`` or ``InvalidPayload`` for arguments that do not fit."""
    specs: list[JobSpec] = []
    new_id = plan.new_id
    try:
        for args, kwargs in calls:
            # For most functions it is enough to count positional arguments; ``bind`` takes 4 microseconds.
            if kwargs or not plan.min_arguments <= len(args) <= plan.max_arguments:
                plan.signature.bind(*args, **kwargs)
            arguments = encode_call(args, kwargs, plan.settings.max_payload)
            # By hand: for every job, and twice as fast.
            spec = (new_id(), plan.task, arguments, plan.priority, plan.delay, plan.at, 0, None)
            specs.append(tuple.__new__(JobSpec, spec))
    except (InvalidPayload, TypeError) as error:
        if len(calls) == 1:
            raise
        words = f"call {len(specs)} of push_many: {error}"
        if isinstance(error, InvalidPayload):
            raise InvalidPayload(words, error.path) from error
        raise TypeError(words) from error
    return specs


def _add_at_once(plan: PushPlan, specs: Sequence[JobSpec]) -> list[Job[Any]] | None:
    """Add all the jobs without waiting; return ``None``, with none of them added, if that cannot be done.

    It is not tried while other pushes wait, nor when it is time to check that a pool serves the queue.
    """
    if plan.waits.busy or plan.unserved.is_due(plan.queue.name):
        return None
    # The push may take its ``timeout`` in all: so long may the store wait for locks of other transactions.
    added = plan.store.add(plan.queue, specs, all_or_nothing=True, lock_timeout=plan.timeout)
    if added.taken < len(specs):
        return None
    if added.jobs and added.now:
        return [Job(plan.store, plan.queue.name, job, added.now) for job in added.jobs]
    return _handles(plan, added.jobs or specs, (added.now,) * added.taken)


def _handles(
    plan: PushPlan, sources: Sequence[JobSpec | LiveJob], pushed_at: Sequence[float] = ()
) -> list[Job[Any]]:
    """Return a handle for each of the jobs.

    Args:
        plan: where they were pushed to.
        sources: the jobs; ``LiveJob`` if the store lets them be read without a call.
        pushed_at: when each was pushed, on the store's clock. For a job that is still to be pushed, or whose
            store does not tell (0), the handle shows this machine's time.
    """
    store, name = plan.store, plan.queue.name
    if len(pushed_at) < len(sources) or not all(pushed_at):
        pushed_at = [*filter(None, pushed_at)] + [store.runtime.clock()] * len(sources)
    return [Job(store, name, source, at) for source, at in zip(sources, pushed_at, strict=False)]


def _open_elsewhere(store: Store) -> str | None:
    """Return the alias of a database, not the store's, on which this thread has a transaction open.

    Returns ``None`` without such a transaction, and also if a push would be part of an open transaction on
    the store's own database.

    Raises ``TransactionManagementError``, as Django's ``on_commit`` does, if the transaction was not opened
    by ``atomic`` (autocommit is off): Django tells nobody of its commit.
    """
    opened = connections.all(initialized_only=True)
    atomic = [one for one in opened if one.in_atomic_block]
    manual = [
        one for one in opened if one.connection is not None and not (one.in_atomic_block or one.autocommit)
    ]
    if not (atomic or manual) or store.in_transaction():
        return None
    if not atomic:
        raise transaction.TransactionManagementError(
            f"database {manual[0].alias!r} is in manual transaction management (autocommit is off), so the "
            "push cannot wait for its commit. Use atomic(), push after the commit, or say that it need not "
            "wait: .using(on_commit=False)."
        )
    # Of transactions on several databases, the push waits for the commit of one: Django has no hook for all.
    atomic[0].validate_no_broken_transaction()
    return str(atomic[0].alias)
