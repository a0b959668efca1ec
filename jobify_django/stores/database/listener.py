"""Notifications between processes by PostgreSQL's LISTEN and NOTIFY.

They only save time: a pool polls all the same. A pooler in transaction mode accepts LISTEN and delivers
nothing. So the listener sends itself an echo now and then; if it does not arrive, that is logged, and the
listener polls.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection
from typing import Any

from django.db import connections

from jobify_django.log import get_log
from jobify_django.runtime import Runtime
from jobify_django.stores.notifier import EVERYTHING, KINDS, News

logger = get_log("jobify.store")

CHANNEL = "jobify"
ECHO = "echo"

WAIT = 1.0
"""Seconds of one wait for notifications; a watcher without listeners ends after it."""

TEST_EVERY = 30.0
PATIENCE = 3.0
"""Seconds in which an echo must arrive."""

DEAF_POLL = 0.25
"""Seconds between two polls of a process that gets no notifications."""

DEBOUNCE = 0.01
"""Seconds in which a process sends the same notification once. A listener passes each on a second time after
them, for the ones that were left out."""

SAY = f"SELECT set_config('synchronous_commit', 'off', true), pg_notify('{CHANNEL}', %s)"
"""A NOTIFY takes a lock on the whole database while it commits: it must not wait for the disk then.

One statement, a transaction by itself: with ``server_side_binding`` the server takes no more than one.
"""

SAY_INSIDE = "SELECT pg_notify(%s, %s)"


class Speaker:
    """Notifies other processes of changes, on the calling thread's connection.

    Args:
        alias: the database's key in ``settings.DATABASES``.
        runtime: the machine this process runs on.
    """

    def __init__(self, alias: str, runtime: Runtime) -> None:
        self._alias = alias
        self._runtime = runtime
        self._said: dict[str, float] = {}

    def say(self, kind: str, queue: str = "", *, inside: bool = False) -> None:
        """Send a notification, unless the same was sent a moment ago. Errors are ignored: it may be lost.

        With ``inside`` it is part of the caller's transaction, and the server sends it at the commit.
        """
        word = f"{kind} {queue}"
        if not inside:  # nobody knows how long it is until the commit
            now = self._runtime.monotonic()
            if now - self._said.get(word, 0.0) < DEBOUNCE:
                return
            self._said[word] = now
        say, values = (SAY_INSIDE, [CHANNEL, word]) if inside else (SAY, [word])
        with contextlib.suppress(Exception), connections[self._alias].cursor() as cursor:
            cursor.execute(say, values)


class Listener:
    """A connection of psycopg 3 that listens; a call waits for notifications.

    Args:
        alias: the database's key in ``settings.DATABASES``.
        say: sends the echo by which it tests itself.
        runtime: the machine this process runs on.
    """

    def __init__(self, alias: str, say: Callable[[str], None], runtime: Runtime) -> None:
        self._runtime = runtime
        self._say = say
        self._alias = alias
        self._listen()
        self._again: dict[News, float] = {}
        self._asked: float | None = None
        self._next_test = 0.0
        self._deaf = False
        # What was sent before it listened, it has missed.
        self._missed: Collection[News] = EVERYTHING

    def _listen(self) -> None:
        wrapper: Any = connections[self._alias]
        self._raw = wrapper.Database.connect(**wrapper.get_connection_params(), autocommit=True)
        self._raw.execute(f"LISTEN {CHANNEL}")

    def __call__(self) -> Collection[News]:
        """Wait for notifications, a second at most, and return them."""
        if self._missed:
            missed, self._missed = self._missed, ()
            return missed
        self._test()
        wait = DEAF_POLL if self._deaf else WAIT
        if self._again:
            wait = min(wait, DEBOUNCE)
        words = [notice.payload for notice in self._raw.notifies(timeout=wait, stop_after=1)]
        heard = {news for word in words if (news := self._read(word)) is not None}
        now = self._runtime.monotonic()
        due = {news for news, at in self._again.items() if at <= now}
        self._again = {news: at for news, at in self._again.items() if at > now}
        fresh = heard | due
        self._again.update(dict.fromkeys(heard, now + 2 * DEBOUNCE))
        return EVERYTHING if self._deaf and not fresh else fresh

    def _read(self, payload: str) -> News | None:
        kind, _, queue = payload.partition(" ")
        if kind == ECHO:
            self._asked = None
            if self._deaf:
                self._deaf = False
                logger.info("event=hearing: LISTEN works again")
        return next(((known, queue or None) for known in KINDS if known == kind), None)

    def _test(self) -> None:
        now = self._runtime.monotonic()
        if self._asked is not None and now - self._asked > PATIENCE and not self._deaf:
            self._deaf = True
            logger.warning(
                "event=deaf: LISTEN delivers nothing, as behind a pooler in transaction mode; jobs are found "
                "by polling, up to %g s later",
                DEAF_POLL,
            )
        if now >= self._next_test:
            self._next_test = now + TEST_EVERY
            if self._deaf:  # perhaps it is only this connection
                self.close()
                self._listen()
            self._asked = self._asked or now
            self._say(ECHO)

    def close(self) -> None:
        """Close the connection."""
        self._raw.close()
