"""What a job asks for, and what is kept with it. No row is rewritten, and older code goes on inserting."""

from django.db import migrations, models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor


class AddFieldInPlace(migrations.AddField):
    """Adds a field by ALTER TABLE on SQLite too, which can do that where the database has a default; Django
    would copy the table there."""

    def database_forwards(self, app_label, schema_editor, from_state, to_state):
        if schema_editor.connection.vendor != "sqlite":
            super().database_forwards(app_label, schema_editor, from_state, to_state)
            return
        model = to_state.apps.get_model(app_label, self.model_name)
        if self.allow_migrate_model(schema_editor.connection.alias, model):
            field = model._meta.get_field(self.name)
            BaseDatabaseSchemaEditor.add_field(schema_editor, model, field)


class Migration(migrations.Migration):
    dependencies = [
        ("jobify_django", "0007_overview_proxy"),
    ]

    operations = [
        AddFieldInPlace(
            model_name="job",
            name="flags",
            field=models.PositiveSmallIntegerField(db_default=0, default=0, verbose_name="flags"),
        ),
        migrations.AddField(
            model_name="job",
            name="extra",
            field=models.TextField(null=True, verbose_name="extra"),
        ),
    ]
