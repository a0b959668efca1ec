"""A push while a transaction of another database than the store's is open: whose commit it waits for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from django.contrib.auth.models import Group
from django.core.management import call_command
from django.db import connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from jobify_django import QueueFull, queue, task
from tests.settings import SQLITE_OPTIONS
from tests.test_router import ensure_connection
from tests.workshop import Configure, both, memory

pytestmark = pytest.mark.django_db(transaction=True)
OTHER = "shop"


@task
def note(value: int = 0) -> None: ...


@pytest.fixture(autouse=True)
def another_database(
    tmp_path: Path, transactional_db: None, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """A second database of the project, which is not Django's default."""
    # Django's test cases forbid databases they were not told of, and this one is younger than they are.
    # Undone here, before the test may do without a database again: or nothing would be forbidden any more.
    with monkeypatch.context() as patch:
        patch.setattr(BaseDatabaseWrapper, "ensure_connection", ensure_connection)
        connections.settings[OTHER] = {
            **connections.settings["default"],
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": str(tmp_path / "shop.sqlite3"),
            "OPTIONS": SQLITE_OPTIONS,
        }
        call_command("migrate", "auth", database=OTHER, verbosity=0)
        yield
        connections[OTHER].close()
        del connections[OTHER]
        del connections.settings[OTHER]


def push_one() -> None:
    note.push()


def push_two() -> None:
    note.push_many([(1,), (2,)])


pushes = pytest.mark.parametrize(("push", "jobs"), [(push_one, 1), (push_two, 2)], ids=["push", "push_many"])


def waiting() -> int:
    return queue().stats().waiting


@both
@pushes
def test_a_push_waits_for_the_commit_of_the_database_whose_transaction_is_open(
    jobify: Configure, push: Callable[[], None], jobs: int
) -> None:
    with transaction.atomic(using=OTHER):
        Group.objects.using(OTHER).create(name="ordered")
        push()
        assert waiting() == 0
    assert waiting() == jobs


@both
@pushes
def test_a_push_is_never_sent_when_the_transaction_on_that_database_rolls_back(
    jobify: Configure, push: Callable[[], None], jobs: int
) -> None:
    with transaction.atomic(using=OTHER):
        push()
        transaction.set_rollback(True, using=OTHER)
    assert waiting() == 0


@memory
@pushes
def test_a_push_waits_for_no_commit_of_a_database_that_has_no_transaction_open(
    jobify: Configure, push: Callable[[], None], jobs: int
) -> None:
    """Although that database is connected, and younger or older than the one whose transaction is open."""
    Group.objects.using(OTHER).count()
    with transaction.atomic():
        push()
        assert waiting() == 0
    assert waiting() == jobs


@both
@pushes
def test_a_commit_elsewhere_does_not_send_the_push(
    jobify: Configure, push: Callable[[], None], jobs: int
) -> None:
    with transaction.atomic(using=OTHER):
        push()
        with transaction.atomic():
            Group.objects.create(name="of another database")
        assert waiting() == 0
    assert waiting() == jobs


@both
def test_a_rolled_back_savepoint_of_that_database_takes_its_push_along(jobify: Configure) -> None:
    with transaction.atomic(using=OTHER):
        note.push()
        with transaction.atomic(using=OTHER):
            note.push()
            transaction.set_rollback(True, using=OTHER)
    assert waiting() == 1


@memory
@pushes
def test_of_two_open_transactions_a_push_waits_for_that_of_the_database_named_first(
    jobify: Configure, push: Callable[[], None], jobs: int
) -> None:
    with transaction.atomic(using=OTHER):
        with transaction.atomic():
            push()
            assert waiting() == 0
        assert waiting() == jobs
    with transaction.atomic():
        with transaction.atomic(using=OTHER):
            push()
        assert waiting() == jobs
    assert waiting() == 2 * jobs


@memory
def test_a_push_refused_at_the_commit_ends_the_block_with_an_error_and_later_hooks_do_not_run(
    jobify: Configure,
) -> None:
    jobify(MAXSIZE=1, PUSH_TIMEOUT=0)
    ran: list[str] = []

    def order() -> None:
        with transaction.atomic(using=OTHER):
            Group.objects.using(OTHER).create(name="committed")
            transaction.on_commit(lambda: ran.append("before"), using=OTHER)
            push_two()
            transaction.on_commit(lambda: ran.append("after"), using=OTHER)

    with pytest.raises(QueueFull) as full:
        order()
    assert (full.value.taken, waiting()) == (1, 1)
    assert Group.objects.using(OTHER).filter(name="committed").exists()
    assert ran == ["before"]
