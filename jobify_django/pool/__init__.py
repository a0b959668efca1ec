"""Running jobs. ``serving`` runs this process's pools on an event loop that is already there."""

from jobify_django.pool.service import Service, serving

__all__ = ["Service", "serving"]
