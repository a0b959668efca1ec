"""Starting ``runjobs`` anew when code changes.

Django's own loop (``run_with_reloader``) would run the pools on a daemon thread, where no signal handler can
be installed, and end them in the middle of a job. So only its watching is used: a child process runs the
pools on its main thread and watches files on another; when one changes it hands its jobs back and exits with
Django's code for "again", and the parent, which does nothing else, starts the next.
"""

from __future__ import annotations

import os
import signal
import threading

from django.utils import autoreload

from jobify_django.log import get_log
from jobify_django.management.child import PASSED_ON, Child, handled_signals
from jobify_django.management.process import Process

logger = get_log("jobify.worker")

AGAIN = 3
"""What a child exits with to be started anew. It never leaves the parent."""

GRACE = 2.0
"""Seconds that running jobs have to end when code has changed."""


def is_child() -> bool:
    """Whether this process was started by a ``Parent``."""
    return os.environ.get(autoreload.DJANGO_AUTORELOAD_ENV) == "true"


def watch(process: Process) -> None:
    """Stop the process when a module it has loaded changes, so that its ``Parent`` starts it anew."""

    def watch_files() -> None:
        if changed():
            process.code = AGAIN
            process.stop(GRACE, "reason=code-changed")

    threading.Thread(target=watch_files, name="jobify-reload", daemon=True).start()


class Parent:
    """Runs this command in a child process, again after each change of code."""

    def __init__(self) -> None:
        self._child: Child | None = None
        self._signalled = 0
        self._waits = False

    def run(self) -> int:
        """Run until the child has ended for another reason; return the exit code."""
        for number in handled_signals(PASSED_ON):
            signal.signal(number, self._pass_on)
        while not self._signalled:
            code = self._run_child()
            if code == 1 and not self._signalled:
                # It could not start, as after a slip of the pen.
                logger.warning("event=waiting-for-change: runjobs ended with an error")
                self._wait_for_change()
            elif code != AGAIN:
                return code if code >= 0 else 1
        return 0

    def _run_child(self) -> int:
        self._child = Child(environment={autoreload.DJANGO_AUTORELOAD_ENV: "true"})
        if self._signalled:  # while it was being started
            self._child.send(self._signalled)
        code = self._child.wait()
        self._child.close()
        return code

    def _wait_for_change(self) -> None:
        self._waits = True
        try:
            changed()
        finally:
            self._waits = False

    def _pass_on(self, number: int, frame: object) -> None:
        if number != getattr(signal, "SIGUSR1", None):
            self._signalled = number
            if self._waits:
                raise SystemExit(0)
        if self._child is not None:
            self._child.send(number)


def changed() -> bool:
    """Return ``True`` once a loaded module has changed."""
    try:
        autoreload.get_reloader().run(threading.main_thread())
    except SystemExit as end:
        if end.code != AGAIN:
            raise
        return True
    return False
