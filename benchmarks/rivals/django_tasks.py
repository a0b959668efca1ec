"""django-tasks-db: the task of its contestant (``django.tasks``, or its backport before Django 6.0)."""

from importlib.util import find_spec

if find_spec("django.tasks"):
    from django.tasks import task
else:
    from django_tasks import task


@task
def noop() -> None:
    """Do nothing."""
