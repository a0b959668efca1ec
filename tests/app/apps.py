from django.apps import AppConfig


class TestAppConfig(AppConfig):
    """What a project would have beside the queue: an app with tasks and models of its own."""

    name = "tests.app"
    label = "testapp"
    default_auto_field = "django.db.models.BigAutoField"
