"""The admin pages: an overview of all queues, a page a queue, and the jobs of the database store.

A site of your own registers them by hand: ``site.register(Overview, OverviewAdmin)`` and
``site.register(Job, JobAdmin)``, with the models of ``jobify_django.models``.
"""

from jobify_django.admin.job import JobAdmin
from jobify_django.admin.overview import OverviewAdmin

__all__ = ["JobAdmin", "OverviewAdmin"]
