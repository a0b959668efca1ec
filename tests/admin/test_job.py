from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.db import connection
from django.test import Client
from django.urls import reverse

from jobify_django import Task, queue
from jobify_django.admin import job_list
from jobify_django.job import Interruption, JobRecord
from jobify_django.models import Job
from jobify_django.stores.memory import MemoryStore
from jobify_django.stores.value import JobQuery
from tests.admin.conftest import AddJob, Asked

MOST_QUERIES = 8 if connection.vendor != "mysql" else 12  # there the queues are looked up one by one
LIST = "admin:jobify_django_job_changelist"


def listed(client: Client, query: str = "") -> str:
    answer = client.get(f"{reverse(LIST)}{query}")
    assert answer.status_code == 200
    return answer.text


def act(client: Client, action: str, *jobs: Job, **values: Any) -> str:
    data = {"action": action, "_selected_action": [job.id for job in jobs], **values}
    return client.post(reverse(LIST), data, follow=True).text


def test_the_list_shows_what_a_job_is(everything: Client, add_job: AddJob) -> None:
    job = add_job(status="failed", priority=50, attempt=3)

    page = listed(everything)

    for shown in (job.id, "shop.tasks.charge", "default", "failed", "50", "1.0 s", "2.5 s", "Nov. 14, 2023"):
        assert shown in page


def test_the_filters_offer_the_settings_and_the_registry_without_asking_the_table(
    settings: Any, everything: Client, add_job: AddJob, noop: Task[..., None]
) -> None:
    settings.JOBIFY = {"QUEUES": {"default": {}, "mail": {}}}
    in_mail = add_job(queue="mail", task="tests.noop", status="cancelled")
    other = add_job()

    for query in ("?queue=mail", "?task=tests.noop", "?status=cancelled", f"?q={in_mail.id}"):
        page = listed(everything, query)
        assert in_mail.id in page
        assert other.id not in page


def test_the_search_takes_a_whole_id_and_nothing_else(everything: Client, add_job: AddJob) -> None:
    job = add_job(arguments='[["needle"], {}]')

    for term in ("needle", "shop.tasks", job.id[:20], "x" * 1_000_000):
        assert job.id not in listed(everything, f"?q={term}").replace(f'value="{term}"', "")


@pytest.mark.parametrize(
    "query",
    [
        "?status=nonsense",
        "?status=<script>alert(1)</script>",
        "?queue=%00",
        "?task=../../x",
        "?p=999999999",
        "?p=-1",
        "?p=x",
        "?o=99.-1.x",
        "?o=" + "1." * 5_000,
        "?q=%00",
        "?q=" + "%F0%9F%92%A9" * 100,
        "?e=1",
        "?all=",
        "?_facets=True",
        "?_popup=1",
        "?_to_field=arguments",
        "?arguments__contains=secret",
        "?arguments=secret",
        "?error__regex=(a%2B)%2B%24",
        "?status__in=failed",
        "?pushed_at__gt=x",
        "?x=<script>alert(1)</script>",
        "?" + "&".join(f"a{n}=1" for n in range(900)),
    ],
)
def test_a_bad_parameter_is_no_server_error_and_no_way_in(
    query: str, everything: Client, add_job: AddJob
) -> None:
    add_job(arguments='[["secret"], {}]')

    for address in (
        reverse(LIST),
        reverse("admin:jobify_django_overview_changelist"),
        reverse("admin:jobify_django_queue_change", args=["default"]),
    ):
        answer = everything.get(address + query)
        assert answer.status_code in (200, 302, 400)
        assert b"<script>alert(1)" not in answer.content


def test_no_column_can_be_asked_about_but_the_three(everything: Client, add_job: AddJob) -> None:
    add_job(arguments='[["secret"], {}]')

    for lookup in ("arguments__contains", "error__startswith", "id__gt", "priority"):
        assert everything.get(f"{reverse(LIST)}?{lookup}=1").status_code == 400


def test_large_columns_are_not_read_for_the_list(everything: Client, add_job: AddJob, asked: Asked) -> None:
    add_job()
    with asked() as statements:
        listed(everything)

    assert len(statements) <= MOST_QUERIES
    of_jobs = [sql for sql in statements if "jobify_job" in sql]
    assert of_jobs
    assert not [sql for sql in of_jobs if re.search(r"\b(arguments|result|error|history)\b", sql)]
    assert not [sql for sql in of_jobs if "DISTINCT" in sql]


def test_the_count_stops(everything: Client, add_job: AddJob, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_list, "MOST", 150)
    assert "150+" not in listed(everything)
    for _ in range(151):
        add_job()

    page = listed(everything)

    assert "150+" in page
    assert "?p=2" in page
    assert everything.get(f"{reverse(LIST)}?p=2").status_code == 200


