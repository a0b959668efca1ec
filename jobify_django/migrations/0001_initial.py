"""The tables. Migrations after this one only add: see "Migrations" in CONTRIBUTING.md."""

from django.db import migrations, models
from django.db.models import Q

from jobify_django.index import PartialIndex
from jobify_django.migrations._operations import SQLOn


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="Job",
            fields=[
                # What a push writes. The store makes the id, so that a push can be repeated.
                ("id", models.CharField(max_length=36, primary_key=True, serialize=False, verbose_name="id")),
                # A name, no foreign key: a push must not wait for the row of its queue.
                ("queue", models.CharField(max_length=64, verbose_name="queue")),
                ("task", models.CharField(max_length=255, verbose_name="task")),
                # JSON as text: the database never looks into it.
                ("arguments", models.TextField(verbose_name="arguments")),
                ("priority", models.SmallIntegerField(default=0, verbose_name="priority")),
                (
                    "status",
                    models.CharField(
                        choices=[
                            ("delayed", "delayed"),
                            ("waiting", "waiting"),
                            ("running", "running"),
                            ("successful", "successful"),
                            ("failed", "failed"),
                            ("cancelled", "cancelled"),
                        ],
                        max_length=10,
                        verbose_name="status",
                    ),
                ),
                # Waiting jobs start in the order of these two.
                ("sequence", models.BigIntegerField(verbose_name="sequence")),
                ("order_key", models.BigIntegerField(verbose_name="order key")),
                # Where its attempts have got to. Times are seconds since the epoch, so no time zone applies.
                ("attempt", models.PositiveIntegerField(default=0, verbose_name="attempts")),
                ("crashes", models.PositiveSmallIntegerField(default=0, verbose_name="crashes")),
                ("pushed_at", models.FloatField(verbose_name="pushed at")),
                ("eligible_at", models.FloatField(verbose_name="eligible at")),
                ("started_at", models.FloatField(null=True, verbose_name="started at")),
                ("ended_at", models.FloatField(null=True, verbose_name="ended at")),
                ("lease_until", models.FloatField(null=True, verbose_name="lease until")),
                ("pool", models.CharField(default="", max_length=36, verbose_name="pool")),
                ("cancel_requested", models.BooleanField(default=False, verbose_name="cancel requested")),
                # How it ended.
                ("result", models.TextField(null=True, verbose_name="result")),
                ("error", models.TextField(null=True, verbose_name="error")),
                ("history", models.TextField(null=True, verbose_name="interruptions")),
                # Room for what is to come. The database has a default, for who inserts without it.
                ("flags", models.PositiveSmallIntegerField(db_default=0, default=0, verbose_name="flags")),
                ("extra", models.TextField(null=True, verbose_name="extra")),
            ],
            options={
                "verbose_name": "job",
                "verbose_name_plural": "jobs",
                "db_table": "jobify_job",
                "permissions": [
                    ("view_job_payload", "Can see arguments, results and tracebacks"),
                    ("retry_job", "Can retry jobs"),
                    ("cancel_job", "Can cancel jobs"),
                ],
                "default_permissions": ("view",),
                # Each knows the jobs of one status alone: it stays small, however many have ended. MariaDB
                # and MySQL find the jobs of one status only where it is a column of a whole index.
                # No partial one has a column that a renewal changes, so renewals can be HOT.
                "indexes": [
                    PartialIndex(
                        name="jobify_job_waiting",
                        fields=["queue", "order_key", "sequence"],
                        only=Q(status="waiting"),
                        whole=["queue", "status", "order_key", "sequence"],
                    ),
                    PartialIndex(
                        name="jobify_job_delayed",
                        fields=["queue", "eligible_at"],
                        only=Q(status="delayed"),
                        whole=["queue", "status", "eligible_at"],
                    ),
                    PartialIndex(
                        name="jobify_job_running",
                        fields=["queue"],
                        only=Q(status="running"),
                        whole=["status", "lease_until"],
                    ),
                    PartialIndex(
                        name="jobify_job_ended",
                        fields=["status", "ended_at"],
                        only=Q(ended_at__isnull=False),
                        whole=["status", "ended_at"],
                    ),
                ],
            },
        ),
        # On PostgreSQL, jobs get their numbers from a sequence: pushes need not wait for one another.
        # Elsewhere the row of the queue counts.
        SQLOn(
            "postgresql",
            ["CREATE SEQUENCE IF NOT EXISTS jobify_job_number"],
            ["DROP SEQUENCE IF EXISTS jobify_job_number"],
        ),
        migrations.CreateModel(
            name="Queue",
            fields=[
                (
                    "name",
                    models.CharField(max_length=64, primary_key=True, serialize=False, verbose_name="name"),
                ),
                # Its live values; where they are null, the settings rule.
                ("version", models.PositiveIntegerField(default=0, verbose_name="version")),
                ("workers", models.PositiveIntegerField(null=True, verbose_name="workers")),
                ("maxsize", models.PositiveIntegerField(null=True, verbose_name="maxsize")),
                ("order", models.CharField(default="", max_length=8, verbose_name="order")),
                ("paused", models.BooleanField(default=False, verbose_name="paused")),
                # Its counters: the jobs that wait, on SQLite alone, and the last number given out.
                ("waiting", models.BigIntegerField(default=0, verbose_name="waiting")),
                ("sequence", models.BigIntegerField(default=0, verbose_name="sequence")),
                # Not null while a changed order is being written to its jobs.
                ("reordering", models.BigIntegerField(null=True, verbose_name="reordering")),
            ],
            options={
                "verbose_name": "queue",
                "verbose_name_plural": "queues",
                "db_table": "jobify_queue",
                "permissions": [("tune_queue", "Can tune, pause and resume queues")],
                "default_permissions": ("view",),
            },
        ),
        migrations.CreateModel(
            name="QueueChange",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("queue", models.CharField(max_length=64, verbose_name="queue")),
                ("version", models.PositiveIntegerField(verbose_name="version")),
                ("actor", models.CharField(max_length=150, verbose_name="actor")),
                ("source", models.CharField(max_length=16, verbose_name="source")),
                ("changed_at", models.FloatField(verbose_name="changed at")),
                ("before", models.TextField(verbose_name="before")),
                ("after", models.TextField(verbose_name="after")),
            ],
            options={
                "verbose_name": "queue change",
                "verbose_name_plural": "queue changes",
                "db_table": "jobify_queuechange",
                "default_permissions": ("view",),
                "indexes": [models.Index(fields=["queue", "-id"], name="jobify_queuechange_newest")],
            },
        ),
        migrations.CreateModel(
            name="Pool",
            fields=[
                ("id", models.CharField(max_length=36, primary_key=True, serialize=False, verbose_name="id")),
                ("host", models.CharField(max_length=255, verbose_name="host")),
                ("pid", models.PositiveIntegerField(verbose_name="process id")),
                ("kind", models.CharField(max_length=16, verbose_name="kind")),
                ("started_at", models.FloatField(verbose_name="started at")),
                ("seen_at", models.FloatField(verbose_name="seen at")),
                ("queues", models.TextField(verbose_name="queues")),
            ],
            options={
                "verbose_name": "pool",
                "verbose_name_plural": "pools",
                "db_table": "jobify_pool",
                "default_permissions": ("view",),
            },
        ),
        # No table: a place for the overview in the admin's index.
        migrations.CreateModel(
            name="Overview",
            fields=[],
            options={
                "verbose_name": "overview",
                "verbose_name_plural": "overview",
                "proxy": True,
                "default_permissions": (),
                "indexes": [],
                "constraints": [],
            },
            bases=("jobify_django.queue",),
        ),
        # The same as in stores/database/loading.py, which has the reasons.
        SQLOn(
            "postgresql",
            [
                "DROP INDEX IF EXISTS jobify_job_id_6c733993_like",
                "DROP INDEX IF EXISTS jobify_queue_name_b67f8e0c_like",
                "DROP INDEX IF EXISTS jobify_pool_id_d1f424d4_like",
                "ALTER TABLE jobify_job SET "
                "(fillfactor = 85, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000)",
            ],
            [],
        ),
    ]
