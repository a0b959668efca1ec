from django.db import migrations, models

from jobify_django.migrations._operations import AddFieldInPlace


class Migration(migrations.Migration):
    dependencies = [("jobify_django", "0002_tag")]

    operations = [AddFieldInPlace("job", "weight", models.SmallIntegerField(default=1, db_default=1))]
