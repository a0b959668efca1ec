from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("jobify_django", "0004_quota")]

    operations = [migrations.AddField("pool", "region", models.CharField(max_length=64, null=True))]
