"""A claim looks at the head of the line for suspects, and needs no index of theirs."""

from django.db import migrations


def _drop_on_mysql(apps, schema_editor):
    if schema_editor.connection.vendor == "mysql":
        schema_editor.execute("DROP INDEX jobify_job_suspects ON jobify_job")


def _create_on_mysql(apps, schema_editor):
    if schema_editor.connection.vendor == "mysql":
        schema_editor.execute("CREATE INDEX jobify_job_suspects ON jobify_job (queue, status, crashes)")


class Migration(migrations.Migration):
    dependencies = [
        ("jobify_django", "0004_last_chance"),
    ]

    operations = [
        migrations.RemoveIndex(
            model_name="job",
            name="jobify_job_last_chance",
        ),
        migrations.RunPython(_drop_on_mysql, _create_on_mysql, atomic=False),
    ]
