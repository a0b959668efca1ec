"""What the bound and the order hold against: open transactions, short delays, other schemas, loaded data."""

from __future__ import annotations

import threading


import pytest
from django.db import connection, connections, transaction

from jobify_django import JobStatus, QueueFull, get_job, queue, task
from jobify_django.stores.database import DatabaseStore
from tests.child import PATIENCE
from tests.test_server import elsewhere, the_store
from tests.workshop import Configure, both, database

servers = pytest.mark.skipif(connection.vendor == "sqlite", reason="needs a database server: set DATABASE_URL")
postgresql = pytest.mark.skipif(connection.vendor != "postgresql", reason="about PostgreSQL")


@task
def note(value: int = 0) -> None: ...


def waiting() -> int:
    return queue().stats().waiting


def failed(jobs: int) -> list[str]:
    """Return the ids of so many jobs that were cancelled, and so can be retried."""
    ids = [job.id for job in note.push_many([()] * jobs)]
    the_store().cancel(ids)
    return ids


# What several transactions choose at once


@servers
@database
def test_what_an_open_transaction_retries_is_not_pruned(jobify: Configure) -> None:
    store = the_store()
    ids = failed(20)

    with transaction.atomic():
        assert len(store.retry(ids)) == 20
        assert elsewhere(lambda: store.prune(older_than=-60, failed_older_than=-60)) == 0

    assert waiting() == 20


@servers
@database
def test_what_is_retried_while_a_prune_has_chosen_it_is_pruned_once_or_waits(jobify: Configure) -> None:
    store = the_store()
    ids = failed(200)
    pruned: list[int] = []
    retried: list[str] = []

    def prune() -> None:
        pruned.append(store.prune(older_than=-60, failed_older_than=-60, limit=100))
        connections.close_all()

    thread = threading.Thread(target=prune)
    thread.start()
    retried += store.retry(ids)
    thread.join(PATIENCE)

    assert waiting() == len(retried)
    assert set(store.get(retried)) == set(retried)
    assert len(pruned) == 1
