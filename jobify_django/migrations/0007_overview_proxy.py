"""The overview becomes a proxy of the queues. No table is touched, and its content type stays."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [
        ("jobify_django", "0006_reordering"),
    ]

    operations = [
        migrations.DeleteModel(name="Overview"),
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
    ]
