"""``jobs push``, ``retry``, ``cancel`` and ``prune``."""

from __future__ import annotations

import json
import re
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar, cast

from django.core.management.base import CommandError, OutputWrapper

from jobify_django import cancelling
from jobify_django.cancelling import CancelResult
from jobify_django.conf import get_settings
from jobify_django.exceptions import JobifyError, StoreError
from jobify_django.job import JobStatus
from jobify_django.management.subcommands.choosing import Chosen, chosen_jobs, leave_unserved
from jobify_django.management.subcommands.looking import add_filters
from jobify_django.management.subcommands.output import Progress, refuse_elsewhere, seconds, usage
from jobify_django.registry import tasks
from jobify_django.stores import every_store
from jobify_django.stores.base import Store
from jobify_django.task import Task

T = TypeVar("T")

CANCEL_WORDS = {
    CancelResult.CANCELLED: "cancelled",
    CancelResult.ASKED: "running asked to end",
    CancelResult.UNSTOPPABLE: "running cannot be stopped: a 'def' ends as it ends",
    CancelResult.UNSURE: "running of a task that is not known here: asked to end, which a 'def' does not",
    CancelResult.ENDED: "had ended",
}
ALWAYS_SHOWN = (CancelResult.CANCELLED, CancelResult.ASKED, CancelResult.ENDED)

LONGEST_QUOTE = 200
"""Characters of what was typed that an error repeats."""

PART = 1_000
"""Jobs after which it is told how far it is."""


def add_push(parser: ArgumentParser) -> None:
    parser.add_argument("task", help="the task's name, as in shop.tasks.charge_payment")
    parser.add_argument(
        "arguments", nargs="?", default="[]", help='JSON: ["a", 1], or {"args": ["a"], "kwargs": {"b": 1}}'
    )
    parser.add_argument("--queue")
    parser.add_argument("--priority", help="a band or a number")
    parser.add_argument("--delay", help="90s, 15m, 5h, 7d")


def push(
    out: OutputWrapper, *, task: str, arguments: str, owns_process: bool = False, **options: Any
) -> None:
    """Push one call of a task, and print the job's id."""
    args, kwargs = _arguments(arguments)
    changes: dict[str, Any] = {}
    if options["queue"] is not None:
        changes["queue"] = options["queue"]
    if (priority := options["priority"]) is not None:
        changes["priority"] = int(priority) if re.fullmatch(r"-?[0-9]{1,9}", priority) else priority
    if options["delay"] is not None:
        changes["delay"] = seconds(options["delay"])
    try:
        wanted = cast("Task[..., Any]", tasks[task]).using(**changes)
        refuse_elsewhere(get_settings().queue(wanted.queue), owns_process=owns_process)
        out.write(wanted.push(*args, **kwargs).id)
    except (JobifyError, TypeError) as error:
        raise CommandError(f"nothing was pushed: {error}") from error


def _arguments(text: str) -> tuple[list[Any], dict[str, Any]]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise usage(f"{_short(text)} is no JSON ({error}); write e.g. '[1, \"a\"]'.") from error
    if isinstance(value, list):
        return value, {}
    if isinstance(value, dict) and set(value) <= {"args", "kwargs"}:
        args, kwargs = value.get("args", []), value.get("kwargs", {})
        if isinstance(args, list) and isinstance(kwargs, dict):
            return args, kwargs
    raise usage(f'{_short(text)} is neither a list nor {{"args": [...], "kwargs": {{...}}}}.')


def _short(text: str) -> str:
    return repr(text) if len(text) <= LONGEST_QUOTE else f"{text[:LONGEST_QUOTE]!r}…"


def add_chosen(parser: ArgumentParser) -> None:
    parser.add_argument("ids", nargs="*", help="the jobs' ids; or filters, with --yes")
    add_filters(parser)
    parser.add_argument("--dry-run", action="store_true", help="only say how many")
    parser.add_argument("--yes", action="store_true", help="do it to all that the filters name")


def retry(out: OutputWrapper, *, progress: Progress, **options: Any) -> None:
    """Make failed and cancelled jobs wait again."""
    chosen = chosen_jobs([JobStatus.FAILED, JobStatus.CANCELLED], **options)
    leave_unserved(chosen)
    total = chosen.total
    if options["dry_run"]:
        out.write(f"{total} would be retried{chosen.left}")
        return
    done = len(_in_parts(chosen, lambda store, ids: store.retry(ids), progress))
    out.write(f"{done} retried, {total - done} were not failed or cancelled{chosen.left}")
    chosen.complain()


def cancel(out: OutputWrapper, *, progress: Progress, **options: Any) -> None:
    """Cancel jobs that have not started, and ask running 'async def' jobs to end."""
    chosen = chosen_jobs([JobStatus.WAITING, JobStatus.DELAYED, JobStatus.RUNNING], **options)
    if options["dry_run"]:
        out.write(f"{chosen.total} would be cancelled{chosen.left}")
        return
    ended = _in_parts(chosen, lambda store, ids: cancelling.cancel(store, ids).values(), progress)
    results = Counter(ended)
    said = (
        f"{results[result]} {words}"
        for result, words in CANCEL_WORDS.items()
        if results[result] or result in ALWAYS_SHOWN
    )
    out.write(f"{', '.join(said)}{chosen.left}")
    chosen.complain()


def _in_parts(
    chosen: Chosen, act: Callable[[Store, Sequence[str]], Iterable[T]], progress: Progress
) -> list[T]:
    """Act on jobs in parts, telling how far it is, and return all that came back."""
    gone = 0
    results: list[T] = []
    for store, ids in chosen.ids.items():
        for start in range(0, len(ids), PART):
            part = ids[start : start + PART]
            try:
                results += act(store, part)
            except StoreError as error:
                raise CommandError(
                    f"after {gone} of {chosen.total} jobs: {error} Run it again: what is done stays done."
                ) from error
            gone += len(part)
            progress(f"{gone} of {chosen.total} jobs")
    return results


def add_prune(parser: ArgumentParser) -> None:
    parser.add_argument("--older-than", help="successful jobs; by default JOBIFY['RETENTION']")
    parser.add_argument("--failed-older-than", help="others; by default JOBIFY['FAILED_RETENTION']")


def prune(
    out: OutputWrapper, *, older_than: str | None, failed_older_than: str | None, **options: Any
) -> None:
    """Delete jobs that ended long ago. Pools do the same every minute."""
    settings = get_settings()
    age = settings.retention if older_than is None else seconds(older_than)
    failed_age = settings.failed_retention if failed_older_than is None else seconds(failed_older_than)
    total = 0
    for store in every_store():
        while pruned := store.prune(older_than=age, failed_older_than=failed_age):
            total += pruned
    out.write(f"{total} jobs deleted")
