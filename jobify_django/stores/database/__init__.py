"""Jobs in the project's own database: part of its transactions, seen by every process, kept for good."""

from jobify_django.stores.database.store import DatabaseStore

__all__ = ["DatabaseStore"]
