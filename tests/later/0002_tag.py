from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("jobify_django", "0001_initial")]

    operations = [migrations.AddField("job", "tag", models.TextField(null=True))]
