"""Models, migrations and the stores' SQL speak of one and the same schema, on every database."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps
from django.conf import settings as django_settings
from django.db import connection, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from jobify_django import models
from jobify_django.job import JobSpec, new_id
from jobify_django.stores import database
from jobify_django.stores.database import DatabaseStore, columns, reading
from jobify_django.stores.database.loading import STORAGE, complete
from jobify_django.testing.conformance.ground import a_queue
from tests.claims import POOL, claim
from tests.schema import TABLES, Column, Schema, rows, schema
from tests.test_router import ensure_connection
from tests.workshop import Configure

pytestmark = pytest.mark.django_db(transaction=True)

MODELS = (models.Job, models.Queue, models.QueueChange, models.Pool)
READ: Mapping[str, Mapping[str, columns.Column]] = {
    "jobify_job": columns.JOB,
    "jobify_queue": columns.QUEUE,
    "jobify_queuechange": columns.CHANGE,
    "jobify_pool": columns.POOL,
}
NUMBERED = {("jobify_queuechange", "id")}
"""Columns that the database fills."""

PARTIAL = {
    "jobify_job_waiting": ("queue, order_key, sequence", "status = 'waiting'"),
    "jobify_job_delayed": ("queue, eligible_at", "status = 'delayed'"),
    "jobify_job_running": ("queue", "status = 'running'"),
    "jobify_job_ended": ("status, ended_at", "ended_at IS NOT NULL"),
}
WHOLE = {
    "jobify_job_waiting": ("queue, status, order_key, sequence", ""),
    "jobify_job_delayed": ("queue, status, eligible_at", ""),
    "jobify_job_running": ("status, lease_until", ""),
    "jobify_job_ended": ("status, ended_at", ""),
}
NEWEST = {"jobify_queuechange_newest": ("queue, id DESC", "")}
INDEXES = {
    "sqlite": {**PARTIAL, **NEWEST},
    # None of those for LIKE that Django makes for each key that is text.
    "postgresql": {**PARTIAL, **NEWEST},
    "mysql": {**WHOLE, **NEWEST},
}
"""What databases search by: an index that goes missing makes claims slow, and nothing else tells of it."""

KEYS = {"jobify_job": "id", "jobify_queue": "name", "jobify_queuechange": "id", "jobify_pool": "id"}


@pytest.fixture
def without_migrations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A database whose tables Django made from the models, as under ``--nomigrations``."""
    alias = "plain"
    default = connections.settings["default"]
    name = tmp_path / "plain.sqlite3" if connection.vendor == "sqlite" else f"{default['NAME']}_plain"
    # As in tests/test_router.py: Django's test cases forbid a database that is younger than they are.
    with monkeypatch.context() as patch:
        patch.setattr(BaseDatabaseWrapper, "ensure_connection", ensure_connection)
        django_settings.DATABASES[alias] = {
            **default,
            "TEST": {**default["TEST"], "NAME": str(name), "MIGRATE": False},
        }
        creation = connections[alias].creation
        creation.create_test_db(verbosity=0, autoclobber=True)
        try:
            yield alias
        finally:
            creation.destroy_test_db(str(name), verbosity=0)
            del connections[alias]
            del django_settings.DATABASES[alias]


def searched(found: Schema) -> dict[str, tuple[str, str]]:
    """Return which columns each index is over, and which rows are in it, spelt alike for all databases."""
    told = {}
    for table, made in found.indexes.items():
        for name, text in made.items():
            plain = re.sub(r'["`]|::\w+', "", text)
            if plain.startswith("pk ") or name == "PRIMARY" or name.endswith("_pkey"):
                continue
            assert "UNIQUE" not in plain, name
            assert table in plain or connection.vendor == "mysql", name
            over, _, where = plain[plain.index("(") :].partition(" WHERE ")
            if connection.vendor != "sqlite":
                where = where.replace("(status)", "status").strip("()")
            told[name] = (re.sub(r",(?! )", ", ", over.strip("()")), where)
    return told