def test_the_database_counts_no_further_than_the_page_tells(
    everything: Client, add_job: AddJob, asked: Asked
) -> None:
    add_job()
    with asked() as statements:
        listed(everything)

    assert len(statements) <= MOST_QUERIES
    (count,) = [sql for sql in statements if "COUNT(*)" in sql.upper()]
    assert "LIMIT 10001" in count


@pytest.mark.parametrize("query", ["status=nonsense", "queue=No Queue", "task=os.system"])
def test_a_filter_takes_its_own_choices_only(query: str, everything: Client) -> None:
    answer = everything.get(f"{reverse(LIST)}?{query}")

    assert (answer.status_code, answer.get("Location")) == (302, f"{reverse(LIST)}?e=1")


def test_a_long_count_is_grouped() -> None:
    assert str(job_list.CappedCount(10_000)) == "10\u202f000+"


def test_retrying_many_tells_what_came_of_each(everything: Client, add_job: AddJob) -> None:
    failed = [add_job(status="failed") for _ in range(2)]
    cancelled = add_job(status="cancelled")
    running = add_job(status="running", started_at=1_700_000_001.0, attempt=1)
    successful = add_job(status="successful")

    page = act(everything, "retry_jobs", *failed, cancelled, running, successful)

    assert "3 retried, 1 was already running, 1 was already successful." in page
    assert Job.objects.filter(status="waiting").count() == 3
    entry = LogEntry.objects.get()
    assert (entry.object_id, entry.object_repr) == ("default", "default")
    assert "3 retried" in entry.change_message


def running(task: str) -> dict[str, Any]:
    return {"task": task, "status": "running", "started_at": 1_700_000_001.0, "attempt": 1}


def test_cancelling_many_tells_what_came_of_each(
    everything: Client, add_job: AddJob, noop: Task[..., None], anoop: Task[..., None]
) -> None:
    waiting = add_job()
    delayed = add_job(status="delayed", eligible_at=time.time() + 3_600)
    asked, deaf, strange = (add_job(**running(name)) for name in (anoop.name, noop.name, "not.known"))
    ended = add_job(status="successful")

    page = act(everything, "cancel_jobs", waiting, delayed, asked, deaf, strange, ended)

    assert (
        "2 cancelled, 1 is running and was asked to stop, "
        "1 is running and was asked to stop; its task is not known here, "
        "1 is running and cannot be stopped: a “def” ends as it ends, 1 was already successful." in page
    )
    for job in (asked, deaf, strange):
        job.refresh_from_db()
        assert job.cancel_requested


def test_cancelling_what_cannot_be_stopped_is_no_success(
    everything: Client, add_job: AddJob, noop: Task[..., None]
) -> None:
    page = act(everything, "cancel_jobs", add_job(**running(noop.name)))

    assert '<li class="warning">0 cancelled, 1 is running and cannot be stopped' in page


def test_jobs_that_nobody_would_run_are_not_retried(everything: Client, add_job: AddJob) -> None:
    kept, orphan = add_job(status="failed"), add_job(status="failed", queue="old")

    page = act(everything, "retry_jobs", kept, orphan)

    assert "1 retried." in page
    assert "ueue &#x27;old&#x27; is not in JOBIFY[&#x27;QUEUES&#x27;], and no live pool serves it" in page
    orphan.refresh_from_db()
    assert orphan.status == "failed"


def test_jobs_of_a_queue_that_is_gone_are_cancelled(everything: Client, add_job: AddJob) -> None:
    kept, orphan, other = add_job(), add_job(queue="old"), add_job(queue="old", status="delayed")

    page = act(everything, "cancel_jobs", kept, orphan)
    answer = everything.post(address(other, "cancel"), follow=True)

    assert "2 cancelled." in page
    assert "1 cancelled." in answer.text
    assert set(Job.objects.values_list("status", flat=True)) == {"cancelled"}


def test_jobs_in_the_store_that_their_queue_has_left_are_acted_on_there(
    settings: Any, everything: Client, add_job: AddJob
) -> None:
    settings.JOBIFY = {"STORE": "memory", "QUEUES": {"mail": {}}}
    waiting, failed = add_job(queue="mail"), add_job(queue="mail", status="failed")

    page = act(everything, "cancel_jobs", waiting)
    answer = everything.post(address(failed, "retry"), follow=True)

    assert "1 cancelled." in page
    assert "ueue &#x27;mail&#x27; is in store &#x27;memory&#x27; now" in answer.text
    assert set(Job.objects.values_list("status", flat=True)) == {"cancelled", "failed"}


def test_the_queue_filter_finds_queues_that_are_gone(everything: Client, add_job: AddJob) -> None:
    waiting, failed = add_job(queue="old"), add_job(queue="older", status="failed")

    assert "?queue=old" in listed(everything)
    assert waiting.id in listed(everything, "?queue=old")
    assert failed.id in listed(everything, "?queue=older")


