"""Operations that Django does not have; CONTRIBUTING.md tells what migrations may do."""

from collections.abc import Sequence

from django.db import NotSupportedError, migrations, router
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.operations.base import Operation


class SQLOn(Operation):
    """Runs statements on one kind of database, wherever the table of jobs belongs.

    They run at the migration's end, as those that make the indexes of its tables do: so come ours after
    them.

    Args:
        vendor: ``postgresql``, ``mysql`` (MariaDB too) or ``sqlite``.
        forwards: the statements.
        backwards: those that undo them.
    """

    reduces_to_sql = True
    reversible = True

    def __init__(self, vendor: str, forwards: Sequence[str], backwards: Sequence[str]) -> None:
        self.vendor = vendor
        self.forwards = forwards
        self.backwards = backwards

    def state_forwards(self, app_label, state):
        pass

    def database_forwards(self, app_label, schema_editor, from_state, to_state):
        if self._belongs(app_label, schema_editor):
            schema_editor.deferred_sql.extend(self.forwards)

    def database_backwards(self, app_label, schema_editor, from_state, to_state):
        if self._belongs(app_label, schema_editor):
            for statement in self.backwards:
                schema_editor.execute(statement)

    def _belongs(self, app_label, schema_editor):
        connection = schema_editor.connection
        return connection.vendor == self.vendor and router.allow_migrate(
            connection.alias, app_label, model_name="job"
        )

    def describe(self):
        return f"Run SQL on {self.vendor}"


class AddFieldInPlace(migrations.AddField):
    """Adds a column that has a default in the database.

    On SQLite, Django would copy the whole table for it, while nobody can write; ``ALTER TABLE`` need not.
    """

    def database_forwards(self, app_label, schema_editor, from_state, to_state):
        if schema_editor.connection.vendor != "sqlite":
            super().database_forwards(app_label, schema_editor, from_state, to_state)
            return
        model = to_state.apps.get_model(app_label, self.model_name)
        if self.allow_migrate_model(schema_editor.connection.alias, model):
            field = model._meta.get_field(self.name)
            BaseDatabaseSchemaEditor.add_field(schema_editor, model, field)


class AddIndexOnline(migrations.AddIndex):
    """Adds an index while others write: on PostgreSQL ``CONCURRENTLY``, elsewhere the plain way.

    Django's own ``AddIndexConcurrently`` knows PostgreSQL alone, and cannot be imported without its driver.
    The migration needs ``atomic = False``, and no other operation: it may be run again after a failure.
    """

    atomic = False

    def describe(self):
        return f"Online: {super().describe()}"

    def database_forwards(self, app_label, schema_editor, from_state, to_state):
        if schema_editor.connection.vendor != "postgresql":
            super().database_forwards(app_label, schema_editor, from_state, to_state)
            return
        if schema_editor.connection.in_atomic_block:
            raise NotSupportedError("AddIndexOnline needs a migration with 'atomic = False'.")
        model = to_state.apps.get_model(app_label, self.model_name)
        if self.allow_migrate_model(schema_editor.connection.alias, model):
            # What a try that failed has left is no index, but has its name.
            schema_editor.remove_index(model, self.index, concurrently=True)
            schema_editor.add_index(model, self.index, concurrently=True)

    def database_backwards(self, app_label, schema_editor, from_state, to_state):
        if schema_editor.connection.vendor != "postgresql":
            super().database_backwards(app_label, schema_editor, from_state, to_state)
            return
        model = from_state.apps.get_model(app_label, self.model_name)
        if self.allow_migrate_model(schema_editor.connection.alias, model):
            schema_editor.remove_index(model, self.index, concurrently=True)
