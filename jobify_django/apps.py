from django.apps import AppConfig
from django.utils.module_loading import autodiscover_modules
from django.utils.translation import gettext_lazy as _


class JobifyConfig(AppConfig):
    name = "jobify_django"
    label = "jobify_django"
    verbose_name = _("Background jobs")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from jobify_django import checks  # noqa: F401 - registers the system checks

        # Every process must know every task: producers to check them, workers to run them.
        autodiscover_modules("tasks")