def test_one_action_takes_a_thousand_jobs(
    everything: Client, add_job: AddJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobify_django.admin.job.MOST_AT_ONCE", 3)
    jobs = [add_job(status="failed") for _ in range(5)]

    page = act(everything, "retry_jobs", *jobs, select_across="1")

    assert "3 retried. One action takes 3 jobs; run it again for the others." in page
    assert Job.objects.filter(status="waiting").count() == 3


def address(job: Job, what: str = "change") -> str:
    return reverse(f"admin:jobify_django_job_{what}", args=[job.id])


def test_a_job_page_tells_the_story_in_order(everything: Client, add_job: AddJob) -> None:
    crash = Interruption(1, "its worker's lease ran out", 1_700_000_050.0, "p1", charged=True)
    by_hand = Interruption(2, "retried by hand", 1_700_000_090.0, "p2", charged=False)
    job = add_job(
        status="failed",
        attempt=3,
        eligible_at=1_700_000_010.0,
        started_at=1_700_000_100.0,
        ended_at=1_700_000_160.0,
        history=json.dumps([asdict(crash), asdict(by_hand)]),
        arguments='[["ord-1"], {"amount": 3}]',
        error=json.dumps({"type": "shop.Declined", "message": "no money", "traceback": "boom"}),
    )

    page = everything.get(address(job)).text.replace("<wbr>", "")

    told = re.findall(r"<li><time[^>]*>.*?</time> <span>([^<]*)", page)
    assert [line.strip() for line in told] == [
        "pushed",
        "eligible",
        "attempt 1: its worker&#x27;s lease ran out",
        "attempt 2: retried by hand",
        "attempt 3 started",
        "failed",
    ]
    for shown in ("counted as a crash", "shop.Declined", "no money", "boom", "ord-1", "amount", "1 min 0 s"):
        assert shown in page
    assert '<input type="text"' not in page


def test_a_job_page_retries_and_cancels(everything: Client, add_job: AddJob) -> None:
    job = add_job(status="failed")

    assert address(job, "retry") in everything.get(address(job)).text
    page = everything.post(address(job, "retry"), follow=True).text
    assert "1 retried." in page
    assert address(job, "cancel") in page
    page = everything.post(address(job, "retry"), follow=True).text
    assert "0 retried, 1 was already waiting." in page
    page = everything.post(address(job, "cancel"), follow=True).text
    assert "1 cancelled." in page

    job.refresh_from_db()
    assert job.status == "cancelled"
    entries = LogEntry.objects.filter(object_id=job.id).order_by("pk")
    assert [entry.change_message for entry in entries] == ["1 retried.", "1 cancelled."]


def test_a_job_that_is_gone_is_not_found(everything: Client) -> None:
    nobody = "00000000-0000-7000-8000-000000000000"
    for id in (nobody, "x" * 5_000, "a/b", "%00", "'; DROP TABLE jobify_job; --"):
        for what in ("change", "retry", "cancel"):
            target = reverse(f"admin:jobify_django_job_{what}", args=[id])
            answer = everything.get(target) if what == "change" else everything.post(target)
            assert answer.status_code == 404


def test_a_job_in_memory_has_a_page_too(settings: Any, everything: Client, noop: Task[..., None]) -> None:
    settings.JOBIFY = {"STORE": "memory"}
    job = noop.using(on_commit=False).push("in memory")
    target = reverse("admin:jobify_django_job_change", args=[job.id])

    assert "in memory" in everything.get(target).text
    page = everything.post(reverse("admin:jobify_django_job_cancel", args=[job.id]), follow=True).text
    assert "1 cancelled." in page
    assert queue().stats().waiting == 0


ATTACKS = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'><svg/onload=alert(1)>",
    "</pre></script><script>alert(1)</script>",
    "<a href='javascript:alert(1)'>x</a>",
    "{{ 7|add:7 }}{% debug %}",
    "%(count)d %s {0}",
    "\u202e<b>\x1b[2J",
]


@pytest.mark.parametrize("attack", ATTACKS)
def test_what_a_job_carries_is_shown_and_never_run(attack: str, everything: Client, add_job: AddJob) -> None:
    text = attack + "END"
    job = add_job(
        status="failed",
        task=text,
        queue=text[:64],
        arguments=json.dumps([[text], {text: text}]),
        error=json.dumps({"type": text, "message": text, "traceback": text}),
        history=json.dumps([{"attempt": 1, "reason": text, "at": 1.0, "pool": text, "charged": True}]),
        pool=text[:36],
    )
    done = add_job(status="successful", task=text, result=json.dumps(text))
    queue().tune(workers=3, actor=text, source=attack[:16])

    pages = [
        everything.get(address(job)).text,
        everything.get(address(done)).text,
        listed(everything),
        everything.get(reverse("admin:jobify_django_overview_changelist")).text,
        everything.get(reverse("admin:jobify_django_queue_change", args=["default"])).text,
        act(everything, "retry_jobs", job, done),
        everything.post(address(job, "cancel"), follow=True).text,
    ]

    assert sum("END" in page for page in pages) >= 5
    for page in pages:
        for harm in ("<script>alert", "<img src=x", "<svg/", "<a href='java", "<b>", "</pre></script"):
            assert harm not in page


