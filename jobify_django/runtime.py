"""What the package takes from the machine it runs on: time, randomness, threads.

All of it is one value, handed to whoever needs it, so that a test or a simulation hands in its own.
"""

from __future__ import annotations

import asyncio
import os
import queue
import random
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from asgiref.sync import sync_to_async


def _clock() -> float:
    # Looked up at each call: a project's tests that freeze ``time.time`` freeze it here, too.
    return time.time()


# Equal to itself alone: it is a part of keys, and hashing what it holds would take longer.
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Runtime:
    """The machine, as far as the package uses it.

    Attributes:
        clock: returns the time in seconds since the epoch. It may jump.
        monotonic: returns seconds since some moment, and never goes back. Waits are measured on it.
        sleep: lets this thread wait so many seconds.
        asleep: lets a coroutine wait so many seconds.
        uniform: returns a random number between two others.
        sample: returns so many elements of a sequence, in random order.
        urandom: returns so many random bytes, fit for secrets.
        lock: makes a lock, as ``threading.Lock``.
        event: makes an event, as ``threading.Event``.
        thread: makes a thread, as ``threading.Thread``.
        queue: makes an unbounded first-in, first-out queue between threads, as ``queue.SimpleQueue``.
        thread_id: returns a number that no other living thread has.
        process_id: returns a number that no other living process of this host has.
        sync_to_async: makes an awaitable of a blocking function, as asgiref's.
    """

    clock: Callable[[], float] = _clock
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    asleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    uniform: Callable[[float, float], float] = random.uniform
    sample: Callable[..., list[Any]] = random.sample
    urandom: Callable[[int], bytes] = os.urandom
    lock: Callable[[], Any] = threading.Lock
    event: Callable[[], Any] = threading.Event
    thread: Callable[..., Any] = threading.Thread
    queue: Callable[[], Any] = queue.SimpleQueue
    thread_id: Callable[[], int] = threading.get_ident
    process_id: Callable[[], int] = os.getpid
    sync_to_async: Callable[..., Any] = sync_to_async


MACHINE = Runtime()
"""The machine itself."""
