from django.db import migrations, models

from jobify_django.migrations._operations import AddFieldInPlace


class Migration(migrations.Migration):
    dependencies = [("jobify_django", "0003_weight")]

    operations = [
        AddFieldInPlace("queue", "quota", models.PositiveIntegerField(default=0, db_default=0)),
        migrations.AddField("queue", "owner", models.CharField(max_length=64, null=True)),
    ]
