"""The page for administrators of PostgreSQL: each statement on it runs."""

from __future__ import annotations

import re

import pytest
from django.db import connection, transaction

from jobify_django.stores.database.loading import STORAGE
from tests.blocks.page import DOCS, Block, blocks

PAGE = DOCS / "howto" / "postgresql-for-dbas.md"
SQL = [block for block in blocks(PAGE) if block.language == "sql"]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("block", SQL, ids=str)
def test_each_statement_runs(block: Block) -> None:
    if connection.vendor != "postgresql":
        pytest.skip("about PostgreSQL")
    for statement in filter(None, map(str.strip, block.text.split(";\n"))):
        if "pg_stat_statements" in statement and not extension("pg_stat_statements"):
            pytest.skip("pg_stat_statements is not installed")
        if statement.startswith("ALTER"):
            with transaction.atomic():
                run(statement)
                transaction.set_rollback(True)
        else:
            run(statement)


def run(statement: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement)
        if cursor.description:
            cursor.fetchall()


def extension(name: str) -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1 FROM pg_extension WHERE extname = %s", [name])
        return cursor.fetchone() is not None


def test_every_block_is_one_of_those() -> None:
    assert len(SQL) > 5
    assert all(re.match(r"SELECT|ALTER|REINDEX", block.text) for block in SQL)


def test_the_page_names_what_the_migration_sets() -> None:
    text = PAGE.read_text()
    for option in STORAGE.split(", "):
        assert option in text
