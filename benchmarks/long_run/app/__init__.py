"""A Django app with the task."""
