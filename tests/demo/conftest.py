from typing import Any

import pytest

from jobify_django import Queue, queue
from jobify_django.conf import get_settings
from project import settings as demo
from project.shop import picture, till, views


@pytest.fixture
def shop(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Queue:
    """The demo's queue on the memory store, with nobody working on it, and a till without history."""
    settings.JOBIFY = {**demo.JOBIFY, "STORE": "memory", "MAXSIZE": 6, "PUSH_TIMEOUT": 0}
    settings.ROOT_URLCONF = demo.ROOT_URLCONF
    settings.MIDDLEWARE = demo.MIDDLEWARE
    settings.TEMPLATES = demo.TEMPLATES
    fresh = till.Till()
    for module in (till, picture, views):
        monkeypatch.setattr(module, "till", fresh)
    monkeypatch.setattr("project.shop.orders.till", fresh)
    assert get_settings().queue("default").store == "memory"
    return queue("default")
