"""Notifications between processes by PostgreSQL's LISTEN and NOTIFY.

They only save time: a pool polls all the same, though less often while the listener is known to get them. A
pooler in transaction mode accepts LISTEN and delivers nothing. So the listener sends itself an echo now and
then; if it does not arrive, that is logged, and the listener polls.
"""

from __future__ import annotations

import contextlib
import select
from collections.abc import Callable, Collection, Iterable
from typing import Any

from django.db import connections

from jobify_django.log import get_log
from jobify_django.runtime import Runtime
from jobify_django.stores.notifier import EVERY_KIND, KINDS, Notification

logger = get_log("jobify.store")

CHANNEL = "jobify"
ECHO = "echo"

WAIT = 1.0
"""Seconds of one wait for notifications; a watcher without listeners ends after it."""

TEST_EVERY = 30.0
ECHO_TIMEOUT = 3.0
"""Seconds in which an echo must arrive."""

POLL_WITHOUT_LISTEN = 0.25
"""Seconds between two polls of a process that gets no notifications."""

DEBOUNCE = 0.01
"""Seconds in which a process sends the same notification once. A listener passes each on a second time after
them, for the ones that were left out."""

NOTIFY = f"""
    SELECT set_config('synchronous_commit', 'off', true), pg_notify('{CHANNEL}', payload)
    FROM unnest(%s::text[]) payload"""
"""A NOTIFY takes a lock on the whole database while it commits: it must not wait for the disk then.

One statement, a transaction by itself: with ``server_side_binding`` the server takes no more than one.
"""

NOTIFY_AT_COMMIT = f"SELECT pg_notify('{CHANNEL}', payload) FROM unnest(%s::text[]) payload"


class NotifySender:
    """Notifies other processes of changes, on the calling thread's connection.

    Args:
        alias: the database's key in ``settings.DATABASES``.
        runtime: the machine this process runs on.
    """

    def __init__(self, alias: str, runtime: Runtime) -> None:
        self._alias = alias
        self._runtime = runtime
        self._sent_at: dict[str, float] = {}

    def is_due(self, payload: str, ahead: float = 0.0) -> bool:
        """Return whether a notification is to be sent in so many seconds; if so, the same is not due again
        for a moment."""
        now = self._runtime.monotonic() + ahead
        if now - self._sent_at.get(payload, 0.0) < DEBOUNCE:
            return False
        self._sent_at[payload] = now
        return True

    def forget(self, payload: str) -> None:
        """Let a notification be due again that told of nothing."""
        self._sent_at.pop(payload, None)

    def send(self, changes: Iterable[tuple[str, str]], *, at_commit: bool = False) -> None:
        """Send notifications in one statement, but none that was sent a moment ago. Errors are ignored: they
        may be lost.

        Args:
            changes: of each its kind, and the queue, or an empty text.
            at_commit: they are part of the caller's transaction, and the server sends them at the commit.
        """
        payloads = [f"{kind} {queue}" for kind, queue in changes]
        if not at_commit:  # nobody knows how long it is until the commit
            payloads = [payload for payload in payloads if self.is_due(payload)]
        if not payloads:
            return
        with contextlib.suppress(Exception), connections[self._alias].cursor() as cursor:
            cursor.execute(NOTIFY_AT_COMMIT if at_commit else NOTIFY, [payloads])


class ListenDetector:
    """A connection of psycopg 3 that listens; a call waits for notifications.

    Args:
        alias: the database's key in ``settings.DATABASES``.
        send: sends the echo by which it tests itself.
        runtime: the machine this process runs on.
    """

    def __init__(self, alias: str, send: Callable[[str], None], runtime: Runtime) -> None:
        self._runtime = runtime
        self._send = send
        self._alias = alias
        self._listen()
        self._repeat_at: dict[Notification, float] = {}
        self._echo_sent_at: float | None = None
        self._next_test = 0.0
        self._gets_nothing = False
        self._has_heard = False
        # What was sent before it listened, it has missed.
        self._missed: Collection[Notification] = EVERY_KIND

    def _listen(self) -> None:
        wrapper: Any = connections[self._alias]
        self._raw = wrapper.Database.connect(**wrapper.get_connection_params(), autocommit=True)
        self._raw.execute(f"LISTEN {CHANNEL}")

    @property
    def hears(self) -> bool:
        """Whether notifications arrive: the last echo has, or is still expected."""
        return self._has_heard and not self._gets_nothing

    def __call__(self) -> Collection[Notification]:
        """Wait for notifications, a second at most, and return them."""
        if self._missed:
            missed, self._missed = self._missed, ()
            return missed
        self._test()
        wait = POLL_WITHOUT_LISTEN if self._gets_nothing else WAIT
        if self._repeat_at:
            wait = min(wait, DEBOUNCE)
        wait_for_input(self._raw.fileno(), wait)
        payloads = [notice.payload for notice in self._raw.notifies(timeout=0.0, stop_after=1)]
        received = {notification for payload in payloads if (notification := self._read(payload)) is not None}
        now = self._runtime.monotonic()
        due = {notification for notification, at in self._repeat_at.items() if at <= now}
        self._repeat_at = {notification: at for notification, at in self._repeat_at.items() if at > now}
        fresh = received | due
        self._repeat_at.update(dict.fromkeys(received, now + 2 * DEBOUNCE))
        return EVERY_KIND if self._gets_nothing and not fresh else fresh

    def _read(self, payload: str) -> Notification | None:
        kind, _, queue = payload.partition(" ")
        if kind == ECHO:
            self._echo_sent_at = None
            self._has_heard = True
            if self._gets_nothing:
                self._gets_nothing = False
                logger.info("event=hearing: LISTEN works again")
        return next(((known, queue or None) for known in KINDS if known == kind), None)

    def _test(self) -> None:
        now = self._runtime.monotonic()
        if (
            self._echo_sent_at is not None
            and now - self._echo_sent_at > ECHO_TIMEOUT
            and not self._gets_nothing
        ):
            self._gets_nothing = True
            logger.warning(
                "event=deaf: LISTEN delivers nothing, as behind a pooler in transaction mode; jobs are found "
                "by polling, up to %g s later",
                POLL_WITHOUT_LISTEN,
            )
        if now >= self._next_test:
            self._next_test = now + TEST_EVERY
            if self._gets_nothing:  # perhaps it is only this connection
                self.close()
                self._listen()
            self._echo_sent_at = self._echo_sent_at or now
            self._send(ECHO)

    def close(self) -> None:
        """Close the connection."""
        self._raw.close()


def wait_for_input(socket: int, seconds: float) -> None:
    """Wait until something can be read from a socket: psycopg's own wait looks ten times a second."""
    if hasattr(select, "poll"):
        poll = select.poll()
        poll.register(socket, select.POLLIN)
        poll.poll(seconds * 1000)
    else:
        select.select([socket], [], [], seconds)
