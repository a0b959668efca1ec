"""What only some databases need: a sequence on PostgreSQL, and whole indexes where there are no partial ones."""

from django.db import migrations

FORWARDS = {
    "postgresql": ["CREATE SEQUENCE IF NOT EXISTS jobify_job_number"],
    "mysql": [
        "CREATE INDEX jobify_job_line ON jobify_job (queue, status, order_key, sequence)",
        "CREATE INDEX jobify_job_due ON jobify_job (queue, status, eligible_at)",
        "CREATE INDEX jobify_job_suspects ON jobify_job (queue, status, crashes)",
        "CREATE INDEX jobify_job_leases ON jobify_job (status, lease_until)",
        "CREATE INDEX jobify_job_ends ON jobify_job (status, ended_at)",
    ],
}
BACKWARDS = {
    "postgresql": ["DROP SEQUENCE IF EXISTS jobify_job_number"],
    "mysql": [
        "DROP INDEX jobify_job_line ON jobify_job",
        "DROP INDEX jobify_job_due ON jobify_job",
        "DROP INDEX jobify_job_suspects ON jobify_job",
        "DROP INDEX jobify_job_leases ON jobify_job",
        "DROP INDEX jobify_job_ends ON jobify_job",
    ],
}


def forwards(apps, schema_editor):
    for statement in FORWARDS.get(schema_editor.connection.vendor, ()):
        schema_editor.execute(statement)


def backwards(apps, schema_editor):
    for statement in BACKWARDS.get(schema_editor.connection.vendor, ()):
        schema_editor.execute(statement)


class Migration(migrations.Migration):
    dependencies = [("jobify_django", "0002_overview")]

    operations = [migrations.RunPython(forwards, backwards, atomic=False)]
