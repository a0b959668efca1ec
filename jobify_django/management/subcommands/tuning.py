"""``jobs tune``, ``pause`` and ``resume``."""

from __future__ import annotations

import getpass
from argparse import ArgumentParser
from collections.abc import Callable
from functools import partial
from typing import Any

from django.core.management.base import CommandError, OutputWrapper

from jobify_django.exceptions import InvalidTuning, StaleVersion, UnknownQueue
from jobify_django.management.subcommands.output import Progress, refuse_elsewhere, usage
from jobify_django.queue import Queue
from jobify_django.queue import queue as named
from jobify_django.stores.value import QueueState


def add_queue(parser: ArgumentParser) -> None:
    parser.add_argument("queue", help="the queue's name")
    parser.add_argument("--expected", type=int, help="only if the queue still has this version")


def add_tune(parser: ArgumentParser) -> None:
    add_queue(parser)
    parser.add_argument("--workers", type=int, help="jobs that each process runs at once")
    parser.add_argument("--maxsize", type=int, help="jobs that may wait")
    parser.add_argument("--order", help="priority, fifo or lifo")
    parser.add_argument("--reset", action="store_true", help="give all three back to the settings")


def tune(out: OutputWrapper, *, reset: bool, progress: Progress, **options: Any) -> None:
    """Change a queue's live values; every pool applies them within two seconds."""
    values: dict[str, Any] = {
        key: options[key] for key in ("workers", "maxsize", "order") if options[key] is not None
    }
    if reset and values:
        raise usage("--reset goes alone: it gives every value back to the settings.")
    target = _queue(**options)
    by = {**_by(**options), "progress": lambda moved: progress(f"{moved} jobs re-ordered")}
    _apply_and_write(out, target, lambda: target.reset(**by) if reset else target.tune(**values, **by))


def pause(out: OutputWrapper, **options: Any) -> None:
    """Start no more jobs of a queue; running ones finish, pushes are still taken."""
    target = _queue(**options)
    _apply_and_write(out, target, partial(target.pause, **_by(**options)))


def resume(out: OutputWrapper, **options: Any) -> None:
    """Start jobs of a paused queue again."""
    target = _queue(**options)
    _apply_and_write(out, target, partial(target.resume, **_by(**options)))


def _queue(queue: str, *, owns_process: bool = False, **options: Any) -> Queue:
    try:
        target = named(queue)
    except UnknownQueue as error:
        raise CommandError(str(error)) from error
    refuse_elsewhere(target.settings, owns_process=owns_process)
    return target


def _by(*, expected: int | None = None, **options: Any) -> dict[str, Any]:
    try:
        actor = getpass.getuser()
    except (KeyError, OSError):  # a user id without a name, as in many containers
        actor = ""
    return {"actor": actor, "source": "command", "expected": expected}


def _apply_and_write(out: OutputWrapper, target: Queue, change: Callable[[], QueueState]) -> None:
    try:
        state = change()
    except (InvalidTuning, StaleVersion) as error:
        raise CommandError(str(error)) from error
    live = state.applied_to(target.settings)
    paused = ", paused" if state.paused else ""
    paused += ", some jobs still in the old order: the workers go on with it" if state.reordering else ""
    out.write(
        f"{target.name}: {live.workers} workers in each process, maxsize {live.maxsize}, order {live.order}"
        f"{paused} (version {state.version})"
    )