def kind_of(column: Column) -> set[Any]:
    """Return the readers that fit a column's type."""
    numbers, texts, times = (reading.number,), (reading.text, reading.text_or_none), (reading.timestamp,)
    kinds = {
        r"(big|small)?int(eger)?(\(\d+\))?( unsigned)?": numbers,
        r"varchar\(\d+\)|character varying\(\d+\)|(long)?text": texts,
        r"real|double( precision)?": (*times, reading.timestamp_or_none),
        r"bool(ean)?|tinyint\(1\)": (reading.boolean,),
    }
    (kind,) = (kind for pattern, kind in kinds.items() if re.fullmatch(pattern, column.type.lower()))
    return set(kind)


SIMPLE = {
    reading.number,
    reading.text,
    reading.text_or_none,
    reading.timestamp,
    reading.timestamp_or_none,
    reading.boolean,
}
"""Readers that say what a column's type must be; the others make more of a text or a number."""


# Models


@pytest.mark.parametrize("model", MODELS)
def test_the_columns_are_those_of_the_model(model: Any) -> None:
    table = model._meta.db_table
    found = schema().columns[table]
    assert list(found) == [field.column for field in model._meta.concrete_fields]
    for field in model._meta.concrete_fields:
        column = found[field.column]
        assert column.null is field.null, field
        filled = (table, field.column) in NUMBERED
        assert filled or (column.default is not None) is field.has_db_default(), field
    assert model._meta.pk.column == KEYS[table]


def test_every_table_is_one_of_a_model_and_has_its_key() -> None:
    managed = [model for model in apps.get_app_config("jobify_django").get_models() if not model._meta.proxy]
    assert {model._meta.db_table for model in managed} == set(TABLES)
    with connection.cursor() as cursor:
        there = {name for name in connection.introspection.table_names(cursor) if name.startswith("jobify")}
        keys = {table: connection.introspection.get_primary_key_column(cursor, table) for table in TABLES}
    assert there == set(TABLES)
    assert keys == KEYS


def test_the_flags_are_0_where_nobody_gives_them() -> None:
    assert schema().columns["jobify_job"]["flags"].default == "0"


def test_the_indexes_are_those_that_statements_search_by() -> None:
    assert searched(schema()) == INDEXES[connection.vendor]


@pytest.mark.parametrize("model", MODELS)
def test_every_index_of_a_model_is_there(model: Any) -> None:
    assert {index.name for index in model._meta.indexes} <= set(schema().indexes[model._meta.db_table])


def test_nothing_but_its_key_is_unique() -> None:
    for table in TABLES:
        with connection.cursor() as cursor:
            found = connection.introspection.get_constraints(cursor, table)
        assert {tuple(one["columns"]) for one in found.values() if one["unique"] or one["primary_key"]} == {
            (KEYS[table],)
        }, table


def test_migrations_make_what_the_models_declare_and_nothing_is_made_twice(without_migrations: str) -> None:
    made = schema(without_migrations)
    assert schema()._asdict() == made._asdict()

    complete(without_migrations)

    assert schema(without_migrations) == made


# SQL


@pytest.mark.parametrize("table", TABLES)
def test_every_column_is_one_that_statements_name(table: str) -> None:
    assert {(table, name) for name in schema().columns[table]} - NUMBERED == {
        (table, name) for name in READ[table]
    }


@pytest.mark.parametrize("table", TABLES)
def test_a_new_row_has_a_value_in_every_column_that_must_have_one(table: str) -> None:
    for name, column in schema().columns[table].items():
        if (table, name) not in NUMBERED and not column.null and column.default is None:
            assert READ[table][name].new, name


@pytest.mark.parametrize("table", TABLES)
def test_a_column_is_read_as_what_it_is(table: str) -> None:
    found = schema().columns[table]
    for name, known in READ[table].items():
        if known.read in SIMPLE:
            assert known.read in kind_of(found[name]), name
        if known.read in (reading.text_or_none, reading.timestamp_or_none):
            assert found[name].null, name


