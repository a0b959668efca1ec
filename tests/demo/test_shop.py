"""The demo's site, on the memory store with nobody working: what is pushed stays to be looked at."""

import json
from typing import Any

import pytest
from django.test import AsyncClient, Client

from jobify_django import JobStatus, Queue
from jobify_django.job import JobRecord
from jobify_django.stores.value import JobQuery
from tests.claims import claim

JSON = {"Accept": "application/json"}
CONTROLS = ["/checkout/", "/visit/", "/burst/", "/tune/", "/reset/", "/pause/", "/resume/"]


def waiting(shop: Queue) -> list[JobRecord]:
    return list(shop.store.query(JobQuery(queue="default", status=JobStatus.WAITING)))


def test_a_checkout_pushes_three_jobs_in_their_bands(client: Client, shop: Queue) -> None:
    answer = client.post("/checkout/", {"order": "A1"})

    assert answer.status_code == 202
    assert answer.json() == {"order": "A1"}
    assert [(job.task.rpartition(".")[2], job.priority) for job in waiting(shop)] == [
        ("charge_payment", 100),
        ("send_receipt", 50),
        ("track_visit", 5),
    ]
    assert json.loads(waiting(shop)[0].arguments) == [["A1"], {}]


def test_a_checkout_does_without_its_page_view(client: Client, shop: Queue) -> None:
    shop.tune(maxsize=2)

    assert client.post("/checkout/").status_code == 202

    assert [job.priority for job in waiting(shop)] == [100, 50]
    assert client.get("/state/").json()["producers"]["skipped_visits"] == 1


def test_a_checkout_on_a_full_queue_is_told_when_to_come_back(client: Client, shop: Queue) -> None:
    shop.tune(maxsize=3)
    assert client.post("/checkout/").status_code == 202

    refused = client.post("/checkout/")

    assert refused.status_code == 503
    assert int(refused.headers["Retry-After"]) >= 1
    assert len(waiting(shop)) == 3
    producers = client.get("/state/").json()["producers"]
    assert (producers["accepted"], producers["refused"], producers["waiting"]) == (1, 1, 0)


def test_a_page_view_finds_its_place_or_is_skipped(client: Client, shop: Queue) -> None:
    shop.tune(maxsize=1)

    assert client.post("/visit/", {"page": "/hats/"}).status_code == 204
    assert client.post("/visit/", {"page": "/shoes/"}).status_code == 204

    assert [json.loads(job.arguments) for job in waiting(shop)] == [[["/hats/"], {}]]
    assert client.get("/state/").json()["producers"]["skipped_visits"] == 1


async def test_a_burst_tells_how_many_got_through(
    async_client: AsyncClient, shop: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("project.shop.orders.random.uniform", lambda least, most: 0.0)
    await shop.atune(maxsize=10_000)

    answer = await async_client.post("/burst/", {"checkouts": "50"}, headers=JSON)

    assert answer.json() == {"through": 50, "refused": 0}
    waiting = JobQuery(queue="default", status=JobStatus.WAITING, limit=1_000)
    assert len(shop.store.query(waiting)) == 4 * 50


def test_a_burst_comes_in_the_offered_sizes_only(client: Client, shop: Queue) -> None:
    assert client.post("/burst/", {"checkouts": "1000000"}).status_code == 400
    assert waiting(shop) == []


def test_the_state_tells_what_waits_in_each_band(client: Client, shop: Queue) -> None:
    client.post("/checkout/")
    client.post("/visit/")

    state = client.get("/state/").json()

    assert state["queue"]["waiting"] == 4
    assert state["queue"]["maxsize"] == 6
    assert [(band["name"], band["waiting"]) for band in state["bands"]] == [
        ("critical", 1),
        ("user_flow", 1),
        ("background", 2),
    ]
    assert state["running"] == []
    assert state["started"] == []


def test_the_state_tells_what_started_and_how_long_it_had_waited(client: Client, shop: Queue) -> None:
    client.post("/checkout/", {"order": "A1"})
    assert [started.task for started in claim(shop.store)] == ["project.shop.tasks.charge_payment"]

    state = client.get("/state/").json()

    assert [(job["task"], job["band"]) for job in state["started"]] == [("charge_payment", "critical")]
    assert [job["task"] for job in state["running"]] == ["charge_payment"]
    critical = state["bands"][0]
    assert critical["started"] == 1
    assert 0 <= critical["p50"] == critical["p95"] < 60


@pytest.mark.parametrize("path", CONTROLS)
def test_a_control_is_post_only(client: Client, shop: Queue, path: str) -> None:
    assert client.get(path).status_code == 405


@pytest.mark.parametrize("path", CONTROLS)
def test_a_control_asks_for_the_token(shop: Queue, path: str) -> None:
    assert Client(enforce_csrf_checks=True).post(path).status_code == 403


@pytest.mark.django_db
def test_tuning_changes_what_is_in_force(client: Client, shop: Queue) -> None:
    answer = client.post("/tune/", {"workers": "7", "maxsize": "42", "order": "fifo"}, headers=JSON)

    assert answer.json()["queue"]["tuned"] is True
    stats = shop.stats()
    assert (stats.workers, stats.maxsize, stats.order) == (7, 42, "fifo")


@pytest.mark.django_db
def test_tuning_one_value_leaves_the_others(client: Client, shop: Queue) -> None:
    client.post("/tune/", {"workers": "7"}, headers=JSON)

    stats = shop.stats()
    assert (stats.workers, stats.maxsize) == (7, 6)


@pytest.mark.parametrize("values", [{}, {"workers": "0"}, {"maxsize": "many"}, {"order": "random"}])
def test_a_wrong_value_changes_nothing(client: Client, shop: Queue, values: dict[str, str]) -> None:
    answer = client.post("/tune/", values, headers=JSON)

    assert answer.status_code == 400
    assert answer.json()["error"]
    assert shop.stats().state.version == 0


@pytest.mark.django_db
def test_pause_resume_and_reset(client: Client, shop: Queue) -> None:
    assert client.post("/pause/", headers=JSON).json()["queue"]["paused"] is True
    assert client.post("/resume/", headers=JSON).json()["queue"]["paused"] is False
    shop.tune(workers=9)
    assert client.post("/reset/", headers=JSON).json()["queue"]["workers"] == 4


@pytest.mark.django_db
def test_a_form_sent_without_the_script_leads_back_to_the_page(client: Client, shop: Queue) -> None:
    answer = client.post("/pause/", headers={"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"})

    assert (answer.status_code, answer.headers["Location"]) == (302, "/")


def test_the_page_has_no_inline_code(client: Client, shop: Queue) -> None:
    page = client.get("/").content.decode()

    assert "charge_payment" in page
    assert "<style" not in page
    assert " style=" not in page
    assert " onclick=" not in page
    assert page.count("<script") == page.count('<script src="/static/') == 1
    assert "csrftoken" in client.cookies


def test_pauses_between_rushes_are_calm() -> None:
    from project.traffic import CALM, RUSH, STAMPEDE, pace

    expected: dict[float, Any] = {0: CALM, 2: RUSH, 6: CALM, 12: STAMPEDE, 16: CALM, 22: RUSH}
    assert {at: pace(at) for at in expected} == expected
