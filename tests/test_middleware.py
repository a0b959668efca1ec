"""The middleware: a full queue becomes a 503 that says when to come back."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from django.http import HttpRequest, HttpResponse
from django.test import AsyncClient, Client
from django.urls import path, re_path

from jobify_django import QueueFull, queue, task
from tests.workshop import Configure


@task
def note(value: int) -> None: ...


def push(request: HttpRequest) -> HttpResponse:
    return HttpResponse(note.push(1).id)


async def apush(request: HttpRequest) -> HttpResponse:
    return HttpResponse((await note.apush(1)).id)


def caught(request: HttpRequest) -> HttpResponse:
    try:
        note.push(1)
    except QueueFull:
        return HttpResponse("caught")
    return HttpResponse("pushed")


def broken(request: HttpRequest) -> HttpResponse:
    raise ValueError("a bug of the view's")


async def abroken(request: HttpRequest) -> HttpResponse:
    raise ValueError("a bug of the view's")


urlpatterns = [
    path("push", push),
    re_path(r"(?s)^raw/.*$", push),
    path("apush", apush),
    path("caught", caught),
    path("broken", broken),
    path("abroken", abroken),
]

pytestmark = pytest.mark.urls(__name__)


@pytest.fixture(autouse=True)
def _full(jobify: Configure, settings: Any) -> None:
    jobify(MAXSIZE=1, PUSH_TIMEOUT=0)
    settings.MIDDLEWARE = ["jobify_django.middleware.QueueFullMiddleware"]


def assert_refused(response: Any) -> None:
    assert response.status_code == 503
    assert response["Retry-After"] == "1"
    assert response["Content-Type"] == "text/plain; charset=utf-8"
    assert response.content.decode() == "The service is busy. Try again in a moment."


@pytest.mark.parametrize("url", ["/push", "/apush"])
def test_a_full_queue_is_a_503_under_wsgi(client: Client, url: str) -> None:
    assert client.get(url).status_code == 200
    assert_refused(client.get(url))


@pytest.mark.parametrize("url", ["/push", "/apush"])
async def test_a_full_queue_is_a_503_under_asgi(async_client: AsyncClient, url: str) -> None:
    assert (await async_client.get(url)).status_code == 200
    assert_refused(await async_client.get(url))


def test_retry_after_goes_by_the_push_timeout(client: Client, jobify: Configure) -> None:
    jobify(MAXSIZE=1, PUSH_TIMEOUT=7)
    note.using(timeout=0).push(1)
    queue_full = note.using(timeout=0)
    with pytest.raises(QueueFull) as got:
        queue_full.push(1)
    assert got.value.retry_after == 7


def test_a_client_that_prefers_json_gets_json(client: Client) -> None:
    client.get("/push")
    response = client.get("/push", headers={"accept": "application/json"})
    assert (response.status_code, response["Retry-After"]) == (503, "1")
    assert response.json() == {
        "detail": "The service is busy. Try again in a moment.",
        "queue": "default",
        "retry_after": 1,
    }


def test_the_answer_says_nothing_of_the_job(client: Client) -> None:
    client.get("/push")
    for accept in ("text/html", "application/json"):
        text = client.get("/push", headers={"accept": accept}).content.decode()
        assert "note" not in text
        assert "maxsize" not in text


def test_a_refusal_is_logged_as_what_it_is(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    client.get("/push")
    caplog.clear()
    client.get("/push")
    (said,) = caplog.records
    assert (said.name, said.levelno) == ("jobify.push", logging.WARNING)
    assert said.getMessage() == "refused /push: queue 'default' is full (1 of 1)"


def test_a_path_cannot_forge_a_line(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    client.get("/push")
    caplog.clear()
    client.get("/raw/x%0Aevent=done id=forged%1B[2K")
    (said,) = (one.getMessage() for one in caplog.records if one.name == "jobify.push")
    assert said.startswith(r"refused '/raw/x\nevent=done id=forged\x1b[2K': queue")


def test_a_view_may_catch_it_itself(client: Client) -> None:
    assert client.get("/caught").content == b"pushed"
    assert client.get("/caught").content == b"caught"


@pytest.mark.parametrize("url", ["/broken", "/abroken"])
async def test_any_other_exception_is_left_alone(client: Client, async_client: AsyncClient, url: str) -> None:
    with pytest.raises(ValueError, match="a bug of the view's"):
        await async_client.get(url)


def test_without_the_middleware_the_exception_goes_on(client: Client, settings: Any) -> None:
    settings.MIDDLEWARE = []
    client.get("/push")
    with pytest.raises(QueueFull):
        client.get("/push")
    assert queue().stats().waiting == 1
