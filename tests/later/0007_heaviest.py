from django.db import migrations, models
from django.db.models import Q

from jobify_django.migrations._operations import AddIndexOnline


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("jobify_django", "0006_reason")]

    operations = [
        AddIndexOnline(
            "job",
            models.Index(
                fields=["queue", "-weight"], name="jobify_job_heaviest", condition=Q(status="waiting")
            ),
        ),
    ]
