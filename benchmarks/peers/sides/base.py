"""What a cell asks of a contestant."""

from __future__ import annotations

import json
import os
import sys
from typing import Any, Literal

Kind = Literal["def", "async"]


class Unsupported(Exception):
    """The contestant has no such thing; the message says what it has not, for the table's dash."""


class Side:
    """One contestant in one set-up.

    ``recommended`` is what its documentation tells a user to write, ``fastest`` what it offers beyond that
    for speed, short of giving up what the contestant promises.
    """

    poll_seconds = 0.0
    """How long an idle worker sleeps between two looks, if it is not woken. Pick-ups spread over it."""

    def __init__(self, *, fast: bool, kind: Kind, workers: int, jobs: int) -> None:
        self.fast, self.kind, self.workers, self.jobs = fast, kind, workers, jobs
        self.dsn = os.environ["PEERS_DSN"]

    @property
    def on_sqlite(self) -> bool:
        """Whether the cell's database is a SQLite file."""
        return self.dsn.startswith("sqlite:")

    @property
    def path(self) -> str:
        """The SQLite file."""
        return self.dsn.removeprefix("sqlite://")

    def prepare(self) -> None:
        """Make the tables and connect: everything that comes before the first push."""
        raise NotImplementedError

    def one_by_one(self, number: int) -> float | None:
        """Push ``number`` jobs, each in a transaction of its own; return when the last was in.

        ``None`` says that it was in when this returned.
        """
        raise NotImplementedError

    def bulk(self, number: int) -> None:
        """Push ``number`` jobs with what the contestant has for many."""
        raise Unsupported("no push of many jobs at once")

    def worker(self) -> list[str]:
        """Return the command of the worker process; it inherits the environment."""
        raise NotImplementedError

    def left(self) -> int:
        """Return how many jobs are not settled: those that wait, run, or have an outcome nobody stored."""
        raise NotImplementedError


class DjangoSide(Side):
    """A contestant that is a Django app."""

    apps: tuple[str, ...] = ()
    left_sql = ""

    def settings(self) -> dict[str, Any]:
        """Return the Django settings beyond the database."""
        return {}

    def prepare(self) -> None:
        os.environ["DJANGO_SETTINGS_MODULE"] = "benchmarks.peers.settings"
        persistent = {"CONN_MAX_AGE": None} if self.fast else {}
        os.environ["PEERS_SETTINGS"] = json.dumps(
            {"INSTALLED_APPS": self.apps, **persistent, **self.settings()}
        )
        import django
        from django.core.management import call_command

        django.setup()
        call_command("migrate", verbosity=0)

    def command(self, *arguments: str) -> list[str]:
        """Return a management command."""
        return [sys.executable, "-m", "django", *arguments]

    def left(self) -> int:
        from django.db import connection

        with connection.cursor() as cursor:
            cursor.execute(self.left_sql)
            return int(cursor.fetchone()[0])


class PostgresSide(Side):
    """A contestant with a connection of its own to PostgreSQL."""

    left_sql = ""

    def left(self) -> int:
        if not hasattr(self, "_looker"):
            import psycopg

            self._looker = psycopg.connect(self.dsn, autocommit=True)
        row = self._looker.execute(self.left_sql).fetchone()
        return int(row[0]) if row else 0
