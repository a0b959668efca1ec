"""What runs for very long, and what nobody runs any more, for ``jobs doctor``."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from jobify_django.conf import QueueSettings
from jobify_django.job import RUNNING, JobRecord
from jobify_django.management.subcommands.finding import Finding
from jobify_django.management.subcommands.table import words
from jobify_django.registry import tasks
from jobify_django.stores.base import Store
from jobify_django.stores.value import JobQuery, PoolRecord

SAMPLE = 1_000
"""Running jobs of a queue that are looked at: those pushed last."""


def running(store: Store, queues: Sequence[QueueSettings], long: float) -> Iterator[Finding]:
    """Look at the jobs that run in some queues of a store.

    Args:
        store: the store.
        queues: its queues.
        long: seconds after which a job runs for long.
    """
    records = [record for queue in queues for record in _running(store, queue)]
    now = store.clock()
    pools = {pool.id: pool for pool in store.pools()}
    leases = {queue.name: queue.lease for queue in queues}
    held = [record for record in records if (record.lease_until or 0.0) >= now]
    silent = [record for record in held if record.pool not in pools]
    lost = [record for record in records if _is_lost(record, now, leases[record.queue] if pools else 0.0)]
    troubles = [*_long(held, now, pools, long), *_silent(silent, leases), *_lost(lost, now, pools)]
    yield from troubles
    if not troubles:
        known = f"store {store.alias}: {len(records)} jobs run, none for longer than {words(long)}"
        yield Finding("PASS", known)


def _running(store: Store, queue: QueueSettings) -> Sequence[JobRecord]:
    return store.query(JobQuery(queue=queue.name, status=RUNNING, limit=SAMPLE, payload=False))


def _is_lost(record: JobRecord, now: float, allowance: float) -> bool:
    """Whether a lease ran out and the pools that are alive had time enough to take the job."""
    return (record.lease_until or 0.0) + allowance < now


def _long(
    held: Sequence[JobRecord], now: float, pools: Mapping[str, PoolRecord], long: float
) -> Iterator[Finding]:
    by_task: dict[str, list[JobRecord]] = defaultdict(list)
    for record in held:
        if now - (record.started_at or now) > long:
            by_task[record.task].append(record)
    for name, records in sorted(by_task.items()):
        first = min(records, key=lambda record: record.started_at or now)
        age = words(now - (first.started_at or now))
        where = _process(pools.get(first.pool))
        if len(records) == 1:
            text = f"job {first.id} of task {name} runs since {age} in {where}"
        else:
            text = (
                f"{len(records)} jobs of task {name} run for longer than {words(long)}, the first of "
                f"them, {first.id}, since {age} in {where}"
            )
        yield Finding("WARN", text, _way_out(first, pools.get(first.pool)), "job-long")


def _way_out(record: JobRecord, pool: PoolRecord | None) -> str:
    task = tasks.get(record.task)
    look = "read the log of its process"
    if pool is not None and pool.kind == "runjobs":
        look = f"kill -USR1 {pool.pid} on {pool.host} logs where it stands"
    elif pool is not None:
        # USR1 ends a server that has no handler for it.
        look = f"py-spy dump --pid {pool.pid} on {pool.host} shows where it stands"
    if task is not None and task.is_async:
        return f"{look}; jobs cancel {record.id} ends it where it awaits"
    return f"{look}; a 'def' cannot be stopped, only its process can: then the job runs again elsewhere"


def _process(pool: PoolRecord | None) -> str:
    if pool is None:
        return "a process that does not report itself"
    return f"{pool.kind} process {pool.pid} on {pool.host}"


def _silent(silent: Sequence[JobRecord], leases: Mapping[str, float]) -> Iterator[Finding]:
    if silent:
        lease = max(leases[record.queue] for record in silent)
        yield Finding(
            "WARN",
            f"{len(silent)} jobs, {silent[0].id} among them, are held by pools that do not report themselves:"
            " their process died a moment ago, or its claim loop is stuck",
            f"look again in {words(lease)}; if they are held still, look for event=pool-stuck in the logs",
            "pool-silent",
        )


def _lost(lost: Sequence[JobRecord], now: float, pools: Mapping[str, PoolRecord]) -> Iterator[Finding]:
    if lost:
        age = words(now - min(record.lease_until or now for record in lost))
        yield Finding(
            "WARN",
            f"{len(lost)} jobs, {lost[0].id} among them, wait to be taken from processes that are gone: the "
            f"first lease ran out {age} ago",
            "look for event=upkeep-failed in the logs of the workers"
            if pools
            else "start workers (manage.py runjobs): they take them within a minute",
            "lease-over",
        )
