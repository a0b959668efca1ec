"""Who may see and do what. Every address and action of the admin is in these tables."""

from __future__ import annotations

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client
from django.urls import reverse

from jobify_django.models import Job, QueueChange
from tests.admin.conftest import PERMISSIONS, AddJob, Visit

PAGES = {
    "overview": {"view_queue", "tune_queue"},
    "queue": {"view_queue", "tune_queue"},
    "jobs": {"view_job"},
    "job": {"view_job"},
}
# Each needs all of these permissions.
ACTIONS = {
    "tune": {"tune_queue"},
    "reset": {"tune_queue"},
    "pause": {"tune_queue"},
    "resume": {"tune_queue"},
    "retry": {"view_job", "retry_job"},
    "cancel": {"view_job", "cancel_job"},
}
GET_REFUSED = set(ACTIONS) - {"tune"}  # the form's address is the page that shows it


@pytest.fixture
def failed(add_job: AddJob) -> Job:
    return add_job(status="failed", error='{"type": "ValueError", "message": "no", "traceback": ""}')


@pytest.fixture
def addresses(failed: Job) -> dict[str, str]:
    return {
        "overview": reverse("admin:jobify_django_overview_changelist"),
        "queue": reverse("admin:jobify_django_queue_change", args=["default"]),
        "tune": reverse("admin:jobify_django_queue_change", args=["default"]),
        "reset": reverse("admin:jobify_django_queue_reset", args=["default"]),
        "pause": reverse("admin:jobify_django_queue_pause", args=["default"]),
        "resume": reverse("admin:jobify_django_queue_resume", args=["default"]),
        "jobs": reverse("admin:jobify_django_job_changelist"),
        "job": reverse("admin:jobify_django_job_change", args=[failed.id]),
        "retry": reverse("admin:jobify_django_job_retry", args=[failed.id]),
        "cancel": reverse("admin:jobify_django_job_cancel", args=[failed.id]),
    }


def changes(job: Job) -> tuple[int, int, str]:
    job.refresh_from_db()
    return QueueChange.objects.count(), LogEntry.objects.count(), job.status


@pytest.mark.parametrize("name", [*PAGES, *ACTIONS])
def test_a_stranger_is_sent_to_the_login(name: str, addresses: dict[str, str], failed: Job) -> None:
    before = changes(failed)

    answers = [Client().get(addresses[name]), Client().post(addresses[name], {"version": 0, "workers": 3})]

    assert [answer.status_code for answer in answers] == [302, 302]
    assert all(answer["Location"].startswith(reverse("admin:login")) for answer in answers)
    assert changes(failed) == before


@pytest.mark.parametrize("permission", [None, *PERMISSIONS])
@pytest.mark.parametrize("name", PAGES)
def test_a_page_opens_with_its_permission_only(
    name: str, permission: str | None, addresses: dict[str, str], visit: Visit
) -> None:
    answer = visit(*([permission] if permission else [])).get(addresses[name])

    assert answer.status_code == (200 if permission in PAGES[name] else 403)


@pytest.mark.parametrize("left_out", [None, *PERMISSIONS])
@pytest.mark.parametrize("name", ACTIONS)
def test_an_action_needs_each_of_its_permissions_and_no_other(
    name: str, left_out: str | None, addresses: dict[str, str], visit: Visit, failed: Job
) -> None:
    before = changes(failed)
    client = visit(*(set(PERMISSIONS) - {left_out}))

    answer = client.post(addresses[name], {"version": 0, "workers": 3})

    if left_out in ACTIONS[name]:
        assert answer.status_code == 403
        assert changes(failed) == before
    else:
        assert answer.status_code == 302


@pytest.mark.parametrize("name", ACTIONS)
def test_a_plain_staff_user_can_do_nothing(
    name: str, addresses: dict[str, str], visit: Visit, failed: Job
) -> None:
    before = changes(failed)

    assert visit().post(addresses[name], {"version": 0, "workers": 3}).status_code == 403
    assert changes(failed) == before


