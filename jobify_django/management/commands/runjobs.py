"""``manage.py runjobs``: run jobs in a process of its own."""

from __future__ import annotations

import argparse
import math
import os
import platform
import socket
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any

import django
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import connections

from jobify_django import __version__
from jobify_django.conf import MAX_WORKERS, get_settings
from jobify_django.exceptions import StoreError, StoreUnmigrated, UnknownQueue
from jobify_django.log import get_log, quoted
from jobify_django.management import logs, reloading
from jobify_django.management.child import EXIT_JOBS_LEFT, LISTENING, OPTION, READY, ParentLink
from jobify_django.management.heartbeat import Heartbeat, HeartbeatFile, ParentHeartbeat
from jobify_django.management.process import Process
from jobify_django.management.subcommands.output import usage
from jobify_django.management.supervisor import MAX_PROCESSES, Supervisor
from jobify_django.pool import Service
from jobify_django.registry import tasks
from jobify_django.stores.value import QueueStats

logger = get_log("jobify.worker")


class Command(BaseCommand):
    help = (
        "Runs jobs until it is stopped. TERM, HUP or Ctrl+C: take no further job, let running ones end, hand "
        "back what is left, exit 0. A second one, or QUIT: hand back now, exit 1. USR1: log what the workers "
        "do."
    )
    # They would run before the signal handlers are there. What is wrong in JOBIFY is reported all the same.
    requires_system_checks = ()
    _owns_process = False

    def add_arguments(self, parser: CommandParser) -> None:
        which = parser.add_mutually_exclusive_group()
        which.add_argument("--queues", type=_names, metavar="A,B", help="Serve these queues only.")
        which.add_argument(
            "--exclude", type=_names, metavar="A,B", default=[], help="Serve all but these queues."
        )
        parser.add_argument(
            "--workers",
            type=_workers,
            metavar="N",
            help="Run so many jobs of each queue at once, whatever settings and live tuning say.",
        )
        parser.add_argument(
            "--processes",
            type=_processes,
            metavar="N",
            help="Run so many processes, each with workers of its own, and replace those that die.",
        )
        parser.add_argument(OPTION, type=_child, help=argparse.SUPPRESS)  # who starts it, as it tells itself
        parser.add_argument("--batch", action="store_true", help="Exit once nothing waits that it could run.")
        parser.add_argument("--max-jobs", type=_count, metavar="N", help="Exit after so many jobs.")
        parser.add_argument(
            "--grace",
            type=_seconds,
            metavar="SECONDS",
            help="Time that running jobs have to end; JOBIFY['GRACE'] by default.",
        )
        parser.add_argument(
            "--reload",
            action=argparse.BooleanOptionalAction,
            help="Start anew when code changes; by default with DEBUG, without --processes, --batch and "
            "--max-jobs.",
        )
        parser.add_argument(
            "--heartbeat-file", type=Path, metavar="PATH", help="Touch this file each second while it works."
        )
        parser.add_argument(
            "--log-format",
            choices=["text", "json"],
            help="How stderr looks, where LOGGING has no handler for it; text by default.",
        )

    def run_from_argv(self, argv: list[str]) -> None:
        self._owns_process = True
        super().run_from_argv(argv)

    def handle(self, *args: Any, **options: Any) -> None:
        code = self._supervise(options) if _wants_children(options) else self._work(options)
        if code:
            raise SystemExit(code)

    def _supervise(self, options: Mapping[str, Any]) -> int:
        self._refuse_processes(options)
        supervisor = Supervisor(options["processes"], batch=options["batch"])
        with supervisor.listening():
            self._configure_logs(options)
            self._service(options)  # what is wrong is said once, not by each process
            return supervisor.run(self._heartbeat_file(options["heartbeat_file"]))

    def _refuse_processes(self, options: Mapping[str, Any]) -> None:
        if options["reload"]:
            raise usage("--reload does not go with --processes: use one process while you change code.")
        if os.name != "posix":
            raise usage("--processes needs a Unix system: here, start runjobs that often.")
        if not self._owns_process:
            raise usage("--processes works from the command line only.")

    def _work(self, options: Mapping[str, Any]) -> int:
        process = Process(last_resort=self._owns_process)
        with process.listening():
            number, parent = _parent_link(options)
            self._configure_logs(options, number)
            if parent is not None:
                parent.when_parent_ends(process.orphaned)
            if _wants_reload(options) and not reloading.is_child():
                return reloading.Parent().run()
            return self._run(process, parent, options)

    def _run(self, process: Process, parent: ParentLink | None, options: Mapping[str, Any]) -> int:
        service = self._service(options)
        grace = get_settings().grace if options["grace"] is None else options["grace"]
        heartbeat = self._heartbeat(parent, options)
        self._log_start(service, options)
        if _wants_reload(options):
            reloading.watch(process)

        if parent is not None:
            # Before the pools run: their first job may end this process, which is no failure to start.
            parent.send(READY)

        def ready() -> None:
            logger.info("ready    stop with Ctrl+C (drains up to %g s; again to abort)", grace)

        return process.run(
            service, grace=grace, until=_until(service, options), heartbeat=heartbeat, ready=ready
        )

    def _heartbeat(self, parent: ParentLink | None, options: Mapping[str, Any]) -> Heartbeat | None:
        if parent is not None and options["processes"] and options["heartbeat_file"]:
            return ParentHeartbeat(parent)  # there is one file for all, and the process above touches it
        return self._heartbeat_file(options["heartbeat_file"])

    def _service(self, options: Mapping[str, Any]) -> Service:
        try:
            service = Service(
                options["queues"],
                exclude=options["exclude"],
                kind="runjobs",
                workers=options["workers"],
                max_jobs=options["max_jobs"],
                watch_unconfigured=options["child"] is None
                or options["child"][0] <= 1,  # one for all processes
            )
        except UnknownQueue as error:
            option = "--queues" if options["queues"] else "--exclude"
            raise usage(f"{option}: {error}") from error
        except ImproperlyConfigured as error:
            raise usage(str(error)) from error
        own = [name for pool in service.pools if not pool.store.shared for name in pool.queues]
        if own:
            raise usage(
                f"the jobs of {', '.join(map(repr, own))} are in a memory store: they live in the process "
                "that pushes them, and no other one can run them. Leave them out with "
                f"--exclude {','.join(own)}, or set their STORE to 'database'."
            )
        return service

    @staticmethod
    def _heartbeat_file(path: Path | None) -> HeartbeatFile | None:
        if path is None:
            return None
        heartbeat = HeartbeatFile(path)
        try:
            heartbeat.touch()
        except OSError as error:
            raise usage(
                f"--heartbeat-file {str(path)!r} cannot be touched: {error}. Name a file, not a link, in a "
                "directory this process may write to."
            ) from error
        return heartbeat

    # Its log, and its first lines

    def _configure_logs(self, options: Mapping[str, Any], number: int | None = None) -> None:
        """Write the log to stderr, or say there, once, what the project's logging makes of the options."""
        verbosity, format = options["verbosity"], options["log_format"]
        ours = logs.configure(format or "text", verbosity, number)
        if ours or options["child"] is not None or reloading.is_child():
            return
        idle = ["--log-format"] * (format is not None) + [f"-v {verbosity}"] * (verbosity != 1)
        if idle:
            which = " and ".join(idle)
            self._write_note(
                f"no effect of {which}: the project's LOGGING has a handler for the log, and decides."
            )
        if verbosity and not logs.shows_events():
            self._write_note(
                "the project's LOGGING decides what is logged, and shows no line for a job that ends well: "
                "that needs level INFO for the logger 'jobify'."
            )

    def _write_note(self, text: str) -> None:
        self.stderr.write(f"runjobs: {text}", style_func=str)

    def _log_start(self, service: Service, options: Mapping[str, Any]) -> None:
        database = get_settings().database
        logger.info(
            "jobify %s  django %s  python %s  store %s  host %s pid %d",
            __version__,
            django.get_version(),
            platform.python_version(),
            ", ".join(
                f"{pool.store.alias}({quoted(database)}: {connections[database].vendor})"
                if pool.store.alias == "database"
                else quoted(pool.store.alias)
                for pool in service.pools
            ),
            quoted(socket.gethostname()),
            os.getpid(),
        )
        try:
            stats = service.stats_of_queues()
        except StoreUnmigrated as error:
            raise CommandError(str(error)) from error
        except StoreError as error:
            # The pools survive a database that is away, at start-up too.
            logger.error("event=started-without-store error=%r: trying until it is back", str(error))
        else:
            queues = "   ".join(_describe(name, stats[name], options["workers"]) for name in service.names)
            logger.info("queues   %s", queues)
        modules = Counter(task.declaration.module for task in tasks)
        logger.info(
            "tasks    %d in %d modules: %s",
            modules.total(),
            len(modules),
            ", ".join(f"{quoted(module)} ({number})" for module, number in sorted(modules.items())) or "none",
        )


