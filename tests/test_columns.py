"""The tables have the columns that statements list, and each class of stores fits its database."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection, connections

from jobify_django import models
from jobify_django.conf import QueueSettings
from jobify_django.job import DELAYED, Claim, JobRecord, JobSpec, new_id
from jobify_django.stores.database import DatabaseStore, columns, store
from jobify_django.stores.value import Added, JobQuery
from jobify_django.testing.conformance.ground import a_queue
from tests.claims import claim
from tests.workshop import Configure, database

QUEUE: QueueSettings = a_queue()


@pytest.mark.parametrize(
    ("model", "table"),
    [
        (models.Job, columns.JOB),
        (models.Queue, columns.QUEUE),
        (models.Pool, columns.POOL),
        (models.QueueChange, {"id": None, **columns.CHANGE}),
    ],
)
def test_every_column_of_a_table_is_known(model: Any, table: dict[str, Any]) -> None:
    assert {field.column for field in model._meta.concrete_fields} == set(table)


def test_a_new_row_gives_every_column_that_has_no_default() -> None:
    given = [name for name, column in columns.JOB.items() if column.new == "?"]
    assert list(columns.NewJob._fields) == given
    for model, table in (
        (models.Job, columns.JOB),
        (models.Queue, columns.QUEUE),
        (models.Pool, columns.POOL),
    ):
        for field in model._meta.concrete_fields:
            assert table[field.name].new or field.null, field


def test_records_and_claims_are_columns_of_a_job() -> None:
    assert set(JobRecord._fields) | {"order_key"} == set(columns.JOB)
    assert set(Claim._fields) <= set(columns.JOB)


@database
def test_flags_and_extra_are_kept_from_the_push_to_the_end(jobify: Configure) -> None:
    store = DatabaseStore()
    spec = JobSpec(new_id(), "a.task", "[[],{}]", flags=5, extra='{"a": "ä"}')
    store.add(QUEUE, [spec])
    (held,) = claim(store)
    assert (held.flags, held.extra) == (5, '{"a": "ä"}')
    record = store.get([spec.id])[spec.id]
    assert (record.flags, record.extra) == (5, '{"a": "ä"}')


@database
def test_a_pool_of_the_version_before_goes_on_inserting(jobify: Configure) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO jobify_job (id, queue, task, arguments, priority, status, sequence, order_key, "
            "pushed_at, eligible_at, attempt, crashes, pool, cancel_requested) "
            "VALUES ('old', 'default', 'a.task', '[[],{}]', 0, 'waiting', 1, 0, 0, 0, 0, 0, '', FALSE)"
        )
    (held,) = claim(DatabaseStore())
    assert (held.id, held.flags, held.extra) == ("old", 0, None)


# Classes


class Overruling(DatabaseStore):
    """A project's store, which has a word of its own in a push."""

    asked = 0

    def add(self, *args: Any, **options: Any) -> Added:
        self.asked += 1
        return super().add(*args, **options)


class Elsewhere(DatabaseStore):
    """A project's store that names its database itself."""

    def __init__(self, alias: str) -> None:
        super().__init__(alias, database="elsewhere")


@database
def test_a_store_is_one_of_its_databases_vendor_below_a_subclass(jobify: Configure) -> None:
    usual, own = DatabaseStore(), Overruling("own")
    vendor = type(usual)
    assert vendor is not DatabaseStore
    assert isinstance(own, Overruling)
    assert isinstance(own, vendor)
    assert type(own) is type(Overruling("once more"))
    own.add(QUEUE, [JobSpec(new_id(), "a.task", "[[],{}]", delay=60.0)])
    assert own.asked == 1
    assert [job.status for job in own.query(JobQuery())] == [DELAYED]


def test_a_subclass_that_names_its_database_is_one_of_that_vendor(tmp_path: Any) -> None:
    other = {
        **connections.settings["default"],
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": tmp_path / "db",
    }
    connections.settings["elsewhere"] = other
    try:
        made = Elsewhere("reports")
        assert store.VENDORS["sqlite"].endswith(f".{type(made).__mro__[2].__name__}")
        assert made.is_set_up() is False
    finally:
        del connections.settings["elsewhere"]
