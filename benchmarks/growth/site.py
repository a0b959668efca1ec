"""The Django project of a point: on SQLite, or in a database of its own on a PostgreSQL server."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlsplit

from benchmarks import harness, project

SQLITE = {
    "ENGINE": "django.db.backends.sqlite3",
    "OPTIONS": {
        "timeout": 20,
        "transaction_mode": "IMMEDIATE",
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
    },
}
NAME = "jobify_growth"


@contextmanager
def site(server: str, name: str = NAME, **jobify: Any) -> Iterator[None]:
    """Set Django up on an empty database, here and for processes started from here; drop it at the end.

    ``server`` is PostgreSQL's address, or empty for SQLite; ``name`` is the database's on it; ``jobify`` is
    ``settings.JOBIFY``.
    """
    os.environ["DJANGO_SETTINGS_MODULE"] = "benchmarks.growth.settings"
    os.environ["GROWTH_JOBIFY"] = json.dumps({"STORE": "database", **jobify})
    database = (
        _postgresql(server, name) if server else {**SQLITE, "NAME": str(Path("growth.sqlite3").resolve())}
    )
    os.environ["GROWTH_DATABASE"] = json.dumps(database)
    if server:
        _on(server, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)", f"CREATE DATABASE {name}")
    try:
        import django
        from django.core.management import call_command
        from django.db import connections

        django.setup()
        call_command("migrate", verbosity=0)
        yield
        connections.close_all()
    finally:
        if server:
            _on(server, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


@contextmanager
def pools(number: int, *arguments: str) -> Iterator[None]:
    """Run so many ``runjobs`` while the block runs; it begins when all have reported themselves."""
    with ExitStack() as stack:
        started = [
            stack.enter_context(project.command("runjobs", "--verbosity=0", *arguments))
            for _ in range(number)
        ]
        deadline = time.monotonic() + 60
        while project.query("SELECT count(*) FROM jobify_pool")[0] < number:
            if time.monotonic() > deadline or any(one.poll() is not None for one in started):
                raise harness.ContestantFailed("a pool did not start")
            time.sleep(0.05)
        yield


def milliseconds(times: list[float]) -> float:
    """Return the median of some seconds, in milliseconds."""
    return median(times) * 1000


def left() -> int:
    """Return how many jobs have not ended."""
    unended = "SELECT count(*) FROM jobify_job WHERE status = 'waiting' OR status = 'running'"
    return int(project.query(unended)[0])


def python_has_psycopg() -> bool:
    """Whether this interpreter can speak to PostgreSQL."""
    from importlib.util import find_spec

    return find_spec("psycopg") is not None


def _postgresql(server: str, name: str) -> dict[str, Any]:
    parts = urlsplit(server)
    return {
        "ENGINE": "django.db.backends.postgresql",
        "HOST": parts.hostname,
        "PORT": parts.port or 5432,
        "USER": parts.username,
        "PASSWORD": parts.password or "",
        "NAME": name,
    }


def _on(server: str, *statements: str) -> None:
    if not python_has_psycopg():
        sys.exit("PostgreSQL needs psycopg here: pip install 'psycopg[binary]'")
    import psycopg

    with psycopg.connect(server, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)  # type: ignore[arg-type]
