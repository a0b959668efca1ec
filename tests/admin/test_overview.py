from __future__ import annotations

import json
import re
from typing import Any

import pytest
from django.contrib.admin import AdminSite
from django.db import connection
from django.test import Client
from django.urls import include, path, reverse

from jobify_django import Task, outcome, queue
from jobify_django.admin import JobAdmin, OverviewAdmin
from jobify_django.exceptions import StoreBusy
from jobify_django.job import JobError
from jobify_django.models import Job, Overview
from jobify_django.stores.memory import MemoryStore
from jobify_django.stores.value import Demand, Lane, PoolQueue, PoolRecord
from tests.admin.conftest import AddJob, Asked

QUEUES = {"default": {}, "mail": {"WORKERS": 2, "MAXSIZE": 3, "ORDER": "fifo"}}
MEMORY = {"STORE": "memory", "QUEUES": QUEUES, "PUSH_TIMEOUT": 0}
DATABASE = {"STORE": "database", "QUEUES": QUEUES, "PUSH_TIMEOUT": 0}


class BrokenStore(MemoryStore):
    """A store that answers nothing about its queues."""

    def stats(self, queues: Any) -> Any:
        raise StoreBusy("the disk <b>stayed</b> locked")

    def query(self, query: Any) -> Any:
        raise RuntimeError("secret-dsn")


custom_site = AdminSite(name="backstage")
custom_site.register(Overview, OverviewAdmin)
custom_site.register(Job, JobAdmin)
urlpatterns = [path("backstage/", custom_site.urls), path("", include("tests.urls"))]


def overview(client: Client, **headers: str) -> str:
    answer = client.get(reverse("admin:jobify_django_overview_changelist"), headers=headers)
    assert answer.status_code == 200
    return answer.text


