from django.apps import AppConfig


class ShopConfig(AppConfig):
    """A shop whose checkout pushes jobs, and the page that shows the queue."""

    name = "project.shop"
    label = "shop"
