"""``manage.py jobs``: look at queues and jobs, act on them, find out what is wrong."""

from __future__ import annotations

import contextlib
from argparse import SUPPRESS, ArgumentParser
from collections.abc import Callable, Iterator
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import connections

from jobify_django.exceptions import StoreError
from jobify_django.management.subcommands import acting, bench, doctor, looking, output, tuning
from jobify_django.management.subcommands.table import plain_lines

SUBCOMMANDS: dict[str, tuple[Callable[[ArgumentParser], None], Callable[..., None]]] = {
    "status": (looking.add_status, looking.status),
    "list": (looking.add_list, looking.list_jobs),
    "show": (looking.add_show, looking.show),
    "push": (acting.add_push, acting.push),
    "retry": (acting.add_chosen, acting.retry),
    "cancel": (acting.add_chosen, acting.cancel),
    "pause": (tuning.add_queue, tuning.pause),
    "resume": (tuning.add_queue, tuning.resume),
    "tune": (tuning.add_tune, tuning.tune),
    "prune": (acting.add_prune, acting.prune),
    "doctor": (doctor.add_doctor, doctor.doctor),
    "bench": (bench.add_bench, bench.bench),
}


class Command(BaseCommand):
    help = "Looks at queues and jobs, acts on them, and finds out what is wrong."
    requires_system_checks = ()  # the doctor reports what they find, and the others must work in trouble
    _owns_process = False

    def add_arguments(self, parser: CommandParser) -> None:
        subparsers = parser.add_subparsers(dest="subcommand", required=True, metavar="SUBCOMMAND")
        for name, (add_arguments, work) in SUBCOMMANDS.items():
            about = (work.__doc__ or "").splitlines()[0]
            subparser = subparsers.add_parser(name, help=about, description=about)
            add_arguments(subparser)
            _add_djangos(subparser)

    def run_from_argv(self, argv: list[str]) -> None:
        self._owns_process = True
        with output.piped():
            super().run_from_argv(argv)

    def handle(self, *args: Any, subcommand: str, **options: Any) -> None:
        # Called from code it is part of that code's transaction.
        committing = autocommit() if self._owns_process else contextlib.nullcontext()
        with committing:
            try:
                progress = output.Progress(self.stderr)
                work = SUBCOMMANDS[subcommand][1]
                work(
                    self.stdout,
                    err=self.stderr,
                    owns_process=self._owns_process,
                    progress=progress,
                    **options,
                )
            except (StoreError, ImproperlyConfigured) as error:
                raise CommandError(plain_lines(str(error))) from error
            except KeyboardInterrupt as interrupt:
                raise CommandError("interrupted.", returncode=output.INTERRUPTED) from interrupt


@contextlib.contextmanager
def autocommit() -> Iterator[None]:
    """Let this thread's new connections commit what they do, whatever ``AUTOCOMMIT`` says: nobody else would.

    Connections that are open already stay as they are.
    """
    closed = [one for one in connections.all() if one.connection is None]
    before = [one.settings_dict for one in closed]
    for one in closed:
        one.settings_dict = {**one.settings_dict, "AUTOCOMMIT": True}
    try:
        yield
    finally:
        for one, settings in zip(closed, before, strict=True):
            one.settings_dict = settings


def _add_djangos(parser: ArgumentParser) -> None:
    """Take Django's own options behind the subcommand too; those before it are not overridden."""
    parser.add_argument("-v", "--verbosity", type=int, choices=range(4), default=SUPPRESS, help=SUPPRESS)
    for name in ("--settings", "--pythonpath"):
        parser.add_argument(name, default=SUPPRESS, help=SUPPRESS)
    for name in ("--traceback", "--no-color", "--force-color"):
        parser.add_argument(name, action="store_true", default=SUPPRESS, help=SUPPRESS)
