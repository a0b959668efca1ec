"""Children that a job forks: they get default signal handlers, not those of the process that runs it.

``runjobs`` and a web server note TERM and go on. A child of ``multiprocessing`` that did the same would
outlive ``terminate()``, and the job that joins it would keep its worker for ever.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterable

from jobify_django.current import current

_lock = threading.Lock()
_hooked = False
_blocked = threading.local()


def hook_forks() -> None:
    """Make it so from now on, once a process. It does nothing to what others fork."""
    global _hooked
    with _lock:
        if _hooked or not hasattr(os, "register_at_fork"):
            return
        _hooked = True
    os.register_at_fork(before=_before, after_in_parent=_restore, after_in_child=_after_in_child)


def _before() -> None:
    if current.get() is not None:
        # A signal that comes before the child has its own handlers would be lost.
        _blocked.mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())


def _after_in_child() -> None:
    if current.get() is None:
        return
    try:
        signal.set_wakeup_fd(-1)  # the parent's event loop listens there
        for number in signal.valid_signals():
            # One that is an enum member is SIG_DFL or SIG_IGN, or none of Python's.
            if callable(signal.getsignal(number)):
                default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
                signal.signal(number, default)
    finally:
        _restore()


def _restore() -> None:
    mask: Iterable[int] | None = _blocked.__dict__.pop("mask", None)
    if mask is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
