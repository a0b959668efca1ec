"""Workers inside the web process: wrap the ASGI application, and the server starts and stops them.

application = lifespan(get_asgi_application())
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Awaitable, Callable, Collection, Iterator, MutableMapping, Sequence
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any

from jobify_django.exceptions import StoreError, StoreUnmigrated
from jobify_django.log import get_log
from jobify_django.pool import Service

logger = get_log("jobify.worker")

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
# Servers and frameworks disagree on how wide these types are; every ASGI application fits.
Application = Callable[..., Awaitable[Any]]
Handler = Callable[[int, FrameType | None], Any]

LOOK_FOR_PARENT = 1.0
"""Seconds between two looks at the server's parent process."""

ONE_WISH = 1.0
"""Signals within so many seconds count as one: a terminal's Ctrl+C reaches a worker process twice, from the
terminal and from the server's parent process."""


def lifespan(
    app: Application,
    *,
    queues: Collection[str] | None = None,
    exclude: Collection[str] = (),
    grace: float | None = None,
    workers: int | None = None,
) -> Lifespan:
    """Return an ASGI application that is ``app`` with the workers of this process inside.

    It must be the outermost wrapper: the server's lifespan events start and stop the workers, and go no
    further. Nothing starts before the server says so.

    Args:
        app: the ASGI application, as ``get_asgi_application()`` returns it.
        queues: the queues to serve; all configured ones by default.
        exclude: queues not to serve.
        grace: seconds that running jobs have to end when the server stops; ``JOBIFY["GRACE"]`` by default.
        workers: jobs of each queue this process runs at once; stands above settings and live tuning.
    """
    return Lifespan(app, queues, exclude, grace, workers)


class Lifespan:
    """An ASGI application with workers inside; ``lifespan`` makes it."""

    def __init__(
        self,
        app: Application,
        queues: Collection[str] | None,
        exclude: Collection[str],
        grace: float | None,
        workers: int | None,
    ) -> None:
        self._app = app
        self._queues = queues
        self._exclude = exclude
        self._grace = grace
        self._workers = workers
        self._runs = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        else:
            await self._app(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()  # lifespan.startup
        if self._runs:
            logger.error("event=lifespan-twice: this application's workers run already; no others start")
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        self._runs = True
        try:
            await self._serve(receive, send)
        finally:
            self._runs = False

    async def _serve(self, receive: Receive, send: Send) -> None:
        try:
            service = await self._start()
        except Exception as error:
            # Raised, it would be taken for "does not support lifespan", and the site served without workers.
            reason = f"the workers of jobify_django.asgi.lifespan cannot start: {error}"
            logger.critical("event=startup-failed error=%r", str(error), exc_info=_unexplained(error))
            await send({"type": "lifespan.startup.failed", "message": reason})
            return
        stop = Stop(service, self._grace)
        with stop.on_signals(), stop.on_orphaned():
            try:
                await send({"type": "lifespan.startup.complete"})
                await receive()  # lifespan.shutdown
                await stop()
            except asyncio.CancelledError:
                # The server has no more time for us: hand the jobs back while the loop still turns.
                service.hurry()
                await stop()
                raise
        await send({"type": "lifespan.shutdown.complete"})

    async def _start(self) -> Service:
        service = Service(self._queues, exclude=self._exclude, kind="lifespan", workers=self._workers)
        try:
            await asyncio.to_thread(service.survey)
        except StoreUnmigrated:
            raise
        except StoreError as error:
            # The pools survive a database that is away, at start-up too; the site may serve what needs none.
            logger.error("event=started-without-store error=%r", str(error))
        await service.start()
        logger.info("event=started kind=lifespan queues=%s", ",".join(service.names))
        return service


class Stop:
    """Stopping a service, once: when the server says so, or already when the process is signalled.

    A server with an open streaming response waits for its end before it sends ``lifespan.shutdown``, if it
    ever does. Until then this process must not take jobs that its replacement could run.
    """

    def __init__(self, service: Service, grace: float | None) -> None:
        self._service = service
        self._grace = grace
        self._loop = asyncio.get_running_loop()
        self._drain: asyncio.Task[Sequence[str]] | None = None
        self._first: float | None = None
        self._deadly: int | None = None

    async def __call__(self) -> None:
        await asyncio.shield(self._begin())

    def _begin(self) -> asyncio.Task[Sequence[str]]:
        if self._drain is None:
            logger.info("event=stopping kind=lifespan")
            self._drain = asyncio.create_task(self._service.drain(self._grace))
            self._drain.add_done_callback(lambda drain: self._die())
        return self._drain

    def _die(self) -> None:
        """End the process by the signal that would have ended it without us, once it may."""
        if self._deadly is not None and self._drain is not None and self._drain.done():
            signal.signal(self._deadly, signal.SIG_DFL)
            signal.raise_signal(self._deadly)

    @contextlib.contextmanager
    def on_signals(self) -> Iterator[None]:
        """Listen to TERM and INT, in front of the server's own handlers, while the block runs.

        Where the server has none for TERM, the signal would end the process at once, and count as a crash of
        its jobs. hypercorn's parent process sends it to all its workers when the first of them has ended,
        and the others perhaps have jobs to end.
        """
        chained: dict[signal.Signals, tuple[Handler, Handler | signal.Handlers]] = {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                theirs = signal.getsignal(number)
                # A signal that the process ignores, it goes on to ignore.
                if callable(theirs) or theirs is signal.SIG_DFL:
                    ours = self._chain(self._defer if theirs is signal.SIG_DFL else theirs)
                    signal.signal(number, ours)
                    chained[number] = (ours, theirs)
        try:
            yield
        finally:
            for number, (ours, theirs) in chained.items():
                if signal.getsignal(number) is ours:
                    signal.signal(number, theirs)

    @contextlib.contextmanager
    def on_orphaned(self) -> Iterator[None]:
        """Stop when the server's parent process is gone, while the block runs.

        Nobody would stop this process then, and its jobs would run an old deployment's code.
        """
        # Only a child made by multiprocessing, as servers make their workers, surely has a parent to miss:
        # a shell may end before what it started.
        parent = multiprocessing.parent_process()
        if parent is None:
            yield
            return
        watch = asyncio.create_task(self._watch(parent, os.getppid()))
        try:
            yield
        finally:
            watch.cancel()

    async def _watch(self, parent: BaseProcess, number: int) -> None:
        # A forked sibling may hold the pipe open that tells of the parent's end, so both are asked.
        while parent.is_alive() and os.getppid() == number:  # noqa: ASYNC110 - no event tells of it
            await asyncio.sleep(LOOK_FOR_PARENT)
        logger.critical(
            "event=orphaned parent=%s: the server's parent process is gone; the workers inside stop",
            parent.pid,
        )
        self._service.stop_claiming()
        await self()

    def _chain(self, theirs: Handler) -> Handler:
        def handler(number: int, frame: FrameType | None) -> None:
            self._signalled()
            theirs(number, frame)

        return handler

    def _defer(self, number: int, frame: FrameType | None) -> None:
        self._deadly = number
        self._loop.call_soon_threadsafe(self._die)

    def _signalled(self) -> None:
        # Between any two steps of the main thread: no lock, no log, only flags and the loop's own door.
        now = time.monotonic()
        if self._first is None:
            self._first = now
            self._service.stop_claiming()
            self._loop.call_soon_threadsafe(self._begin)
        elif now - self._first > ONE_WISH:
            self._service.hurry()


def _unexplained(error: Exception) -> Exception | None:
    return None if isinstance(error, StoreError) else error