def test_an_id_cannot_attack_either(everything: Client, add_job: AddJob) -> None:
    job = add_job(id='"><img src=x onerror=1>', status="failed")

    for page in (everything.get(address(job)).text, listed(everything)):
        assert "<img src=x" not in page
    assert everything.post(address(job, "retry")).status_code == 302


def test_rows_that_make_no_sense_are_no_server_error(everything: Client, add_job: AddJob) -> None:
    times = {"pushed_at": 1e30, "eligible_at": -1e30, "started_at": 1e18, "ended_at": 0.0}
    job = add_job(status="failed", arguments="not json", **times)

    assert "not json" in everything.get(address(job)).text
    assert everything.get(reverse(LIST)).status_code == 200
    assert everything.get(reverse("admin:jobify_django_overview_changelist")).status_code == 200


class SharedStore(MemoryStore):
    """A store that somebody else wrote, and that every process sees."""

    shared = True

    def query(self, query: JobQuery) -> Sequence[JobRecord]:
        if self.away:
            raise RuntimeError("secret-dsn")
        return super().query(query)

    away = False


SHARED = {"QUEUES": {"default": {}, "mail": {"STORE": f"{__name__}.SharedStore"}}}


def test_jobs_of_every_shared_store_are_listed_the_newest_first_and_acted_on_where_they_are(
    settings: Any, everything: Client, add_job: AddJob, noop: Task[..., None]
) -> None:
    settings.JOBIFY = SHARED
    old, new = add_job(), add_job(pushed_at=time.time() + 60)
    mailed = noop.using(queue="mail", on_commit=False).push()

    page = listed(everything)
    told = act(everything, "cancel_jobs", old, new, mailed)

    assert page.index(new.id) < page.index(mailed.id) < page.index(old.id)
    assert "3 jobs" in page
    assert mailed.id not in listed(everything, "?queue=default")
    assert "3 cancelled." in told
    assert queue("mail").stats().waiting == queue().stats().waiting == 0


def test_pages_go_through_all_stores_and_leave_no_job_out(
    settings: Any, everything: Client, add_job: AddJob, noop: Task[..., None]
) -> None:
    settings.JOBIFY = SHARED
    ids = [add_job(pushed_at=time.time() + (60 if number % 2 else -60)).id for number in range(150)]
    ids += [noop.using(queue="mail", on_commit=False).push().id for _ in range(150)]

    for query in ("?", "?status=waiting&"):
        pages = [listed(everything, f"{query}p={number}") for number in (1, 2, 3)]
        assert sorted(id for page in pages for id in set(re.findall(r'value="([\w-]{36})"', page))) == sorted(
            ids
        )


def test_a_store_that_fails_hides_no_jobs_of_another(
    settings: Any, everything: Client, add_job: AddJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.JOBIFY = SHARED
    monkeypatch.setattr(SharedStore, "away", True)
    job = add_job()

    page = listed(everything)

    assert job.id in page
    assert page.count("The store failed (RuntimeError); the log has more.") == 1
    assert "secret-dsn" not in page


@pytest.mark.parametrize("status", ["", "&status=waiting"])
def test_the_list_is_newest_first_and_its_header_sorts_it_oldest_first(
    status: str, settings: Any, everything: Client, add_job: AddJob, noop: Task[..., None]
) -> None:
    settings.JOBIFY = SHARED
    old, new = add_job(), add_job(pushed_at=time.time() + 60, order_key=100)
    mailed = noop.using(queue="mail", on_commit=False).push()

    page = listed(everything, f"?{status}")
    headers = re.findall(r"column-pushed sorted descending(.*?)</th>", page, re.DOTALL)
    (turn,) = re.findall(r'href="([^"]*)" class="toggle', "".join(headers))
    turned = listed(everything, turn.replace("&amp;", "&"))

    assert page.index(new.id) < page.index(mailed.id) < page.index(old.id)
    assert turned.index(old.id) < turned.index(mailed.id) < turned.index(new.id)
    assert "column-pushed sorted ascending" in turned


def test_the_log_entries_of_a_job_have_a_page(everything: Client, add_job: AddJob) -> None:
    job = add_job(status="failed")
    everything.post(address(job, "retry"))

    assert "1 retried." in everything.get(address(job, "history")).text
