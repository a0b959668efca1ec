"""A stored value that nobody can read costs its own row some of its display, and nothing else anything."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from io import StringIO
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import DatabaseError, connection
from django.test import Client
from django.urls import reverse

from jobify_django import JobStatus, get_job, queue
from jobify_django.exceptions import JobFailed, JobifyError
from jobify_django.models import Job as Row
from jobify_django.models import Pool as PoolRow
from jobify_django.models import Queue as QueueRow
from jobify_django.models import QueueChange
from jobify_django.runtime import MACHINE
from jobify_django.stores.base import Store
from jobify_django.stores.database import DatabaseStore
from jobify_django.stores.value import JobQuery
from tests.child import PATIENCE, until
from tests.claims import claim as take
from tests.workshop import Configure, at_work, database, do, named, pushed

pytestmark = database

NOW = 1_700_000_000.0
STATUSES = [str(status) for status in JobStatus]
ENDED = ("successful", "failed", "cancelled")


@dataclass(frozen=True)
class Raw:
    """A value that only SQL can write."""

    sql: str
    vendor: str = "sqlite"


NOT_UTF8 = Raw("CAST(x'ff6f66' AS TEXT)")
A_BLOB = Raw("x'ff'")
ENTRY = {"attempt": 1, "reason": "r", "at": 1.0, "pool": "p", "charged": True}
DEEP = "[" * 100_000
TEXTS: Sequence[Any] = (
    "",
    "null",
    "true",
    "[]",
    "{}",
    "1",
    '"text"',
    "[",
    "[[[]]]",
    "[null]",
    DEEP,
    DEEP + "]" * 100_000,
    "1" * 6_000,
    '[{"attempt": 1}',
    "[1, 2]",
    "[{}, []]",
    '["ab", {}]',
    "[[], {}, 3]",
    '{"type": 5}',
    '{"type": 5, "message": {}}',
    '{"type": null, "message": {"a": 1}}',
    '{"type": "a", "message": "b", "traceback": 7}',
    r'{"type": "\ud800", "message": "\udcff", "traceback": "\ud800"}',
    r'"\ud800"',
    r'[["\ud800"], {}]',
    '[{"attempt": "x", "at": "y"}]',
    *(
        json.dumps([{**ENTRY, **wrong}, ENTRY])
        for wrong in (
            {"attempt": "x"},
            {"attempt": None},
            {"attempt": 1.5},
            {"reason": ["a"]},
            {"reason": "\ud800"},
            {"at": "y"},
            {"at": 1e300},
            {"at": -1e300},
            {"at": float("nan")},
            {"at": float("inf")},
            {"at": 10**400},
            {"pool": 7},
            {"charged": "no"},
        )
    ),
    "a\0b",
    NOT_UTF8,
    A_BLOB,
)
NAMES: Sequence[Any] = ("", "null", "[]", "<b>", "a b", "a\0b", NOT_UTF8)
TIMES: Sequence[Any] = (
    0.0,
    -1.0,
    1e300,
    -1e300,
    1e12,
    *(Raw(f"'{name}'::double precision", "postgresql") for name in ("NaN", "Infinity", "-Infinity")),
    Raw("'soon'"),
    Raw("9e999"),
    Raw("-9e999"),
    A_BLOB,
)
NUMBERS: Sequence[Any] = (0, 32_767, Raw("'many'"), Raw("1e300"), Raw("9e999"), A_BLOB)
HOSTILE: dict[str, Sequence[Any]] = {
    "id": ("", "null", "[]", "<b>", "a b", "a\0b"),
    "queue": NAMES,
    "task": NAMES,
    "pool": NAMES,
    "status": ("", "null", "expired", "a\0b", Raw("CAST(x'ff' AS TEXT)"), A_BLOB),
    "arguments": TEXTS,
    "result": (None, *TEXTS),
    "error": (None, *TEXTS),
    "history": (None, *TEXTS),
    "priority": (-32_768, *NUMBERS),
    "attempt": NUMBERS,
    "crashes": NUMBERS,
    "pushed_at": TIMES,
    "eligible_at": TIMES,
    "started_at": (None, *TIMES),
    "ended_at": (None, *TIMES),
    "lease_until": (None, *TIMES),
}

# Long lists of values, each in a job of the statuses that make a difference.
SHOWN = {
    "arguments": ["waiting", "failed"],
    "result": ["successful", "failed"],
    "error": ["failed"],
    "history": ["running", "failed"],
}


@pytest.fixture
def now() -> list[float]:
    return [NOW]


@pytest.fixture
def store(now: list[float], jobify: Configure) -> Store:
    return DatabaseStore("database", replace(MACHINE, clock=lambda: now[0]))


@pytest.fixture
def site(jobify: Configure) -> Client:
    """The browser of somebody who may see everything."""
    client = Client()
    client.force_login(User.objects.create_superuser("root"))
    return client


class Rows:
    """Jobs of which some hold a value that cannot be read."""

    def __init__(self) -> None:
        self._number = 0
        self.whole = {status: self._add(status) for status in STATUSES}
        self.broken: dict[str, str] = {}
        """The status of each broken job, by its id."""
        self.samples: dict[int, str] = {}
        """A broken job for each value."""

    def _add(self, status: str, **values: Any) -> str:
        self._number += 1
        id = f"0193a000-0000-7000-8000-{self._number:012d}"
        row = {
            "id": id,
            "queue": "default",
            "task": "tests.workshop.do",
            "arguments": "[[],{}]",
            "status": status,
            "sequence": self._number,
            "order_key": 0,
            "pushed_at": NOW - 60,
            "eligible_at": NOW + 60 if status == "delayed" else NOW - 60,
        }
        if status not in ("waiting", "delayed"):
            row |= {"attempt": 1, "started_at": NOW - 50, "pool": "p"}
        if status == "running":
            row["lease_until"] = NOW + 30
        if status in ENDED:
            row["ended_at"] = NOW - 40
        if status == "successful":
            row["result"] = "7"
        if status == "failed":
            row["error"] = '{"type": "a.B", "message": "whole"}'
        Row.objects.create(**row)
        return id

    def plant(self, column: str, statuses: Sequence[str] = ()) -> None:
        """Add a job of each of these statuses for each hostile value of a column that this database takes."""
        for number, value in enumerate(HOSTILE[column]):
            for status in statuses or SHOWN.get(column, STATUSES):
                id = self._add(status)
                # Ids are unique.
                suffix = f"{number}{status[:3]}" if column == "id" else ""
                if not write(Row, "id", id, column, f"{value}{suffix}" if suffix else value):
                    Row.objects.filter(id=id).delete()
                    continue
                id = f"{value}{suffix}" if suffix else id
                self.broken[id] = "" if column == "status" else status
                if number % len(STATUSES) == STATUSES.index(status) or number not in self.samples:
                    self.samples[number] = id
        assert self.broken

    def all(self) -> set[str]:
        return {*self.whole.values(), *self.broken}


def write(model: Any, key: str, id: object, column: str, value: Any) -> bool:
    """Write a value into a row; return whether this database takes it."""
    if isinstance(value, Raw) and value.vendor != connection.vendor:
        return False
    sql, values = (value.sql, []) if isinstance(value, Raw) else ("%s", [value])
    name = connection.ops.quote_name(column)
    statement = f"UPDATE {model._meta.db_table} SET {name} = {sql} WHERE {key} = %s"
    try:
        with connection.cursor() as cursor:
            cursor.execute(statement, [*values, id])
    except (DatabaseError, ValueError):
        return False
    return True


@pytest.fixture
def rows(jobify: Configure) -> Rows:
    return Rows()


columns = pytest.mark.parametrize("column", HOSTILE)


# Whoever looks


@columns
def test_a_store_returns_every_job(store: Store, rows: Rows, column: str) -> None:
    rows.plant(column)
    assert set(store.get(rows.all())) == rows.all()
    assert {record.id for record in store.query(JobQuery(limit=10_000))} == rows.all()
    for status in JobStatus:
        found = {record.id for record in store.query(JobQuery(status=status, limit=10_000))}
        assert found == {rows.whole[status], *(id for id, s in rows.broken.items() if s == status)}
    for id in rows.all():
        store.position(id)


@columns
def test_a_handle_tells_what_can_be_told(store: Store, rows: Rows, column: str) -> None:
    rows.plant(column)
    for id in rows.broken:
        job = get_job(id)
        assert (job.id, repr(job)) != ("", "")
        for name in ("task", "priority", "status", "attempts", "pushed_at", "started_at", "ended_at"):
            getattr(job, name)
        assert job.error is None or isinstance(job.error.message, str)
        for name in ("args", "kwargs"):
            with contextlib.suppress(JobifyError):
                getattr(job, name)
        with contextlib.suppress(JobifyError):
            job.result()


@columns
def test_stats_and_pools_are_counted(store: Store, rows: Rows, column: str, site: Client) -> None:
    rows.plant(column)
    stats = queue().stats()
    assert stats.waiting >= 1
    assert stats.oldest_wait < 1e12
    assert store.pools() == []


@columns
def test_every_page_of_the_admin_is_shown(store: Store, rows: Rows, column: str, site: Client) -> None:
    rows.plant(column)
    overview = site.get(reverse("admin:jobify_django_overview_changelist")).content.decode()
    assert "No job has failed." not in overview
    assert "cannot be read." not in overview
    assert site.get(reverse("admin:jobify_django_queue_change", args=["default"])).status_code == 200
    jobs = reverse("admin:jobify_django_job_changelist")
    for address in (jobs, f"{jobs}?status=failed", f"{jobs}?all="):
        assert site.get(address).status_code == 200
    for id in (rows.whole["failed"], *rows.samples.values()):
        if "\0" in id or not id.strip():
            continue  # no address
        page = site.get(reverse("admin:jobify_django_job_change", args=[quoted(id)]))
        assert page.status_code == 200, (id, page.content.decode()[-2_000:])


def quoted(id: str) -> str:
    from django.contrib.admin.utils import quote

    return quote(id)


@columns
def test_the_jobs_command_lists_and_shows_every_job(store: Store, rows: Rows, column: str) -> None:
    rows.plant(column)
    text = StringIO()
    call_command("jobs", "list", "--limit", "10000", "--format", "json", stdout=text)
    assert {row["id"] for row in json.loads(text.getvalue())} == rows.all()
    call_command("jobs", "list", "--limit", "10000", stdout=StringIO())
    call_command("jobs", "status", stdout=StringIO())
    for id in rows.samples.values():
        if id:
            shown = StringIO()
            call_command("jobs", "show", id, stdout=shown)
            shown.getvalue().encode()


# Whoever changes


@columns
def test_leases_are_renewed_and_what_ran_out_is_rescued(
    store: Store, rows: Rows, column: str, now: list[float]
) -> None:
    rows.plant(column, ["running"])
    running = {id for id, status in rows.broken.items() if status == "running"}
    renewed = store.renew("p", dict.fromkeys([rows.whole["running"], *running], 1), 30.0)
    assert rows.whole["running"] not in renewed.lost
    now[0] += 100
    rescued = {one.id for one in store.rescue(10_000, max_lease_left=60.0)}
    assert rows.whole["running"] in rescued
    if column not in ("lease_until", "attempt"):
        assert rescued == {rows.whole["running"], *running}
    records = store.get(rescued)
    assert {record.status for record in records.values()} <= {JobStatus.WAITING, JobStatus.FAILED}
    assert all(record.history[-1].reason == "its worker's lease ran out" for record in records.values())
    assert not store.rescue(10_000, max_lease_left=60.0)


@columns
def test_jobs_are_cancelled_retried_and_pruned(
    store: Store, rows: Rows, column: str, now: list[float]
) -> None:
    rows.plant(column)
    ids = rows.all()
    before = store.cancel(ids)
    assert set(before) == ids
    records = store.get(ids)
    for id, status in rows.broken.items():
        if status in ("waiting", "delayed"):
            assert records[id].status is JobStatus.CANCELLED
        if not status:
            assert records[id].status == before[id]
    retried = set(store.retry(ids))
    assert retried == {id for id, record in records.items() if record.status in ("failed", "cancelled")}
    assert {record.status for record in store.get(retried).values()} == {JobStatus.WAITING}
    now[0] += 10_000
    assert store.prune(older_than=1.0, failed_older_than=1.0, limit=10_000) >= 1


@columns
def test_the_admins_actions_act_on_every_job(rows: Rows, column: str, site: Client) -> None:
    rows.plant(column)
    jobs = reverse("admin:jobify_django_job_changelist")
    for action in ("cancel_jobs", "retry_jobs"):
        chosen = {"action": action, "_selected_action": [rows.whole["waiting"]], "select_across": "1"}
        assert site.post(jobs, chosen, follow=True).status_code == 200
    assert Row.objects.filter(id=rows.whole["failed"]).values_list("status", flat=True)[0] == "waiting"


# Whoever claims


@columns
def test_a_claim_takes_the_jobs_that_can_be_run(
    store: Store, rows: Rows, column: str, now: list[float]
) -> None:
    rows.plant(column, ["waiting", "delayed"])
    now[0] += 1_000
    mine: set[str] = set()
    while claims := take(store, 50, pool="me", lease=30.0):
        mine |= {claim.id for claim in claims}
        assert all(isinstance(claim.arguments, str) and isinstance(claim.task, str) for claim in claims)
    assert {rows.whole["waiting"], rows.whole["delayed"]} <= mine
    if column == "status":
        assert not mine & rows.broken.keys()
    elif column not in ("queue", "crashes", "eligible_at"):
        assert rows.broken.keys() <= mine


def plant_arguments(values: Sequence[Any]) -> list[str]:
    ids = []
    for value in values:
        id = pushed(lambda: None).id
        if write(Row, "id", id, "arguments", value):
            ids.append(id)
        else:
            get_job(id).cancel()
    return ids


def test_a_job_whose_arguments_cannot_be_read_is_failed_with_the_reason(jobify: Configure) -> None:
    ids = plant_arguments([text for text in TEXTS if text != r'[["\ud800"], {}]'])
    whole = pushed(lambda: 7)
    with at_work():
        assert whole.wait(timeout=PATIENCE) is None
        until(lambda: not Row.objects.filter(status__in=("waiting", "running")).exists(), "their end")
    for id in ids:
        job = get_job(id)
        assert job.attempts == 1
        with pytest.raises(JobFailed, match="stored arguments of this job cannot be read"):
            job.result()


def test_a_job_of_a_status_of_a_newer_release_is_left_alone(jobify: Configure) -> None:
    job = pushed(lambda: None)
    Row.objects.update(status="expired")
    whole = pushed(lambda: 7)
    with at_work():
        whole.wait(timeout=PATIENCE)
    job.refresh()
    assert (str(job.status), job.attempts) == ("expired", 0)
    with pytest.raises(JobifyError, match="'expired', which this version does not know"):
        job.result()
    assert not job.status.ended


def test_a_wrong_status_is_no_status(jobify: Configure) -> None:
    pushed(lambda: None)
    Row.objects.update(status="expired")
    get_job(Row.objects.get().id)
    with pytest.raises(ValueError, match="expired"):
        JobStatus("expired")


def test_a_result_that_cannot_be_read_is_told_as_such(jobify: Configure) -> None:
    job = pushed(lambda: 7)
    with at_work():
        job.wait(timeout=PATIENCE)
    Row.objects.update(result="{")
    job.refresh()
    with pytest.raises(JobifyError, match=r"result .*cannot be read"):
        job.result()


# What is shown of it


def record_of(column: str, value: Any, store: Store) -> Any:
    rows = Rows()
    write(Row, "id", rows.whole["failed"], column, value)
    return store.get([rows.whole["failed"]])[rows.whole["failed"]]


def test_an_error_that_cannot_be_read_is_named_so(store: Store, rows: Rows) -> None:
    id = rows.whole["failed"]
    for text in TEXTS:
        if isinstance(text, Raw) or r'"\udcff"' in text or not write(Row, "id", id, "error", text):
            continue
        error = store.get([id])[id].error
        assert error is not None
        assert error.message.startswith(f"an error that cannot be read: {text[:2]}")
        assert len(error.message) < 3_000


def test_an_entry_of_the_history_that_cannot_be_read_is_named_between_the_others(store: Store) -> None:
    text = json.dumps([ENTRY, {**ENTRY, "at": "y"}, {**ENTRY, "attempt": 3}])
    history = record_of("history", text, store).history
    assert [entry.attempt for entry in history] == [1, 0, 3]
    assert "cannot be read" in history[1].reason
    assert history[1].charged is False


def test_a_history_that_is_no_list_is_named_and_begun_anew(store: Store, now: list[float]) -> None:
    for text in ("", "{", "null", "[]"):
        rows = Rows()
        write(Row, "id", rows.whole["failed"], "history", text)
        (entry,) = store.get([rows.whole["failed"]])[rows.whole["failed"]].history or (None,)
        assert (entry is None) == (text == "[]") or "cannot be read" in entry.reason
        store.retry([rows.whole["failed"]])
        (entry,) = store.get([rows.whole["failed"]])[rows.whole["failed"]].history
        assert entry.reason == "retried by hand"
        Row.objects.all().delete()


def test_the_page_of_a_job_says_what_cannot_be_read(store: Store, rows: Rows, site: Client) -> None:
    id = rows.whole["failed"]
    Row.objects.filter(id=id).update(error="{", history='[{"attempt": 5}]', arguments="{")
    page = site.get(reverse("admin:jobify_django_job_change", args=[quoted(id)])).content.decode()
    assert page.count("cannot be read") == 3
    Row.objects.filter(id=id).update(status="expired")
    page = site.get(reverse("admin:jobify_django_job_change", args=[quoted(id)])).content.decode()
    assert "unknown status" in page


# Queues


LIVE: dict[str, Sequence[Any]] = {
    "workers": (0, 1_001, 2_000_000_000, Raw("'many'"), Raw("2.5"), A_BLOB),
    "maxsize": (0, 10_000_001, 2_000_000_000, Raw("'many'"), Raw("2.5"), A_BLOB),
    "order": ("fair", "null", "[]", "a\0b", Raw("CAST(x'ff' AS TEXT)"), A_BLOB),
    "version": (2_000_000_000, Raw("'new'"), A_BLOB),
}
live = pytest.mark.parametrize(
    ("column", "value"), [(column, value) for column, values in LIVE.items() for value in values]
)


@live
def test_a_live_value_out_of_range_leaves_it_to_the_settings(
    jobify: Configure, site: Client, column: str, value: Any
) -> None:
    jobify(WORKERS=3, MAXSIZE=5, ORDER="fifo")
    queue().tune(workers=2, maxsize=4, order="lifo")
    if not write(QueueRow, "name", "default", column, value):
        pytest.skip("this database does not take it")
    state = queue().stats().state
    wanted = {"workers": 2, "maxsize": 4, "order": "lifo", "version": state.version}
    if column != "version":
        wanted[column] = None
    assert {key: getattr(state, key) for key in wanted} == wanted
    jobs = do.push_many([(named(lambda: 7),)] * 2)
    with at_work() as shop:
        for job in jobs:
            job.wait(timeout=PATIENCE)
        assert shop.pool.slots["default"].size == (wanted["workers"] or 3)
    for name in ("overview_changelist", "queue_change"):
        page = reverse(f"admin:jobify_django_{name}", args=["default"] if name == "queue_change" else [])
        assert site.get(page).status_code == 200
    if column == "version":
        return
    queue().tune(workers=1)
    assert queue().stats().workers == 1


@pytest.mark.parametrize("value", [0, 10_000_001, Raw("'many'")])
def test_a_push_goes_by_the_settings_where_the_live_bound_is_out_of_range(
    jobify: Configure, value: Any
) -> None:
    from django.db import transaction

    jobify(MAXSIZE=2, PUSH_TIMEOUT=0)
    queue().tune(maxsize=1)
    if not write(QueueRow, "name", "default", "maxsize", value):
        pytest.skip("this database does not take it")
    pushed(lambda: None)
    with transaction.atomic():
        pushed(lambda: None)
    with pytest.raises(JobifyError, match="full"):
        pushed(lambda: None)


@pytest.mark.parametrize("column", ["before", "after"])
def test_a_change_that_cannot_be_read_is_shown_among_the_others(
    jobify: Configure, site: Client, column: str
) -> None:
    queue().tune(workers=2)
    queue().tune(workers=3)
    change = QueueChange.objects.latest("id")
    for text in TEXTS:
        if write(QueueChange, "id", change.pk, column, text):
            page = site.get(reverse("admin:jobify_django_queue_change", args=["default"])).content.decode()
            assert "as in the settings → 2" in page
            assert len(page) < 60_000


# Pools


def a_pool(store: Store, **values: Any) -> None:
    served = {"default": {"workers": 1, "busy": 0, "version": 0}}
    row = {"host": "h", "pid": 1, "kind": "code", "started_at": 0, "queues": json.dumps(served)}
    PoolRow.objects.create(**{"seen_at": store.clock(), **row, **values})


POOLS: dict[str, Sequence[Any]] = {
    "queues": (
        *TEXTS,
        '{"default": 7}',
        '{"default": {"workers": "x", "busy": 0, "version": 0}}',
        '{"default": {"workers": 1, "busy": null, "version": 0}}',
        '{"default": {}}',
        r'{"\ud800": {"workers": 1, "busy": 0, "version": 0}}',
    ),
    "host": NAMES,
    "kind": NAMES,
    "started_at": TIMES,
    "pid": (0, Raw("'x'"), A_BLOB),
}


@pytest.mark.parametrize("column", POOLS)
def test_a_pool_that_cannot_be_read_hides_no_other(
    jobify: Configure, site: Client, rows: Rows, column: str
) -> None:
    store = queue().store
    a_pool(store, id="whole")
    planted = 0
    for number, value in enumerate(POOLS[column]):
        a_pool(store, id=f"odd{number}")
        if write(PoolRow, "id", f"odd{number}", column, value):
            planted += 1
        else:
            PoolRow.objects.filter(id=f"odd{number}").delete()
    assert planted
    assert len(store.pools()) == planted + 1
    assert "whole" in {pool.id for pool in queue().stats().pools}
    for name in ("overview_changelist", "queue_change"):
        page = reverse(f"admin:jobify_django_{name}", args=["default"] if name == "queue_change" else [])
        assert "whole" in site.get(page).content.decode()
    call_command("jobs", "status", stdout=StringIO())
    out = StringIO()
    with contextlib.suppress(CommandError):  # tasks that other tests have declared may name other queues
        call_command("jobs", "doctor", stdout=out)
    assert [line for line in out.getvalue().splitlines() if line.startswith("FAIL  queue")] == []
    assert "queue default: " in out.getvalue()


def test_a_pool_of_a_newer_release_still_serves_the_queues_that_it_names(jobify: Configure) -> None:
    store = queue().store
    a_pool(store, id="newer", queues='{"default": {"slots": 4, "busy": [1, 2]}}')
    (pool,) = queue().stats().pools
    assert (pool.id, pool.queues["default"].workers) == ("newer", 0)
