"""A database router that keeps this app's tables on the database named by ``JOBIFY["DATABASE"]``."""

from __future__ import annotations

from typing import Any

from django.db.models import Model

from jobify_django.conf import get_settings

APP = "jobify_django"


class JobifyRouter:
    """Keeps jobs on a database of their own; name it in ``DATABASE_ROUTERS`` by its dotted path."""

    def db_for_read(self, model: type[Model], **hints: Any) -> str | None:
        """Return where the app's models are read."""
        return get_settings().database if model._meta.app_label == APP else None

    def db_for_write(self, model: type[Model], **hints: Any) -> str | None:
        """Return where the app's models are written."""
        return self.db_for_read(model)

    def allow_migrate(self, db: str, app_label: str, **hints: Any) -> bool | None:
        """Make the app's tables there and nowhere else."""
        return db == get_settings().database if app_label == APP else None