def words(page: str) -> str:
    """Return what a reader sees: the text, without tags, in one line."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page.replace("<wbr>", "")))


def a_pool(number: int, version: int = 0, busy: int = 1) -> PoolRecord:
    served = PoolQueue(workers=2, busy=busy, version=version)
    return PoolRecord(f"pool-{number}", "web-1", 4_000 + number, "runjobs", 1_700_000_000.0, {"mail": served})


@pytest.fixture(params=[MEMORY, DATABASE], ids=["memory", "database"])
def a_store(request: pytest.FixtureRequest, settings: Any, db: None) -> str:
    settings.JOBIFY = request.param
    return str(request.param["STORE"])


def test_a_row_shows_depth_bound_workers_and_order(
    a_store: str, everything: Client, noop: Task[..., None]
) -> None:
    mail = noop.using(queue="mail", on_commit=False)
    mail.push(1)
    mail.push(2)
    mail.using(delay=3_600).push(3)
    for number in (1, 2):
        queue("mail").store.heartbeat(a_pool(number))

    page = overview(everything)

    assert "2 of 3" in words(page)
    assert '<meter min="0" max="3" value="2" low="1" high="2" optimum="0"' in page
    assert "2 of 4 busy" in words(page)
    assert "2 per process × 2 pools" in words(page)
    assert "first in, first out" in words(page)
    assert "web-1:4001" in words(page)
    assert "mail: 1 of 2 busy" in words(page)


def test_live_values_are_told_from_the_settings_and_counted_where_applied(
    a_store: str, everything: Client
) -> None:
    queue("mail").tune(workers=4)
    queue("mail").pause()
    for number, version in ((1, 2), (2, 1), (3, 2)):
        queue("mail").store.heartbeat(a_pool(number, version))

    page = words(overview(everything))

    assert "workers 4 (settings: 2)" in page
    assert "version 2, applied by 2 of 3" in page
    assert "not yet by all" in page
    assert "version 1 of 2" in page
    assert "paused" in page


def test_a_full_queue_and_a_queue_without_a_pool_are_told_in_a_banner(
    a_store: str, everything: Client, noop: Task[..., None]
) -> None:
    queue("mail").store.heartbeat(a_pool(1))
    for number in range(3):
        noop.using(queue="mail", on_commit=False).push(number)

    page = words(overview(everything))

    assert "Queue mail is full: pushes wait until there is room." in page
    assert "No live pool serves queue default" in page
    assert "No live pool serves queue mail" not in page


def test_newest_failures_come_from_every_store(
    settings: Any, everything: Client, add_job: AddJob, noop: Task[..., None]
) -> None:
    settings.JOBIFY = {"QUEUES": {"default": {}, "mail": {"STORE": "memory"}}}
    add_job(status="failed", error=json.dumps({"type": "shop.Declined", "message": "", "traceback": ""}))
    noop.using(queue="mail", on_commit=False).push()
    store = queue("mail").store
    (claim,) = store.claim(Demand("pool", {"mail": Lane(want=1, lease=30)})).claims
    store.settle([outcome.failed(claim, JobError("smtp.Refused", "no route"))])

    page = words(overview(everything))

    assert page.index("smtp.Refused no route") < page.index("shop.Declined")
    job = everything.get(reverse("admin:jobify_django_job_change", args=[claim.id]))
    assert "no route" in job.text


def test_a_store_that_fails_is_a_row_that_says_so(settings: Any, everything: Client) -> None:
    settings.JOBIFY = {"QUEUES": {"default": {}, "mail": {"STORE": f"{__name__}.BrokenStore"}}}

    page = overview(everything)

    assert "Queue mail cannot be read." in words(page)
    assert "the disk &lt;b&gt;stayed&lt;/b&gt; locked" in page
    assert "The store failed (RuntimeError); the log has more." in words(page)
    assert "secret-dsn" not in page
    assert "0 of 1024" in words(page)
    assert everything.get(reverse("admin:jobify_django_queue_change", args=["mail"])).status_code == 200


def test_a_store_that_cannot_be_made_is_a_row_that_says_so(settings: Any, everything: Client) -> None:
    settings.JOBIFY = {"QUEUES": {"default": {}, "mail": {"STORE": "no.such.Store"}}}

    assert "The store failed (ImproperlyConfigured); the log has more." in words(overview(everything))


@pytest.mark.parametrize(
    ("after", "note"),
    [
        ({"QUEUES": {}}, "not in settings"),
        ({"QUEUES": {"mail": {"STORE": "memory"}}}, "in store memory by now"),
        ({"STORE": "memory", "QUEUES": {"mail": {}}}, "in store memory by now"),
    ],
)
def test_a_queue_that_the_settings_do_not_look_for_is_shown_where_its_jobs_are(
    settings: Any, everything: Client, noop: Task[..., None], after: dict[str, Any], note: str
) -> None:
    settings.JOBIFY = DATABASE
    mail = noop.using(queue="mail", on_commit=False)
    mail.push(1)
    mail.using(delay=3_600).push(2)
    queue("mail").tune(workers=4)
    queue("mail").pause()
    settings.JOBIFY = after

    page = overview(everything)

    assert f"Queue mail ({note}) holds jobs, and no live pool serves it there: they wait." in words(page)
    assert re.search(rf"mail {note} paused no pool tuned 1 1 0 ", words(page))
    assert "/jobify_django/job/?queue=mail" in page


def test_a_queue_that_others_serve_is_no_warning(
    settings: Any, everything: Client, noop: Task[..., None]
) -> None:
    settings.JOBIFY = DATABASE
    noop.using(queue="mail", on_commit=False).push(1)
    queue("mail").store.heartbeat(a_pool(1))
    settings.JOBIFY = {}

    page = words(overview(everything))

    assert "mail not in settings" in page
    assert "holds jobs" not in page


def test_the_page_of_a_queue_that_is_gone_can_be_read_and_changes_nothing(
    settings: Any, everything: Client, noop: Task[..., None]
) -> None:
    settings.JOBIFY = {"QUEUES": {"user_flow": {}, "mail": {}}}
    noop.using(queue="user_flow", on_commit=False).push(1)
    queue("mail").pause(actor="ada")  # it has no jobs, and was changed
    settings.JOBIFY = {}
    everything.get(reverse("admin:jobify_django_queue_change", args=["default"]))

    for name, shown in (("user_flow", "no live pool"), ("user_5Fflow", "no live pool"), ("mail", "ada")):
        page = everything.get(reverse("admin:jobify_django_queue_change", args=[name]))
        assert page.status_code == 200
        assert "not in settings" in words(page.text)
        assert shown in words(page.text)
        assert not re.search(r"<form[^>]*/queue/", page.text)
    for view in ("change", "pause", "resume", "reset"):
        address = reverse(f"admin:jobify_django_queue_{view}", args=["user_flow"])
        assert everything.post(address).status_code == 404


def test_an_unknown_queue_is_not_found(everything: Client) -> None:
    for name in ("nope", "<script>", "..", "a" * 5_000):
        assert everything.get(reverse("admin:jobify_django_queue_change", args=[name])).status_code == 404


def test_a_refresh_gets_the_regions_and_uses_up_no_message(everything: Client) -> None:
    everything.post(reverse("admin:jobify_django_queue_pause", args=["default"]))

    fresh = overview(everything, **{"X-Jobify-Refresh": "1"})
    page = overview(everything)

    regions = re.findall(r'data-jobify-region="(\w+)"', page)
    assert regions == re.findall(r'data-jobify-region="(\w+)"', fresh)
    assert {"moment", "banners", "queues", "pools", "failures"} == set(regions)
    assert "<html" not in fresh
    assert "Queue default is paused" in page


def test_the_pages_have_no_inline_script_or_style(
    everything: Client, add_job: AddJob, admin_client: Client
) -> None:
    job = add_job(status="failed")
    for address in (
        reverse("admin:jobify_django_overview_changelist"),
        reverse("admin:jobify_django_queue_change", args=["default"]),
        reverse("admin:jobify_django_job_change", args=[job.id]),
        reverse("admin:jobify_django_job_changelist"),
    ):
        for client in (everything, admin_client):
            page = client.get(address).text
            assert not re.search(r"<script(?![^>]*\bsrc=)[^>]*>", page)
            assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:", page)


@pytest.mark.urls(__name__)
def test_the_pages_stay_on_the_site_they_stand_on(admin_client: Client, add_job: AddJob) -> None:
    job = add_job(status="failed")
    # What the tests' own address book adds is the default site; none of its addresses may show up.
    for address in ("overview/", "overview/queue/default/", f"job/{job.id}/change/", "job/"):
        page = admin_client.get(f"/backstage/jobify_django/{address}")
        assert page.status_code == 200
        assert 'action="/admin/' not in page.text
        assert 'href="/admin/' not in page.text

    answer = admin_client.post("/backstage/jobify_django/overview/queue/default/pause/")
    assert answer["Location"] == "/backstage/jobify_django/overview/queue/default/"
    answer = admin_client.post(f"/backstage/jobify_django/job/{job.id}/retry/")
    assert answer["Location"] == f"/backstage/jobify_django/job/{job.id}/change/"


def test_numbers_survive_a_locale_that_groups_them(settings: Any, everything: Client) -> None:
    settings.USE_THOUSAND_SEPARATOR = True
    settings.LANGUAGE_CODE = "de"

    assert 'max="1024"' in overview(everything)


@pytest.mark.skipif(connection.vendor != "sqlite", reason="counts what SQLite itself is asked")
def test_the_query_count_does_not_grow_with_the_jobs(
    everything: Client, add_job: AddJob, asked: Asked
) -> None:
    addresses = [
        reverse("admin:jobify_django_overview_changelist"),
        reverse("admin:jobify_django_queue_change", args=["default"]),
        reverse("admin:jobify_django_job_changelist"),
    ]
    error = json.dumps({"type": "E", "message": "m", "traceback": "t"})

    def statements(address: str) -> int:
        with asked() as seen:
            assert everything.get(address).status_code == 200
        return len(seen)

    queue().tune(workers=3)
    without = [statements(address) for address in addresses]
    for number in range(1_000):
        add_job(status=("failed", "waiting", "running", "successful")[number % 4], error=error)

    assert [statements(address) for address in addresses] == without
    assert max(without) <= 12
