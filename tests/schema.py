"""What a database really has, as it says itself."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

TABLES = ("jobify_job", "jobify_queue", "jobify_queuechange", "jobify_pool")


class Column(NamedTuple):
    """A column of a table."""

    type: str
    null: bool
    default: str | None


class Schema(NamedTuple):
    """The app's tables and what belongs to them, in the database's own words.

    Attributes:
        columns: by table and name, in the table's order.
        indexes: how each index is made, by table and name; those of primary keys too.
        rest: what else can be told apart: constraints, sequences, collations, how a table is stored.
    """

    columns: Mapping[str, Mapping[str, Column]]
    indexes: Mapping[str, Mapping[str, str]]
    rest: Mapping[str, Any]

    @property
    def names(self) -> set[str]:
        """The names of all that statements may name."""
        return {
            *self.columns,
            *self.rest.get("sequences", ()),
            *(n for made in self.indexes.values() for n in made),
        }


def schema(alias: str = "default") -> Schema:
    """Return what a database has of the app."""
    connection = connections[alias]
    look: Callable[[BaseDatabaseWrapper], Schema] = {
        "sqlite": _on_sqlite,
        "postgresql": _on_postgresql,
        "mysql": _on_mysql,
    }[connection.vendor]
    return look(connection)


def rows(connection: BaseDatabaseWrapper, statement: str, *values: object) -> list[tuple[Any, ...]]:
    """Return the rows of a statement."""
    with connection.cursor() as cursor:
        cursor.execute(statement, values or None)
        return list(cursor.fetchall())


def _on_sqlite(connection: BaseDatabaseWrapper) -> Schema:
    made = dict(rows(connection, "SELECT name, sql FROM sqlite_master"))
    columns, indexes = {}, {}
    for table in TABLES:
        found = rows(connection, f"PRAGMA table_xinfo({table})")
        columns[table] = {
            name: Column(kind, not notnull, default) for _, name, kind, notnull, default, _, _ in found
        }
        indexes[table] = {
            # Those of primary keys have no SQL of their own.
            name: made[name] or f"{origin} {rows(connection, f'PRAGMA index_info({name})')}"
            for _, name, _, origin, _ in rows(connection, f"PRAGMA index_list({table})")
        }
    # The text of a table has what else there is: checks, keys, AUTOINCREMENT.
    return Schema(columns, indexes, {table: made[table] for table in TABLES})


def _on_postgresql(connection: BaseDatabaseWrapper) -> Schema:
    columns, indexes, rest = {}, {}, {}
    for table in TABLES:
        found = rows(
            connection,
            """
            SELECT attname, format_type(atttypid, atttypmod), NOT attnotnull, pg_get_expr(adbin, adrelid),
                   attidentity::text, attcollation::regcollation::text, attstorage::text
            FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
            WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum""",
            table,
        )
        columns[table] = {name: Column(*values) for name, *values, _, _, _ in found}
        indexes[table] = dict(
            rows(
                connection,
                "SELECT indexrelid::regclass::text, pg_get_indexdef(indexrelid) || "
                "CASE WHEN indisvalid THEN '' ELSE ' INVALID' END "
                "FROM pg_index WHERE indrelid = %s::regclass ORDER BY indexrelid",
                table,
            )
        )
        rest[table] = (
            [(name, *more) for name, _, _, _, *more in found],
            rows(
                connection,
                "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = %s::regclass "
                "ORDER BY conname",
                table,
            ),
            rows(
                connection,
                "SELECT reloptions, relpersistence::text, amname FROM pg_class JOIN pg_am a ON a.oid = relam "
                "WHERE pg_class.oid = %s::regclass",
                table,
            ),
        )
    rest["sequences"] = {
        name: values
        for name, *values in rows(
            connection,
            "SELECT sequencename, data_type::text, start_value, min_value, max_value, increment_by, cycle, "
            "cache_size FROM pg_sequences WHERE sequencename LIKE 'jobify%%' AND schemaname = %s",
            "public",
        )
    }
    return Schema(columns, indexes, rest)


def _on_mysql(connection: BaseDatabaseWrapper) -> Schema:
    columns, indexes, rest = {}, {}, {}
    for table in TABLES:
        found = rows(
            connection,
            "SELECT column_name, column_type, is_nullable = 'YES', column_default "
            "FROM information_schema.columns "
            "WHERE table_schema = database() AND table_name = %s ORDER BY ordinal_position",
            table,
        )
        # MariaDB says "NULL", in letters, for a column that may be null.
        columns[table] = {
            name: Column(kind, bool(null), None if default == "NULL" else default)
            for name, kind, null, default in found
        }
        ((_, text),) = rows(connection, f"SHOW CREATE TABLE {table}")
        keys = re.compile(r"^  (?:(PRIMARY) KEY|(?:UNIQUE )?KEY `(\w+)`) .*?(?=,?$)", re.MULTILINE)
        indexes[table] = {key[1] or key[2]: key[0].strip() for key in keys.finditer(text)}
        # In whatever order the keys were made.
        rest[table] = sorted(
            line.rstrip(",") for line in re.sub(" AUTO_INCREMENT=.*? ", " ", text).split("\n")
        )
    return Schema(columns, indexes, rest)
