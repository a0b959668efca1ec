from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("jobify_django", "0005_region")]

    operations = [migrations.AddField("queuechange", "reason", models.TextField(null=True))]
