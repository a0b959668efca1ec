"""CONTRIBUTING.md's rule for migrations: they only add, while pools of the release before are at work."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from django.db import migrations
from django.db.migrations import Migration
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ProjectState
from django.db.models import AutoField, Field, GeneratedField, Value
from django.db.models.fields import AutoFieldMixin

from jobify_django.migrations._operations import AddFieldInPlace, AddIndexOnline, SQLOn

APP = "jobify_django"

STATEMENTS = {
    "postgresql": r"CREATE SEQUENCE IF NOT EXISTS \w+",
    "mysql": r"CREATE INDEX \w+ ON \w+ \([\w, ]+\)",
    "sqlite": r"CREATE INDEX \w+ ON \w+ \([\w, ]+\)( WHERE .+)?",
}
"""What ``SQLOn`` may run."""

UNKNOWN_TO_THE_DATABASE = {*Field.non_db_attrs, "default"} - {"db_column"}
"""Arguments of a field that may change."""

IN_USE = "the release before uses it. Leave it where it is"
OF_EXISTING_ROWS = (
    "rows that are there may break it, and so may the release before. Look for what breaks it in the code "
    "that writes, or put what must be unique into a new table"
)
NEVER: Mapping[type[Operation], str] = {
    migrations.DeleteModel: IN_USE,
    migrations.RemoveField: IN_USE,
    migrations.RemoveIndex: IN_USE,
    migrations.RemoveConstraint: IN_USE,
    migrations.RenameModel: f"{IN_USE}, and add a new one",
    migrations.RenameField: f"{IN_USE}, and add a new one",
    migrations.RenameIndex: f"{IN_USE}, and add a new one",
    migrations.AlterModelTable: f"{IN_USE}, and add a new one",
    migrations.AlterUniqueTogether: OF_EXISTING_ROWS,
    migrations.AddConstraint: OF_EXISTING_ROWS,
    migrations.RunSQL: "nobody can tell what it holds up. Use SQLOn for an index or a sequence",
    migrations.RunPython: (
        "rows that it writes are locked until the migration ends. Let the code read rows that have nothing "
        "in the new column, and a pool fill them in small parts"
    ),
    migrations.SeparateDatabaseAndState: (
        "what it does to the database cannot be seen. Use the operations themselves"
    ),
}
"""Operations that are refused, and what to do instead."""


def broken(migration: Migration, before: ProjectState) -> list[str]:
    """Return what a migration does that it must not, in words; nothing for one that only adds.

    Args:
        migration: the migration.
        before: the state of all models before it. It is left as it is.
    """
    return list(_Judge(migration, before.clone()).broken())


class _Judge:
    def __init__(self, migration: Migration, state: ProjectState) -> None:
        self.migration = migration
        self.state = state
        self.made: set[str] = set()  # tables that nobody uses yet
        self.altered: set[str] = set()

    def broken(self) -> Iterator[str]:
        for operation in self.migration.operations:
            for reason in self._of(operation):
                yield f"{self.migration.name}: {operation.describe()}: {reason}."
            operation.state_forwards(APP, self.state)
        if len(self.altered) > 1:
            yield (
                f"{self.migration.name} alters several tables ({', '.join(sorted(self.altered))}), which "
                "others lock in another order: a deadlock. Alter each in a migration of its own."
            )

    def _of(self, operation: Any) -> Iterator[str]:
        # Exactly these: a subclass may do anything.
        judges: Mapping[type[Operation], Callable[[Any], Iterator[str]]] = {
            migrations.CreateModel: self._create_model,
            migrations.AddField: self._add_field,
            AddFieldInPlace: self._add_field_in_place,
            migrations.AddIndex: self._add_index,
            AddIndexOnline: self._add_index_online,
            migrations.AlterField: self._alter_field,
            migrations.AlterModelOptions: lambda operation: iter(()),
            migrations.AlterModelManagers: lambda operation: iter(()),
            SQLOn: self._sql_on,
        }
        kind = type(operation)
        if kind in NEVER:
            yield NEVER[kind]
        elif kind in judges:
            yield from judges[kind](operation)
        else:
            yield (
                f"{kind.__name__} is not known here. Find out what it locks on each database and whether the "
                f"release before can go on; then let {__name__} judge it, with a test"
            )

    def _create_model(self, operation: migrations.CreateModel) -> Iterator[str]:
        self.made.add(operation.name.lower())
        for name, field in operation.fields:
            yield from self._relation(name, field)

    def _add_field(self, operation: migrations.AddField) -> Iterator[str]:
        field = operation.field
        if operation.model_name.lower() in self.made:
            yield from self._relation(operation.name, field)
            return
        yield from self._column(operation)
        if field.has_db_default():
            yield "on SQLite this copies the table. Use AddFieldInPlace"
        elif not field.null:
            yield "the release before inserts rows without it. Let it be null, or have a db_default"
        elif field.has_default():
            yield "a default is written into every row. Leave it out, or use db_default and AddFieldInPlace"

    def _add_field_in_place(self, operation: AddFieldInPlace) -> Iterator[str]:
        field = operation.field
        yield from self._column(operation)
        if not field.has_db_default():
            yield (
                "the release before inserts rows without it. Give it a db_default, or let it be null and use "
                "AddField"
            )
        elif not isinstance(field.db_default, (int, float, str, Value)):
            yield "a db_default that is an expression is written into every row. Use a constant"

    def _column(self, operation: migrations.AddField) -> Iterator[str]:
        """Judge a new column of a table that may be in use."""
        field = operation.field
        self.altered.add(operation.model_name.lower())
        yield from self._relation(operation.name, field)
        if isinstance(field, (AutoField, AutoFieldMixin, GeneratedField)) or field.primary_key:
            yield "its values are written into every row. Put it into a new table"
        elif field.unique:
            yield OF_EXISTING_ROWS
        elif field.db_index:
            yield "its index is built while nobody can write. Use AddIndexOnline, in a migration of its own"

    def _relation(self, name: str, field: Any) -> Iterator[str]:
        if field.many_to_many or (field.is_relation and field.db_constraint):
            yield (
                f"{name!r} makes a foreign key, and the release before deletes rows without a look at it. "
                "Keep the id alone, or use db_constraint=False"
            )

    def _add_index(self, operation: migrations.AddIndex) -> Iterator[str]:
        if operation.model_name.lower() not in self.made:
            yield "it is built while nobody can write. Use AddIndexOnline, in a migration of its own"

    def _add_index_online(self, operation: AddIndexOnline) -> Iterator[str]:
        if self.migration.atomic:
            yield "PostgreSQL cannot do it in a transaction. Say 'atomic = False' in the migration"
        if len(self.migration.operations) > 1:
            yield "if it fails, what was done before it is not undone. Give it a migration of its own"

    def _alter_field(self, operation: migrations.AlterField) -> Iterator[str]:
        old = self.state.models[APP, operation.model_name.lower()].fields[operation.name]
        if _in_database(old) != _in_database(operation.field):
            yield f"this changes a column. {IN_USE[0].upper()}{IN_USE[1:]}, and add a new one"

    def _sql_on(self, operation: SQLOn) -> Iterator[str]:
        for statement in operation.forwards:
            if not re.fullmatch(STATEMENTS.get(operation.vendor, "(?!)"), statement):
                yield (
                    f"{statement!r} is not known to do no harm on {operation.vendor}; {__name__} has what is"
                )


def _in_database(field: Any) -> tuple[str, Any, Any]:
    _, path, args, kwargs = field.deconstruct()
    return path, args, {name: value for name, value in kwargs.items() if name not in UNKNOWN_TO_THE_DATABASE}
