"""Tasks for the tests that start processes."""

import asyncio
import ctypes
import multiprocessing
import os
import signal
import socket
import time
from pathlib import Path

from jobify_django import task

AN_HOUR = 3600


# What the tests of `runjobs` and of the servers run


@task
def write_line(path: str, line: str) -> None:
    """Leave a line in a file."""
    with Path(path).open("a") as file:
        file.write(f"{line}\n")


def _is_first(flag: str) -> bool:
    """Say that the job has started; ``False`` if it had before."""
    if Path(flag).exists():
        return False
    Path(flag).touch()
    return True


@task
def sleep_at_first(flag: str) -> str:
    """Sleep for an hour, but only the first time: the file says whether it is."""
    if _is_first(flag):
        time.sleep(AN_HOUR)
    return "second time"


@task
async def asleep_at_first(flag: str) -> str:
    """Sleep for an hour on the event loop, but only the first time."""
    if _is_first(flag):
        await asyncio.sleep(AN_HOUR)
    return "second time"


@task
def compute_at_first(flag: str) -> str:
    """Compute for an hour, but only the first time."""
    if _is_first(flag):
        end = time.monotonic() + AN_HOUR
        while time.monotonic() < end:
            pass
    return "second time"


@task
def push_into_full_queue_at_first(flag: str) -> str:
    """Wait for room in queue ``full``, but only the first time."""
    if _is_first(flag):
        write_line.using(queue="full", timeout=None).push("nowhere", "never")
    return "second time"


@task
async def apush_into_full_queue_at_first(flag: str) -> str:
    """Wait for room in queue ``full`` on the event loop, but only the first time."""
    if _is_first(flag):
        await write_line.using(queue="full", timeout=None).apush("nowhere", "never")
    return "second time"


@task
def wait_for_job_at_first(flag: str) -> str:
    """Wait for the end of a job that nobody runs, but only the first time."""
    if _is_first(flag):
        write_line.using(queue="full", delay=AN_HOUR).push("nowhere", "never").wait()
    return "second time"


@task
async def await_job_at_first(flag: str) -> str:
    """Wait for the end of a job that nobody runs, on the event loop, but only the first time."""
    if _is_first(flag):
        job = await write_line.using(queue="full", delay=AN_HOUR).apush("nowhere", "never")
        await job.wait()
    return "second time"


@task
async def block_loop_at_first(flag: str) -> str:
    """Hold the event loop for an hour, but only the first time."""
    if _is_first(flag):
        time.sleep(AN_HOUR)  # noqa: ASYNC251 - that is the mistake it shows
    return "second time"


@task
async def sleep_on_thread_at_first(flag: str) -> str:
    """Wait for a thread that sleeps for an hour, but only the first time."""
    if _is_first(flag):
        await asyncio.to_thread(time.sleep, AN_HOUR)
    return "second time"


@task
def hold_interpreter_at_first(directory: str) -> str:
    """Hold Python's global lock, so that no other thread of the process runs, but only the first time.

    It goes by files: ``started`` and ``held`` are its own, and it waits for ``begin`` and ``stop``.
    """
    started, begin, held, end = (f"{directory}/{name}" for name in ("started", "begin", "held", "end"))
    if not _is_first(started):
        return "second time"
    while not Path(begin).exists():
        time.sleep(0.01)
    wait = f"touch '{held}'; until [ -e '{end}' ]; do sleep 0.02; done"
    ctypes.PyDLL(None).system(wait.encode())
    return "first time"


@task
def wait_for_file(started: str, go: str) -> None:
    """Say that it has started, and end once the file ``go`` is there."""
    Path(started).touch()
    while not Path(go).exists():
        time.sleep(0.01)


@task
def kill_worker() -> None:
    """Kill the process that runs it."""
    os.kill(os.getpid(), signal.SIGKILL)


@task
def sign_book(book: str, go: str) -> str:
    """Write into a file on which host it begins and ends, which it does once ``go-<host>`` is there."""
    host = socket.gethostname()
    write_line(book, f"{host} begins")
    while not Path(f"{go}-{host}").exists():
        time.sleep(0.01)
    write_line(book, f"{host} ends")
    return host


def _terminate_children(path: str) -> str:
    """Fork children that sleep, terminate each at once, and tell how they ended."""
    fork = multiprocessing.get_context("fork")
    endings = []
    for _ in range(20):
        child = fork.Process(target=time.sleep, args=(AN_HOUR,))
        child.start()
        child.terminate()
        child.join()
        endings.append(child.exitcode)
    Path(path).write_text(" ".join(map(str, endings)))
    return "ended"


@task
def terminate_children(path: str) -> str:
    """Do it on a worker thread."""
    return _terminate_children(path)


@task
async def aterminate_children(path: str) -> str:
    """Do it on the event loop."""
    return _terminate_children(path)
