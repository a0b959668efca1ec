"""Workers inside the web process: wrap the ASGI application, and the server starts and stops them.

application = lifespan(get_asgi_application())
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Awaitable, Callable, Collection, Iterator, MutableMapping, Sequence
from functools import partial
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any

from jobify_django.exceptions import StoreError
from jobify_django.log import get_log, listed
from jobify_django.pool import Service
from jobify_django.pool.loop import call_on_loop
from jobify_django.pool.shutdown import Shutdown

logger = get_log("jobify.worker")

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
# Servers and frameworks disagree on how wide these types are; every ASGI application fits.
Application = Callable[..., Awaitable[Any]]
Handler = Callable[[int, FrameType | None], Any]

SLOW = 10.0
"""Seconds after which an application inside that has not answered a lifespan event is named in the log."""

LOOK_FOR_PARENT = 1.0
"""Seconds between two looks at the server's parent process."""

SAME_SIGNAL_WITHIN = 1.0
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

    It must be the outermost wrapper: the server's lifespan events start and stop the workers. They are passed
    on to ``app``, if it takes them: it starts before the workers and stops after them. Nothing starts before
    the server says so.

    Args:
        app: the ASGI application, as ``get_asgi_application()`` returns it.
        queues: the queues to serve; all configured ones by default.
        exclude: queues not to serve.
        grace: seconds that running jobs have to end when the server stops; ``JOBIFY["GRACE"]`` by default.
        workers: jobs of each queue this process runs at once; stands above settings and live tuning.
    """
    service = partial(
        Service, queues, exclude=exclude, kind="lifespan", workers=workers, watch_unconfigured=True
    )
    return Lifespan(app, service, grace)


class Lifespan:
    """An ASGI application with workers inside; ``lifespan`` makes it."""

    def __init__(self, app: Application, make_service: Callable[[], Service], grace: float | None) -> None:
        self._app = app
        self._make_service = make_service
        self._grace = grace
        self._runs = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(InnerLifespan(self._app, scope, send), receive, send)
        else:
            await self._app(scope, receive, send)

    async def _live(self, inner: InnerLifespan, receive: Receive, send: Send) -> None:
        try:
            # Jobs may need what it prepares: it starts before the workers, and stops after them.
            if (failed := await inner.start(await receive())) is not None:
                await send(failed)
            else:
                await send(await self._work(inner, receive, send))
            await inner.end()
        except (Exception, asyncio.CancelledError):
            await inner.cancel()
            raise

    async def _work(self, inner: InnerLifespan, receive: Receive, send: Send) -> Message:
        """Run the workers until the server says stop; return the last answer to the server."""
        if self._runs:
            logger.error("event=lifespan-twice: this application's workers run already; no others start")
            await send({"type": "lifespan.startup.complete"})
            return await inner.stop(await receive())
        self._runs = True
        try:
            try:
                service = await self._start()
            except Exception as error:
                # Raised, it would be taken for "does not support lifespan", and the site served without
                # workers.
                reason = f"the workers of jobify_django.asgi.lifespan cannot start: {error}"
                unexplained = None if isinstance(error, StoreError) else error
                logger.critical("event=startup-failed error=%r", str(error), exc_info=unexplained)
                await inner.stop({"type": "lifespan.shutdown"})
                return {"type": "lifespan.startup.failed", "message": reason}
            message = await self._serve(service, receive, send)
        finally:
            self._runs = False
        return await inner.stop(message)

    async def _serve(self, service: Service, receive: Receive, send: Send) -> Message:
        stop = Stop(service, self._grace)
        with stop.on_signals(), stop.on_orphaned():
            try:
                try:
                    await send({"type": "lifespan.startup.complete"})
                    message = await receive()  # lifespan.shutdown
                except Exception as error:
                    # Nobody could tell them to stop any more, and the next lifespan would start others.
                    logger.critical("event=lifespan-broken error=%r: the workers inside stop", str(error))
                    await stop()
                    raise
                await stop()
            except asyncio.CancelledError:
                # The server has no more time for us: hand the jobs back while the loop still turns.
                service.release_now()
                await stop()
                raise
        return message

    async def _start(self) -> Service:
        service = self._make_service()
        await service.check_stores()
        start = asyncio.create_task(service.start())
        try:
            await asyncio.shield(start)
        except asyncio.CancelledError:
            await asyncio.wait([start])  # one half started could not be stopped
            service.release_now()
            await service.drain(0)
            raise
        logger.info("event=started kind=lifespan queues=%s", listed(service.names))
        return service


class InnerLifespan:
    """The lifespan of the application inside, which may have none.

    By the protocol an application that raises, or returns without an answer, has none; Django's own raises.
    """

    def __init__(self, app: Application, scope: Scope, send: Send) -> None:
        self._app = app
        self._scope = scope
        self._send = send
        self._messages: asyncio.Queue[Message] = asyncio.Queue()
        self._answers: dict[str, asyncio.Future[Message]] = {}
        self._asked = False
        self._task: asyncio.Task[None] | None = None

    async def start(self, message: Message) -> Message | None:
        """Let it start; return its answer if that is ``lifespan.startup.failed``."""
        loop = asyncio.get_running_loop()
        self._answers = {event: loop.create_future() for event in ("startup", "shutdown")}
        self._task = asyncio.create_task(self._run())
        answer = await self._pass_on(message, "startup")
        if answer is None or answer["type"] == "lifespan.startup.complete":
            return None
        return answer

    async def stop(self, message: Message) -> Message:
        """Let it stop, and return its answer, or the one it does not give."""
        return await self._pass_on(message, "shutdown") or {"type": "lifespan.shutdown.complete"}

    async def end(self) -> None:
        """Wait until it has returned; raises what it raised after an answer."""
        if self._task is not None:
            await self._task

    async def cancel(self) -> None:
        """End it where it awaits: the server is gone."""
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _pass_on(self, message: Message, event: str) -> Message | None:
        assert self._task is not None
        answer = self._answers[event]
        self._messages.put_nowait(message)
        either: list[asyncio.Future[Any]] = [answer, self._task]
        timeout: float | None = SLOW
        while not answer.done() and not self._task.done():
            done, _ = await asyncio.wait(either, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                logger.warning(
                    "event=lifespan-waits: the application inside has not answered lifespan.%s after %g s; "
                    "one without a lifespan must raise or return",
                    event,
                    SLOW,
                )
                timeout = None
        return answer.result() if answer.done() else None

    async def _run(self) -> None:
        try:
            await self._app(self._scope, self._receive, self._answer)
        except Exception as error:
            if self._answers["startup"].done():
                raise
            # One that has read the event most likely has a lifespan, and a fault in it.
            level = logging.WARNING if self._asked else logging.DEBUG
            logger.log(
                level, "event=no-inner-lifespan error=%r", str(error), exc_info=error if self._asked else None
            )

    async def _receive(self) -> Message:
        message = await self._messages.get()
        self._asked = True
        return message

    async def _answer(self, message: Message) -> None:
        kind = message["type"]
        for event, answer in self._answers.items():
            if kind in (f"lifespan.{event}.complete", f"lifespan.{event}.failed") and not answer.done():
                answer.set_result(message)
                return
        await self._send(message)


class Stop:
    """Stopping a service, once: when the server says so, or already when the process is signalled.

    A server with an open streaming response waits for its end before it sends ``lifespan.shutdown``, if it
    ever does. Until then this process must not take jobs that its replacement could run.
    """

    def __init__(self, service: Service, grace: float | None) -> None:
        self._shutdown = Shutdown(SAME_SIGNAL_WITHIN, service)
        self._grace = grace
        self._loop = asyncio.get_running_loop()
        self._drain: asyncio.Task[Sequence[str]] | None = None
        self._fatal_signal: int | None = None

    async def __call__(self) -> None:
        await asyncio.shield(self._begin())

    def _begin(self) -> asyncio.Task[Sequence[str]]:
        if self._drain is None:
            logger.info("event=stopping kind=lifespan")
            self._drain = asyncio.create_task(self._shutdown.drain(self._grace))
            self._drain.add_done_callback(lambda drain: self._end_by_signal())
        return self._drain

    def _end_by_signal(self) -> None:
        """End the process by the signal that would have ended it without us, once it may."""
        if self._fatal_signal is not None and self._drain is not None and self._drain.done():
            signal.signal(self._fatal_signal, signal.SIG_DFL)
            signal.raise_signal(self._fatal_signal)

    @contextlib.contextmanager
    def on_signals(self) -> Iterator[None]:
        """Listen to TERM and INT, in front of the server's own handlers, while the block runs; and to HUP,
        where the server has no handler for it: those that have one mean something else by it.

        Where the server has none for TERM, the signal would end the process at once, and count as a crash of
        its jobs. hypercorn's parent process sends it to all its workers when the first of them has ended,
        and the others perhaps have jobs to end. A terminal that is closed sends HUP.
        """
        chained: dict[signal.Signals, tuple[Handler, Handler | signal.Handlers]] = {}
        if threading.current_thread() is threading.main_thread():
            hangup = getattr(signal, "SIGHUP", None)
            for number in filter(None, (signal.SIGTERM, signal.SIGINT, hangup)):
                theirs = signal.getsignal(number)
                # A signal that the process ignores, as HUP under nohup, it goes on to ignore.
                if (callable(theirs) and number != hangup) or theirs is signal.SIG_DFL:
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
        # A forked sibling may hold the pipe open that tells of the parent's end, so the system is asked, too:
        # for whose child this is, which a fork server that is the parent to it does not change, and for the
        # process, which may have ended before ``number`` was read.
        while parent.is_alive() and os.getppid() == number and _exists(parent):  # noqa: ASYNC110 - no event
            await asyncio.sleep(LOOK_FOR_PARENT)
        logger.critical(
            "event=orphaned parent=%s: the server's parent process is gone; the workers inside stop",
            parent.pid,
        )
        self._shutdown.stop()
        await self()

    def _chain(self, theirs: Handler) -> Handler:
        def handler(number: int, frame: FrameType | None) -> None:
            self._signalled()
            theirs(number, frame)

        return handler

    def _defer(self, number: int, frame: FrameType | None) -> None:
        self._fatal_signal = number
        call_on_loop(self._loop, self._end_by_signal)

    def _signalled(self) -> None:
        # Between any two steps of the main thread: no lock, no log, only flags and the loop's own door.
        meaning = self._shutdown.meaning()
        if meaning == "stop":
            self._shutdown.stop()
            call_on_loop(self._loop, self._begin)
        elif meaning == "release":
            self._shutdown.release_now()


def _exists(process: BaseProcess) -> bool:
    """Whether the system has a process of this number. Windows' handle of it tells by itself."""
    if process.pid is None or os.name == "nt":  # there a signal 0 is a Ctrl-C
        return True
    try:
        os.kill(process.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # somebody else's, as behind a change of user
    return True
