from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("jobify_django", "0005_suspects")]

    operations = [
        migrations.AddField(
            model_name="queue",
            name="reordering",
            field=models.BigIntegerField(null=True, verbose_name="reordering"),
        ),
    ]
