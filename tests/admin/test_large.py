"""Pages of jobs whose row holds more than a page can show: they stay small, and say what they leave out."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from jobify_django.job import Interruption
from jobify_django.models import Job, QueueChange
from tests.admin.conftest import AddJob

MOST = 1_000_000
"""Bytes of a page, whatever its job's row holds."""


def nested(depth: int, core: str = "") -> str:
    return "[" * depth + core + "]" * depth


HEAVY = {
    "wide and deep": nested(898, ",".join(["1"] * 120_000)),
    "as deep as the bound, and wide": nested(98, ",".join(["1"] * 120_000)),
    "deeper than Python reads": nested(200_000),
    "just about what Python reads": nested(970),
    "one long string": json.dumps("'" * 240_000),
    "some megabytes": json.dumps(["x" * 20] * 100_000),
    "no JSON": "'" * 2_000_000,
}


def page_of(client: Client, job: Job) -> str:
    answer = client.get(reverse("admin:jobify_django_job_change", args=[job.id]))
    assert answer.status_code == 200
    assert len(answer.content) < MOST
    return answer.text


@pytest.mark.parametrize("text", HEAVY.values(), ids=HEAVY)
def test_a_page_stays_small_whatever_the_arguments_are(
    text: str, everything: Client, add_job: AddJob
) -> None:
    page = page_of(everything, add_job(arguments=f"[[{text}],{{}}]"))

    if len(text) > 50_000:
        assert "more characters are left out" in page
        assert "manage.py jobs show" in page


@pytest.mark.parametrize("text", HEAVY.values(), ids=HEAVY)
def test_a_page_stays_small_whatever_the_result_is(text: str, everything: Client, add_job: AddJob) -> None:
    page_of(everything, add_job(status="successful", result=text, arguments=f"[[{text}],{{}}]"))


def test_a_page_stays_small_whatever_the_error_and_the_history_are(
    everything: Client, add_job: AddJob
) -> None:
    long = "'" * 300_000
    short = asdict(Interruption(1, "handed back", 1.0, "p", charged=False))
    job = add_job(
        status="failed",
        error=json.dumps({"type": long, "message": long, "traceback": long}),
        arguments=json.dumps([[long], {}]),
        history=json.dumps([short] * 10_000 + [{**short, "reason": long, "pool": long}] * 3),
    )

    page = page_of(everything, job)

    assert "9,903 earlier entries are left out" in page or "9903 earlier entries are left out" in page
    overview = everything.get(reverse("admin:jobify_django_overview_changelist"))
    assert overview.status_code == 200
    assert len(overview.content) < MOST


def test_an_error_a_history_and_a_change_that_nobody_can_read_are_no_server_error(
    everything: Client, add_job: AddJob
) -> None:
    deep = nested(200_000)
    job = add_job(status="failed", error=deep, history=deep)
    QueueChange.objects.create(
        queue="default", version=1, actor="'" * 150, source="code", changed_at=1.0, before=deep, after="1"
    )

    assert "an error that cannot be read" in page_of(everything, job)
    for address in (
        reverse("admin:jobify_django_overview_changelist"),
        reverse("admin:jobify_django_queue_change", args=["default"]),
        reverse("admin:jobify_django_job_changelist"),
    ):
        answer = everything.get(address)
        assert answer.status_code == 200
        assert len(answer.content) < MOST


def test_a_page_says_exactly_how_much_it_leaves_out(everything: Client, add_job: AddJob) -> None:
    page = page_of(everything, add_job(status="successful", result=json.dumps("x" * 100_000)))

    shown = page.count("x" * 1_000) * 1_000
    assert 30_000 <= shown < 50_000
    assert "60,002 more characters are left out" in page or "60002 more characters are left out" in page


def test_a_value_that_fits_with_indents_is_shown_so_and_a_deep_one_on_one_line(
    everything: Client, add_job: AddJob
) -> None:
    flat = page_of(everything, add_job(arguments=json.dumps([[{"amount": 1}], {}])))
    deep = page_of(everything, add_job(arguments=f"[[{nested(400)}],{{}}]"))

    assert "[\n  {\n    &quot;amount&quot;: 1\n  }\n]" in flat
    assert nested(400) in deep
    assert "left out" not in flat + deep


@pytest.mark.parametrize("stored", ['["\\ud800"]', '{"a\\udfff": "\\ud800\\ud800"}'])
def test_half_of_a_pair_of_code_units_is_shown_as_its_escape(
    stored: str, everything: Client, add_job: AddJob
) -> None:
    error = json.dumps({"type": "x.\ud800", "message": "\ud800 message", "traceback": "\ud800 traceback"})
    failed = add_job(status="failed", arguments=f"[[{stored}],{{}}]", error=error)
    done = add_job(status="successful", result=stored)
    history: dict[str, Any] = asdict(Interruption(1, "\ud800", 1.0, "\ud800", charged=False))
    waiting = add_job(history=json.dumps([history]))

    pages = [page_of(everything, job) for job in (failed, done, waiting)]
    pages.append(everything.get(reverse("admin:jobify_django_overview_changelist")).text)

    assert all("\\ud800" in page for page in pages)
