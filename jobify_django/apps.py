from django.apps import AppConfig
from django.db.models.signals import post_migrate, post_save
from django.utils.module_loading import autodiscover_modules
from django.utils.translation import gettext_lazy as _


class JobifyConfig(AppConfig):
    name = "jobify_django"
    label = "jobify_django"
    verbose_name = _("Background jobs")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from jobify_django import (
            checks,  # noqa: F401 - registers the system checks
            file,  # noqa: F401 - notes which file each connection opens
        )
        from jobify_django.stores.database import loading

        post_migrate.connect(loading.complete, sender=self, dispatch_uid="jobify")
        for name in ("Job", "Queue"):
            post_save.connect(loading.loaded, sender=self.get_model(name), dispatch_uid=f"jobify.{name}")

        # Every process must know every task: producers to check them, workers to run them.
        autodiscover_modules("tasks")