@pytest.mark.parametrize("name", sorted(GET_REFUSED))
@pytest.mark.parametrize("method", ["get", "head", "put", "delete"])
def test_an_action_is_a_post_and_nothing_else(
    name: str, method: str, addresses: dict[str, str], everything: Client, failed: Job
) -> None:
    before = changes(failed)

    assert getattr(everything, method)(addresses[name]).status_code == 405
    assert changes(failed) == before


@pytest.mark.parametrize("name", ["overview", "job"])
def test_a_page_without_a_form_takes_no_post(
    name: str, addresses: dict[str, str], everything: Client
) -> None:
    assert everything.post(addresses[name], {"status": "waiting"}).status_code == 405


@pytest.mark.parametrize("name", ACTIONS)
def test_an_action_without_its_token_is_refused(
    name: str, addresses: dict[str, str], visit: Visit, failed: Job
) -> None:
    before = changes(failed)
    client = visit(*PERMISSIONS, enforce_csrf_checks=True)

    assert client.post(addresses[name], {"version": 0, "workers": 3}).status_code == 403
    assert changes(failed) == before


@pytest.mark.parametrize(
    ("action", "permission"), [("retry_jobs", "retry_job"), ("cancel_jobs", "cancel_job")]
)
def test_a_list_action_is_offered_and_done_with_its_permission_only(
    action: str, permission: str, addresses: dict[str, str], visit: Visit, failed: Job
) -> None:
    client = visit(*(set(PERMISSIONS) - {permission}))
    before = changes(failed)

    assert f'value="{action}"' not in client.get(addresses["jobs"]).text
    client.post(addresses["jobs"], {"action": action, "_selected_action": [failed.id]})

    assert changes(failed) == before
    assert f'value="{action}"' in visit("view_job", permission).get(addresses["jobs"]).text


def test_jobs_are_never_added_edited_or_deleted(everything: Client, failed: Job) -> None:
    add = reverse("admin:jobify_django_job_add")
    delete = reverse("admin:jobify_django_job_delete", args=[failed.id])

    assert everything.post(add, {"task": "os.system"}).status_code == 403
    assert everything.post(delete, {"post": "yes"}).status_code == 403
    page = everything.get(reverse("admin:jobify_django_job_changelist")).text
    assert "delete_selected" not in page
    assert Job.objects.count() == 1


@pytest.mark.parametrize("name", ["job", "overview"])
def test_what_a_job_carries_shows_with_its_permission_only(
    name: str, addresses: dict[str, str], visit: Visit, failed: Job
) -> None:
    Job.objects.update(
        arguments='[["canary-argument"], {}]',
        error='{"type": "ValueError", "message": "canary-message", "traceback": "canary-traceback"}',
    )

    hidden = visit("view_job", "view_queue").get(addresses[name]).text
    shown = visit("view_job", "view_queue", "view_job_payload").get(addresses[name]).text

    assert "ValueError" in hidden
    assert "canary" not in hidden
    assert "canary-message" in shown
    if name == "job":
        assert "needs permission jobify_django.view_job_payload" in hidden
        assert "canary-argument" in shown
        assert "canary-traceback" in shown


def test_failures_are_not_shown_to_who_may_not_see_jobs(
    addresses: dict[str, str], visit: Visit, failed: Job
) -> None:
    page = visit("view_queue").get(addresses["overview"]).text

    assert failed.task not in page
    assert "Newest failures" not in page


def test_the_form_is_not_shown_to_who_may_not_tune(addresses: dict[str, str], visit: Visit) -> None:
    assert 'name="workers"' not in visit("view_queue").get(addresses["queue"]).text
    assert 'name="workers"' in visit("tune_queue").get(addresses["queue"]).text


@pytest.mark.parametrize("permission", [None, *PERMISSIONS])
def test_the_index_leads_to_what_may_be_opened(permission: str | None, visit: Visit) -> None:
    index = visit(*([permission] if permission else [])).get(reverse("admin:index")).text

    for page, name in (("overview", "overview"), ("jobs", "job")):
        link = f'href="{reverse(f"admin:jobify_django_{name}_changelist")}"'
        assert (link in index) == (permission in PAGES[page])
