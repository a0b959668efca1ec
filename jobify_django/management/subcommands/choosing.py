"""Which jobs ``manage.py jobs`` means: by what the stores hold, not by what the settings say."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.core.management.base import CommandError

from jobify_django.conf import did_you_mean, get_settings
from jobify_django.exceptions import UnknownQueue
from jobify_django.handle import no_store_holds
from jobify_django.job import JobRecord, JobStatus
from jobify_django.management.subcommands.output import usage
from jobify_django.registry import tasks
from jobify_django.stores import every_store
from jobify_django.stores.base import Store
from jobify_django.stores.value import JobQuery
from jobify_django.unconfigured import unserved

MOST = 10_000
"""Jobs that one call changes at most."""


def found(*, limit: int, **filters: Any) -> list[JobRecord]:
    """Return the records that the filters name, over all stores that may hold jobs."""
    by_store = found_by_store(limit=limit, **filters)
    records = [record for some in by_store.values() for record in some]
    if len(by_store) > 1 and filters.get("status") != JobStatus.WAITING:
        records.sort(key=lambda record: record.pushed_at, reverse=True)
    return records[:limit]


def found_by_store(
    *,
    status: str | None = None,
    queue: str | None = None,
    task: str | None = None,
    store: str | None = None,
    limit: int,
    payload: bool = True,
    **rest: Any,
) -> dict[Store, Sequence[JobRecord]]:
    """Return the records that the filters name, by the store that holds them: so many of each at most."""
    stores = _stores_named(store)
    wanted = None if status is None else JobStatus(status)
    query = JobQuery(queue=queue, status=wanted, task=task, limit=limit, payload=payload)
    records = {one: one.query(query) for one in stores}
    if queue is not None and not any(records.values()):
        _must_be_known(queue, stores)
    return {one: some for one, some in records.items() if some}


def _stores_named(name: str | None) -> list[Store]:
    stores = list(every_store())
    chosen = [store for store in stores if name is None or store.alias == name]
    if not chosen:
        raise CommandError(
            f"no jobs can be in a store {name!r}: there is {' and '.join(s.alias for s in stores)}."
        )
    return chosen


def _must_be_known(queue: str, stores: list[Store]) -> None:
    """Raise ``CommandError`` for a queue that neither the settings nor any job knows: it is misspelt."""
    try:
        get_settings().queue(queue)
    except UnknownQueue as error:
        if not any(store.count(JobQuery(queue=queue, limit=1)) for store in stores):
            raise CommandError(str(error)) from error


def refuse_mistyped(task: str | None) -> None:
    """Raise ``CommandError`` for a task of which there are no jobs, if it is almost the name of another."""
    names = [one.name for one in tasks]
    if task is not None and task not in names and (guess := did_you_mean(task, names)):
        raise CommandError(f"there are no such jobs of task {task!r}{guess}.")


def chosen_jobs(statuses: list[JobStatus], *, ids: list[str], yes: bool, **options: Any) -> Chosen:
    """Return the jobs that ids or filters name."""
    filters = {key: options[key] for key in ("status", "queue", "task", "store")}
    if bool(ids) == any(filters.values()):
        raise usage("name jobs by their ids, or by --status, --queue, --task, --store: one of the two.")
    if ids:
        return _by_ids(ids)
    if not (yes or options["dry_run"]):
        raise usage("this may change many jobs: look with --dry-run, then say --yes.")
    chosen = Chosen()
    wanted = [filters["status"]] if filters["status"] else [str(status) for status in statuses]
    for status in wanted:
        left = MOST
        for store, records in found_by_store(
            **{**filters, "status": status}, limit=MOST, payload=False
        ).items():
            chosen.add(store, records[:left])
            left = max(0, left - len(records))
    if not chosen.queues:
        refuse_mistyped(filters["task"])
    return chosen


def _by_ids(ids: Sequence[str]) -> Chosen:
    chosen = Chosen()
    for store in every_store():
        chosen.add(store, store.get([id for id in ids if id not in chosen.queues]).values())
    missing = [id for id in dict.fromkeys(ids) if id not in chosen.queues]
    chosen.problems.update(map(no_store_holds, missing))
    if not chosen.queues:
        raise CommandError(" ".join(chosen.problems))
    return chosen


def leave_unserved(chosen: Chosen) -> None:
    """Take out the jobs that would wait for ever, once they wait again."""
    for store, ids in list(chosen.ids.items()):
        reasons = unserved(store, {chosen.queues[id] for id in ids})
        chosen.problems.update(reasons[queue] for id in ids if (queue := chosen.queues[id]) in reasons)
        chosen.ids[store] = [id for id in ids if chosen.queues[id] not in reasons]


@dataclass
class Chosen:
    """The jobs that a command acts on, by the store that holds them, and those it cannot act on.

    Attributes:
        ids: the jobs, by store.
        queues: the queue of each job.
        problems: how many jobs are left alone for what reason.
    """

    ids: dict[Store, list[str]] = field(default_factory=lambda: defaultdict(list))
    queues: dict[str, str] = field(default_factory=dict)
    problems: Counter[str] = field(default_factory=Counter)

    def add(self, store: Store, records: Iterable[JobRecord]) -> None:
        """Take jobs that a store holds."""
        for record in records:
            self.ids[store].append(record.id)
            self.queues[record.id] = record.queue

    @property
    def total(self) -> int:
        """How many jobs it acts on."""
        return sum(map(len, self.ids.values()))

    @property
    def left(self) -> str:
        """The end of the summary."""
        return f", {self.problems.total()} left alone" if self.problems else ""

    def complain(self) -> None:
        """Raise ``CommandError`` if jobs were left alone, and say why."""
        if self.problems:
            raise CommandError(
                "; ".join(f"{number} left alone: {why}" for why, number in self.problems.items())
            )
