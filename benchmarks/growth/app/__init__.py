"""A Django app with the tasks of the growth curves."""
