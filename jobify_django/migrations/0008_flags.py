"""What a job asks for, and what is kept with it: no row is rewritten, and older code goes on inserting."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("jobify_django", "0007_overview_proxy"),
    ]

    operations = [
        migrations.AddField(
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