def test_all_that_statements_name_is_there() -> None:
    named = set()
    for file in Path(database.__path__[0]).glob("*.py"):
        if file.stem in ("sqlite", "postgresql", "mysql") and file.stem != connection.vendor:
            continue
        named |= set(re.findall(r"\bjobify_(?!django)\w+", file.read_text()))
    assert {"jobify_job", "jobify_queue", "jobify_pool", "jobify_queuechange"} <= named
    assert named - OTHER_LIBRARIES[connection.vendor] <= schema().names


NUMBERS = {"jobify_job_number"}
LIKE = {"jobify_job_id_6c733993_like", "jobify_queue_name_b67f8e0c_like", "jobify_pool_id_d1f424d4_like"}
OTHER_LIBRARIES: Mapping[str, set[str]] = {
    "sqlite": NUMBERS | LIKE,
    "postgresql": LIKE,
    "mysql": NUMBERS | LIKE,
}
"""Names of what other databases have, and of what is dropped."""


def test_numbers_begin_at_1_and_are_given_out_one_by_one() -> None:
    if connection.vendor != "postgresql":
        pytest.skip("about a sequence")
    ((start, step, cache, cycle, owner),) = rows(
        connection,
        "SELECT seqstart, seqincrement, seqcache, seqcycle, pg_get_serial_sequence('jobify_job', 'sequence') "
        "FROM pg_sequence WHERE seqrelid = 'jobify_job_number'::regclass",
    )
    # A larger cache would give numbers to sessions in advance, and so start jobs in another order.
    assert (start, step, cache, cycle, owner) == (1, 1, 1, False, None)


def options() -> list[str] | None:
    ((found,),) = rows(connection, "SELECT reloptions FROM pg_class WHERE oid = 'jobify_job'::regclass")
    return found


def test_dead_rows_do_not_wait_until_they_are_a_fifth_of_all_jobs() -> None:
    if connection.vendor != "postgresql":
        pytest.skip("about autovacuum")
    assert options() == [
        "fillfactor=85",
        "autovacuum_vacuum_scale_factor=0.01",
        "autovacuum_vacuum_threshold=1000",
    ]


def test_what_was_set_since_is_left_alone() -> None:
    if connection.vendor != "postgresql":
        pytest.skip("about autovacuum")
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE jobify_job SET (autovacuum_vacuum_scale_factor = 0.05)")
        cursor.execute("CREATE INDEX jobify_job_id_6c733993_like ON jobify_job (id varchar_pattern_ops)")
    try:
        complete("default")
        assert "autovacuum_vacuum_scale_factor=0.05" in (options() or [])
        assert "jobify_job_id_6c733993_like" in schema().indexes["jobify_job"]
    finally:
        with connection.cursor() as cursor:
            # PostgreSQL puts what is set to the end.
            cursor.execute("ALTER TABLE jobify_job RESET (autovacuum_vacuum_scale_factor)")
            cursor.execute("ALTER TABLE jobify_job RESET (autovacuum_vacuum_threshold, fillfactor)")
            cursor.execute(f"ALTER TABLE jobify_job SET ({STORAGE})")
            cursor.execute("DROP INDEX jobify_job_id_6c733993_like")


@pytest.mark.parametrize("jobify", ["database"], indirect=True)
def test_a_renewal_writes_no_index(jobify: Configure) -> None:
    if connection.vendor != "postgresql":
        pytest.skip("about HOT updates")
    store = DatabaseStore()
    specs = [JobSpec(new_id(), "a.task", "[[],{}]") for _ in range(5)]
    assert store.add(a_queue(), specs).taken == 5
    held = {one.id: one.attempt for one in claim(store, 5)}

    with transaction.atomic():  # what is counted in one, nobody collects before its end
        before = updates()
        assert not store.renew(POOL, held, 60.0).lost
        after = updates()

    assert [now - then for now, then in zip(after, before, strict=True)] == [5, 5]


def updates() -> tuple[int, int]:
    """Return how many rows of the table this transaction has updated, and how many of them HOT."""
    ((all_of_them, hot),) = rows(
        connection,
        "SELECT pg_stat_get_xact_tuples_updated('jobify_job'::regclass), "
        "pg_stat_get_xact_tuples_hot_updated('jobify_job'::regclass)",
    )
    return all_of_them, hot
