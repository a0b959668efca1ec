from django.db import migrations, models

from jobify_django.migrations._operations import SQLOn


class Migration(migrations.Migration):
    dependencies = [("jobify_django", "0007_heaviest")]

    operations = [
        migrations.CreateModel(
            name="Label",
            fields=[
                ("id", models.BigAutoField(primary_key=True)),
                ("job", models.CharField(max_length=36)),
                ("text", models.CharField(max_length=64)),
            ],
            options={
                "db_table": "jobify_label",
                "default_permissions": (),
                "constraints": [models.UniqueConstraint(fields=["job", "text"], name="jobify_label_once")],
            },
        ),
        SQLOn("mysql", ["CREATE INDEX jobify_label_text ON jobify_label (text)"], []),
    ]