def _describe(name: str, stats: QueueStats, fixed: int | None) -> str:
    configured = get_settings().queue(name)
    workers, maxsize = f"{fixed or stats.workers} workers", f"maxsize {stats.maxsize}"
    if fixed:
        workers += " (--workers; live tuning of it is ignored)"
    elif stats.state.workers is not None:
        workers += f" (tuned, settings say {configured.workers})"
    if stats.state.maxsize is not None:
        maxsize += f" (tuned, settings say {configured.maxsize})"
    return f"{quoted(name)} {workers}, {maxsize}{', paused' if stats.paused else ''}"


def _wants_children(options: Mapping[str, Any]) -> bool:
    return options["processes"] is not None and options["child"] is None


def _wants_reload(options: Mapping[str, Any]) -> bool:
    if options["reload"] is None:
        lasts = not options["batch"] and options["max_jobs"] is None
        return bool(settings.DEBUG) and lasts and options["processes"] is None
    return bool(options["reload"])


def _parent_link(options: Mapping[str, Any]) -> tuple[int | None, ParentLink | None]:
    """Return the name of this process among several, and its way to the one that started it."""
    if options["child"] is None:
        return None, None
    number, descriptor = options["child"]
    try:
        parent = ParentLink(descriptor)
    except OSError as error:
        raise usage(f"{OPTION} is for runjobs itself.") from error
    parent.send(LISTENING)
    return number or None, parent


def _until(service: Service, options: Mapping[str, Any]) -> Callable[[], Coroutine[Any, Any, int]] | None:
    """Return what to wait for beside signals; it gives the exit code."""

    async def until_idle() -> int:
        left = await service.until_idle()
        for queue, jobs, reason in left:
            logger.warning("event=left queue=%s jobs=%d reason=%r", quoted(queue), jobs, reason)
        return EXIT_JOBS_LEFT if left else 0

    async def until_budget_spent() -> int:
        await service.until_budget_spent()
        return 0

    if options["batch"]:
        return until_idle
    return until_budget_spent if options["max_jobs"] else None


# What an option's value must be


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise argparse.ArgumentTypeError("name at least one queue, as in 'default,mail'")
    return names


def _workers(text: str) -> int:
    return _count(text, MAX_WORKERS)


def _processes(text: str) -> int:
    return _count(text, MAX_PROCESSES)


def _child(text: str) -> tuple[int, int]:
    number, _, descriptor = text.partition(":")
    return int(number), int(descriptor)


def _count(text: str, most: int | None = None) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    if most is not None and int(text) > most:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number from 1 to {most}")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds of at least 0")
    return seconds
