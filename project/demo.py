"""``make demo``: prepare a database, start the site with its workers inside, and send it customers.

``DEMO_SECONDS`` ends it by itself; otherwise Ctrl+C does. ``DEMO_PORT`` chooses the port.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import sys
import threading
import time
from types import FrameType

import django
import environ
from django.core.management import call_command

from project.server import Server, ServerDied, free_port
from project.settings import DEMO_DIRECTORY
from project.traffic import Traffic

LONGEST_DRAIN = 20.0
"""Seconds that the workers are given to empty the queue once the customers of a timed demo are gone."""


def main() -> int:
    """Run the demo, and return its exit code."""
    env = environ.Env()
    seconds = env.float("DEMO_SECONDS", default=0.0)
    port = env.int("DEMO_PORT", default=0) or free_port(8000)
    password = prepare()
    stop = stop_on_signals()
    began = time.time()
    server = Server(port, DEMO_DIRECTORY / "demo.log")
    try:
        with Traffic(port) as traffic, server:
            introduce(server, password)
            try:
                run(server, traffic, stop, seconds)
            except OSError as error:  # the site hung up: most likely because it is gone
                server.check(patience=2.0)
                raise ServerDied(
                    f"The server does not answer: {error!r}. Its log is {server.log}."
                ) from error
    except ServerDied as death:
        print(f"\n{death}", file=sys.stderr)
        return 1
    summarise(began, traffic)
    return 0


def prepare() -> str:
    """Set Django up, bring the database up to date, and return the admin's new password."""
    os.environ["DJANGO_SETTINGS_MODULE"] = "project.settings"  # the server's, too
    DEMO_DIRECTORY.mkdir(parents=True, exist_ok=True)
    django.setup()
    call_command("migrate", verbosity=0, interactive=False)

    from django.contrib.auth.models import User

    password = secrets.token_urlsafe(9)
    admin, _ = User.objects.get_or_create(username="admin")
    admin.is_staff = admin.is_superuser = admin.is_active = True
    admin.set_password(password)
    admin.save()
    return password


def stop_on_signals() -> threading.Event:
    """Return an event that Ctrl+C and a polite kill set. The second Ctrl+C interrupts whatever goes on."""
    stop = threading.Event()

    def handle(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, handle)
    return stop


def introduce(server: Server, password: str) -> None:
    """Say where to look."""
    from jobify_django import queue

    say("Jobify for Django: the demo")
    say(f"  site    {server.url}")
    say(f"  admin   {server.url}admin/")
    say(f"  login   admin  {password}")
    say(f"  log     {os.path.relpath(server.log)}")
    stats, wanted = queue("default").stats(), queue("default").settings
    if stats.paused or stats.state.applied_to(wanted) != wanted:
        tuned = f"{stats.workers} workers, maxsize {stats.maxsize}, {stats.order}"
        say(f"  queue   {tuned}{', paused' if stats.paused else ''}: so it was tuned in an earlier run")


def run(server: Server, traffic: Traffic, stop: threading.Event, seconds: float) -> None:
    """Send customers until the time is over or somebody stops it; raises ``ServerDied``."""
    say(f"Customers come for {seconds:g} s." if seconds else "Customers come until Ctrl+C.")
    ends = time.monotonic() + (seconds or float("inf"))
    traffic.start()
    while not stop.is_set() and (left := ends - time.monotonic()) > 0:
        server.check()
        stop.wait(min(0.2, left))
    traffic.stop()
    if not stop.is_set():
        drain(server, traffic, stop)
    server.check()
    traffic.read_totals()


def drain(server: Server, traffic: Traffic, stop: threading.Event) -> None:
    """Let the customers who are in the shop finish, and the workers empty the queue."""
    from jobify_django import queue

    ends = time.monotonic() + LONGEST_DRAIN
    while not stop.is_set() and time.monotonic() < ends:
        server.check()
        stats = queue("default").stats()
        if stats.paused or not (stats.waiting or stats.running or traffic.inside):
            return
        stop.wait(0.1)


def summarise(began: float, traffic: Traffic) -> None:
    """Print what happened, from the jobs' own rows."""
    from project.summary import summary

    say("")
    for line in summary(began, traffic.seen):
        say(line)


def say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
    sys.exit(130)
