from __future__ import annotations

import re
import threading
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.db import connections
from django.test import Client
from django.urls import reverse

from jobify_django import queue
from jobify_django.models import QueueChange
from tests.admin.conftest import Visit

QUEUES = {"default": {}, "user_flow": {"WORKERS": 2, "MAXSIZE": 30, "ORDER": "fifo"}}


@pytest.fixture(params=["memory", "database"])
def a_store(request: pytest.FixtureRequest, settings: Any, db: None) -> str:
    settings.JOBIFY = {"STORE": request.param, "QUEUES": QUEUES}
    return str(request.param)


@pytest.fixture
def address(a_store: str) -> str:
    return reverse("admin:jobify_django_queue_change", args=["user_flow"])


def fields(page: str) -> dict[str, str]:
    """Return the values of the form, as a browser would send them back."""
    found = {}
    for name in ("version", "workers", "maxsize"):
        (tag,) = re.findall(rf'<input[^>]*name="{name}"[^>]*>', page)
        value = re.search(r'value="(\d*)"', tag)
        found[name] = value[1] if value else ""
    (select,) = re.findall(r'<select name="order".*?</select>', page, re.DOTALL)
    chosen = re.search(r'value="(\w*)" selected', select)
    found["order"] = chosen[1] if chosen else ""
    return found


def send(client: Client, address: str, **values: Any) -> str:
    answer = client.post(address, {**fields(client.get(address).text), **values}, follow=True)
    assert answer.status_code == 200
    return answer.text


def test_the_form_tunes_and_shows_both_values(everything: Client, address: str) -> None:
    page = send(everything, address, workers=4, maxsize=500, order="lifo")

    stats = queue("user_flow").stats()
    assert (stats.workers, stats.maxsize, stats.order) == (4, 500, "lifo")
    assert "Queue user_flow is tuned." in page
    assert "(settings: 2)" in page
    assert fields(page) == {"version": "1", "workers": "4", "maxsize": "500", "order": "lifo"}


def test_an_empty_field_is_the_value_of_the_settings(everything: Client, address: str) -> None:
    send(everything, address, workers=4, maxsize=500)
    page = send(everything, address, workers="")

    state = queue("user_flow").stats().state
    assert (state.workers, state.maxsize, state.order) == (None, 500, None)
    assert "Empty: 2, as in the settings." in page


def test_a_form_that_changes_nothing_writes_nothing(everything: Client, address: str) -> None:
    page = send(everything, address)

    assert "Nothing was changed." in page
    assert queue("user_flow").stats().state.version == 0
    assert not LogEntry.objects.exists()


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("workers", "0", "a whole number from 1 to 1000"),
        ("workers", "-1", "a whole number from 1 to 1000"),
        ("workers", "1000000000", "a whole number from 1 to 1000"),
        ("maxsize", "0", "a whole number from 1 to 10000000"),
        ("maxsize", "9" * 6_000, "Enter a whole number."),
        ("workers", "many", "Enter a whole number."),
        ("order", "random", "random is not one of the available choices."),
        ("version", "x", "Somebody changed this queue"),
    ],
)
def test_a_value_out_of_range_is_an_error_of_the_form(
    everything: Client, address: str, field: str, value: str, said: str
) -> None:
    page = send(everything, address, **{field: value})

    assert said in page
    assert 'class="errornote"' in page
    assert queue("user_flow").stats().state.version == 0
    assert not LogEntry.objects.exists()


def test_a_form_opened_before_another_change_is_refused_once(everything: Client, address: str) -> None:
    stale = {**fields(everything.get(address).text), "workers": "7"}
    queue("user_flow").tune(workers=3, actor="somebody else")

    refused = everything.post(address, stale)

    assert "Somebody changed this queue" in refused.text
    assert queue("user_flow").stats().workers == 3
    again = fields(refused.text)
    assert (again["workers"], again["version"]) == ("7", "1")
    everything.post(address, again)
    assert queue("user_flow").stats().workers == 7


def test_pause_resume_and_reset(everything: Client, address: str) -> None:
    def post(action: str) -> str:
        target = reverse(f"admin:jobify_django_queue_{action}", args=["user_flow"])
        return everything.post(target, follow=True).text

    assert "user_flow is paused" in post("pause")
    assert queue("user_flow").stats().paused
    assert "already was paused" in post("pause")
    assert queue("user_flow").stats().state.version == 1
    assert "user_flow is resumed" in post("resume")
    assert not queue("user_flow").stats().paused
    assert "was not paused" in post("resume")
    send(everything, address, workers=9)
    assert "as the settings say again" in post("reset")
    assert queue("user_flow").stats().workers == 2
    assert "already was as the settings say" in post("reset")


def test_who_changed_what_is_kept(visit: Visit, settings: Any) -> None:
    settings.JOBIFY = {"STORE": "database", "QUEUES": QUEUES}
    address = reverse("admin:jobify_django_queue_change", args=["user_flow"])
    client = visit("tune_queue")

    send(client, address, workers=4)
    page = client.post(reverse("admin:jobify_django_queue_pause", args=["user_flow"]), follow=True).text

    rows = QueueChange.objects.order_by("version").values_list("queue", "version", "actor", "source")
    assert list(rows) == [("user_flow", 1, "staff0", "admin"), ("user_flow", 2, "staff0", "admin")]
    assert "workers: as in the settings → 4" in page
    assert "paused: no → yes" in page
    entries = LogEntry.objects.order_by("pk")
    assert [entry.change_message for entry in entries] == [
        "workers: as in the settings → 4",
        "paused: no → yes",
    ]
    # The entry's link leads back to the queue's page.
    link = entries[0].get_admin_url()
    assert link is not None
    assert link.endswith("/queue/user_5Fflow/")
    assert client.get(link).status_code == 200


@pytest.mark.parametrize("act", ["form", "pause", "reset"])
def test_a_change_between_the_look_and_the_write_is_not_overwritten(
    everything: Client, address: str, act: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue("user_flow").tune(maxsize=7)
    form = {**fields(everything.get(address).text), "workers": "5"}

    store = queue("user_flow").store
    look = store.sync

    def then_somebody_else(*given: Any) -> Any:
        monkeypatch.setattr(store, "sync", look)
        seen = look(*given)
        queue("user_flow").tune(workers=3, actor="somebody else")
        return seen

    monkeypatch.setattr(store, "sync", then_somebody_else)
    target = address if act == "form" else reverse(f"admin:jobify_django_queue_{act}", args=["user_flow"])
    answer = everything.post(target, form, follow=True)

    state = queue("user_flow").stats().state
    assert (state.workers, state.maxsize, state.paused, state.version) == (3, 7, False, 2)
    assert ("Somebody changed this queue" if act == "form" else "has version 2") in answer.text
    assert not LogEntry.objects.exists()


def test_of_eight_forms_that_read_one_version_one_is_accepted(
    visit: Visit, transactional_db: None, settings: Any
) -> None:
    settings.JOBIFY = {"STORE": "database", "QUEUES": QUEUES}
    address = reverse("admin:jobify_django_queue_change", args=["user_flow"])
    clients = [visit("tune_queue") for _ in range(8)]
    forms = [{**fields(one.get(address).text), "workers": str(n + 11)} for n, one in enumerate(clients)]
    begin = threading.Barrier(8)
    accepted: list[bool] = []

    def post(client: Client, form: dict[str, str]) -> None:
        try:
            begin.wait(60)
            accepted.append(client.post(address, form).status_code == 302)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=post, args=pair) for pair in zip(clients, forms, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert sorted(accepted) == [False] * 7 + [True]
    assert queue("user_flow").stats().state.version == 1
