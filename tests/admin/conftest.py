from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from jobify_django import Task, task
from jobify_django.models import Job
from jobify_django.registry import tasks

PERMISSIONS = ("view_queue", "tune_queue", "view_job", "view_job_payload", "retry_job", "cancel_job")

Visit = Callable[..., Client]
AddJob = Callable[..., Job]
Asked = Callable[[], AbstractContextManager[list[str]]]


@pytest.fixture
def visit(db: None) -> Visit:
    """Log a staff user with these permissions in, and return their browser."""
    numbers = itertools.count()

    def visit(*permissions: str, **options: Any) -> Client:
        user = User.objects.create_user(f"staff{next(numbers)}", is_staff=True)
        user.user_permissions.set(
            Permission.objects.filter(content_type__app_label="jobify_django", codename__in=permissions)
        )
        client = Client(**options)
        client.force_login(user)
        return client

    return visit


@pytest.fixture
def everything(visit: Visit) -> Client:
    """The browser of a staff user with every permission of ours."""
    return visit(*PERMISSIONS)


@pytest.fixture
def add_job(db: None) -> AddJob:
    """Write a row as the database store would."""
    numbers = itertools.count(1)

    def add_job(**values: Any) -> Job:
        number = next(numbers)
        row = {
            "id": f"00000000-0000-7000-8000-{number:012d}",
            "queue": "default",
            "task": "shop.tasks.charge",
            "arguments": "[[], {}]",
            "status": "waiting",
            "sequence": number,
            "order_key": 0,
            "pushed_at": 1_700_000_000.0,
            "eligible_at": 1_700_000_000.0,
        }
        if values.get("status") in ("successful", "failed", "cancelled"):
            row |= {"started_at": 1_700_000_001.0, "ended_at": 1_700_000_003.5, "attempt": 1}
        return Job.objects.create(**{**row, **values})

    return add_job


@pytest.fixture
def noop() -> Iterator[Task[..., None]]:
    """A task that does nothing, known for the length of the test."""
    yield task(name="tests.noop")(_noop)
    tasks.forget("tests.noop")


async def _anoop(*args: Any) -> None: ...


def _noop(*args: Any) -> None: ...


@pytest.fixture
def anoop() -> Iterator[Task[..., None]]:
    """The same as an ``async def``."""
    yield task(name="tests.anoop")(_anoop)
    tasks.forget("tests.anoop")


@pytest.fixture
def asked(db: None) -> Asked:
    """Return the statements that the database was asked in a block, whoever asked."""

    @contextmanager
    def asked() -> Iterator[list[str]]:
        statements: list[str] = []
        if connection.vendor == "sqlite":
            # The store speaks to SQLite below Django's cursors, so only the connection sees everything.
            connection.connection.set_trace_callback(statements.append)
            try:
                yield statements
            finally:
                connection.connection.set_trace_callback(None)
        else:
            with CaptureQueriesContext(connection) as queries:
                yield statements
            statements += [query["sql"] for query in queries.captured_queries]

    return asked
