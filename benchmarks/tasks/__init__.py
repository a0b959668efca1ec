"""A Django app with the tasks our contestants push."""
