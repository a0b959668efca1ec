"""Jobs of a queue that was taken out of the settings, or in the store that their queue has left."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Collection, Iterator
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.core.management import CommandError, call_command
from django.db import connection, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

from jobify_django import Job, JobNotFound, JobStatus, StoreError, UnknownQueue, aget_job, get_job, task
from jobify_django.asgi import lifespan
from jobify_django.job import JobSpec, new_id
from jobify_django.models import Job as Row
from jobify_django.pool import serving
from jobify_django.pool.unconfigured_watch import UnconfiguredWatch
from jobify_django.runtime import MACHINE
from jobify_django.stores import every_store, stores
from jobify_django.stores.base import Store
from jobify_django.stores.memory import MemoryStore
from jobify_django.stores.value import PoolQueue, PoolRecord
from jobify_django.testing import FakeClock
from jobify_django.testing.conformance.ground import Ground, a_queue
from tests.child import Child, until
from tests.test_lifespan import Host, forbidden
from tests.workshop import only_these_tasks

pytestmark = pytest.mark.django_db(transaction=True)


@task
def add(a: int, b: int = 2) -> int:
    return a + b


@pytest.fixture(autouse=True)
def only_the_tasks_of_this_module() -> Iterator[None]:
    with only_these_tasks(add):
        yield


@pytest.fixture(params=["taken out", "moved", "all moved"])
def change(request: Any) -> dict[str, Any]:
    """What becomes of the settings: the queue "old" is taken out, or it, or every queue, goes elsewhere."""
    changes: dict[str, Any] = {
        "taken out": {},
        "moved": {"QUEUES": {"old": {"STORE": "memory"}}},
        "all moved": {"STORE": "memory", "QUEUES": {"old": {}}},
    }
    chosen: dict[str, Any] = changes[request.param]
    return chosen


@pytest.fixture
def old(settings: Any, change: dict[str, Any]) -> list[Job[int]]:
    """Three jobs of the queue "old", the last one delayed, from before the settings changed."""
    settings.JOBIFY = {"QUEUES": {"old": {}}}
    pushed = [*add.using(queue="old").push_many([(1,), (2,)]), add.using(queue="old", delay=600).push(3)]
    settings.JOBIFY = change
    return pushed


def jobs(*arguments: str) -> str:
    out = StringIO()
    call_command("jobs", *arguments, stdout=out)
    return out.getvalue().strip()


def statuses(pushed: Collection[Job[int]]) -> list[str]:
    return [Row.objects.get(pk=job.id).status for job in pushed]


def end(job: Job[int], status: str = "failed") -> None:
    Row.objects.filter(pk=job.id).update(status=status, ended_at=1.0, attempt=1)


def report(store: Store, *queues: str) -> None:
    """Say what a pool says of itself while it lives."""
    store.heartbeat(
        PoolRecord("p", "elsewhere", 1, "code", 0.0, {name: PoolQueue(1, 0, 0) for name in queues})
    )


# Stores


def test_the_database_store_is_looked_into_while_it_has_tables(settings: Any) -> None:
    settings.JOBIFY = {"STORE": "memory"}
    assert list(every_store()) == [stores["memory"], stores["database"]]

    settings.JOBIFY = {"QUEUES": {"visits": {"STORE": "memory"}}}
    assert list(every_store()) == [stores["database"], stores["memory"]]

    settings.JOBIFY = {"STORE": "memory", "DATABASE": "no such alias"}
    assert list(every_store()) == [stores["memory"]]


def test_a_database_without_tables_spoils_no_transaction(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.JOBIFY = {"STORE": "memory"}
    monkeypatch.setattr(type(connection.introspection), "table_names", lambda *args, **options: ["others"])

    with transaction.atomic():
        with pytest.raises(JobNotFound):
            get_job("nobody")
        assert Row.objects.count() == 0


@pytest.mark.skipif(connection.vendor != "sqlite", reason="about SQLite's files")
def test_looking_makes_no_database_file(
    settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.JOBIFY = {"STORE": "memory"}
    connection.close()
    monkeypatch.setitem(connection.settings_dict, "NAME", tmp_path / "none.sqlite3")

    assert list(every_store()) == [stores["memory"]]

    assert list(tmp_path.iterdir()) == []


def test_a_store_that_a_subclass_leads_to_is_looked_into_once(settings: Any) -> None:
    settings.JOBIFY = {"STORE": "tests.workshop.FaultyDatabase"}

    assert [store.alias for store in every_store()] == ["tests.workshop.FaultyDatabase"]


def test_a_store_of_ones_own_tells_its_queues_by_its_other_reads() -> None:
    class Own(MemoryStore):
        queues = Store.queues

    store = Own(runtime=FakeClock().runtime())
    ground = Ground()
    for name, options in (("a", {}), ("b", {"delay": 60})):
        store.add(a_queue(name), [ground.spec(**options)])

    assert store.is_set_up()
    assert store.queues() == {"a", "b"}


# The command line


def test_status_shows_queues_that_the_settings_do_not_look_for(
    old: list[Job[int]], change: dict[str, Any]
) -> None:
    note = "now in store memory" if change else "not in settings"
    rows = json.loads(jobs("status", "--format", "json"))

    (row,) = [row for row in rows if "note" in row]
    assert (row["queue"], row["store"], row["note"]) == ("old", "database", note)
    assert (row["waiting"], row["delayed"], row["running"], row["pools"]) == (2, 1, 0, 0)
    assert note in jobs("status")


def test_status_looks_as_ever_where_nothing_is_left_over(settings: Any) -> None:
    settings.JOBIFY = {}

    assert "note" not in jobs("status")
    assert not any("note" in row for row in json.loads(jobs("status", "--format", "json")))


def test_jobs_are_listed_shown_and_filtered_by_what_the_stores_hold(old: list[Job[int]]) -> None:
    ids = {job.id for job in old}

    for arguments in ((), ("--queue", "old"), ("--store", "database")):
        listed = json.loads(jobs("list", "--format", "json", *arguments))
        assert {row["id"] for row in listed} == ids
    assert json.loads(jobs("show", old[0].id))["queue"] == "old"


def test_jobs_of_several_stores_are_listed_newest_first(settings: Any) -> None:
    settings.JOBIFY = {"QUEUES": {"old": {}}}
    clock = FakeClock()
    pushed = []
    for store in ("database", "memory", "database"):
        settings.JOBIFY = {"QUEUES": {"old": {"STORE": store}, "kept": {"STORE": "memory"}}}
        stores[store].clock = clock
        clock.advance(1)
        pushed.append(add.using(queue="old" if store == "database" else "kept").push(1).id)
        if store == "memory":
            break

    assert [row["id"] for row in json.loads(jobs("list", "--format", "json"))] == pushed[::-1]


def test_a_queue_that_has_only_ended_jobs_left_is_no_misspelt_one(old: list[Job[int]]) -> None:
    for job in old:
        end(job)

    assert jobs("list", "--queue", "old", "--status", "waiting").split()[-1] == "pushed_at"
    with pytest.raises(CommandError, match=r"no queue 'odl'"):
        jobs("list", "--queue", "odl")


def test_a_store_that_holds_no_jobs_is_named(settings: Any) -> None:
    settings.JOBIFY = {"STORE": "memory"}

    with pytest.raises(CommandError, match="'redis': there is memory and database"):
        jobs("list", "--store", "redis")


def test_a_job_is_cancelled_by_its_id(old: list[Job[int]]) -> None:
    assert jobs("cancel", old[0].id) == "1 cancelled, 0 running asked to end, 0 had ended"

    assert statuses(old) == ["cancelled", "waiting", "delayed"]


@pytest.mark.parametrize("filters", [("--queue", "old"), ("--task", add.name), ("--store", "database")])
def test_jobs_are_cancelled_by_filters(old: list[Job[int]], filters: tuple[str, ...]) -> None:
    assert jobs("cancel", *filters, "--yes") == "3 cancelled, 0 running asked to end, 0 had ended"

    assert statuses(old) == ["cancelled"] * 3


def test_jobs_of_a_queue_that_is_gone_do_not_stop_the_others(settings: Any) -> None:
    settings.JOBIFY = {"QUEUES": {"old": {}}}
    pushed = [add.push(1), add.using(queue="old").push(2)]
    settings.JOBIFY = {}

    assert jobs("cancel", "--status", "waiting", "--yes").startswith("2 cancelled")

    assert statuses(pushed) == ["cancelled", "cancelled"]


def test_an_id_that_nobody_knows_does_not_stop_the_others(old: list[Job[int]]) -> None:
    out = StringIO()

    with pytest.raises(CommandError, match="1 left alone: no store holds a job 'nobody'"):
        call_command("jobs", "cancel", old[0].id, "nobody", old[1].id, stdout=out)

    assert out.getvalue().strip() == "2 cancelled, 0 running asked to end, 0 had ended, 1 left alone"
    assert statuses(old)[:2] == ["cancelled", "cancelled"]


def test_a_job_that_nobody_would_run_is_not_retried(settings: Any, old: list[Job[int]]) -> None:
    kept = add.push(1)
    end(old[0])
    kept.cancel()
    out = StringIO()

    with pytest.raises(CommandError, match=r"1 left alone: queue 'old' is .*no live pool serves it"):
        call_command("jobs", "retry", "--task", add.name, "--yes", stdout=out)

    assert out.getvalue().strip() == "1 retried, 0 were not failed or cancelled, 1 left alone"
    assert statuses(old)[0] == "failed"
    assert get_job(kept.id).status is JobStatus.WAITING


def test_a_job_is_retried_where_a_process_with_other_settings_serves_its_queue(old: list[Job[int]]) -> None:
    end(old[0])
    report(stores["database"], "old")

    assert jobs("retry", old[0].id) == "1 retried, 0 were not failed or cancelled"


def test_jobs_in_one_store_are_left_alone_where_another_is_meant(settings: Any) -> None:
    settings.JOBIFY = {"QUEUES": {"old": {}}}
    left = add.using(queue="old").push(1)
    settings.JOBIFY = {"QUEUES": {"old": {"STORE": "memory"}}}
    live = add.using(queue="old").push(2)

    assert jobs("cancel", "--queue", "old", "--store", "database", "--yes").startswith("1 cancelled")

    assert (get_job(left.id).status, get_job(live.id).status) == (JobStatus.CANCELLED, JobStatus.WAITING)


def test_prune_deletes_in_every_store(old: list[Job[int]]) -> None:
    end(old[0], "successful")

    assert jobs("prune") == "1 jobs deleted"


def test_the_doctor_names_queues_that_nobody_looks_for(old: list[Job[int]]) -> None:
    report_of_doctor = jobs("doctor")

    (line,) = [line for line in report_of_doctor.splitlines() if "queue old (" in line]
    assert line.startswith("WARN")
    assert "0 pools alive, 2 jobs wait, 1 are delayed and 0 run in store database" in line
    assert "manage.py jobs cancel --queue old --store database --yes" in line


def test_the_doctor_knows_that_others_may_serve_it(old: list[Job[int]]) -> None:
    report(stores["database"], "old")

    assert "PASS  queue old (" in jobs("doctor")


# Handles


def test_a_job_is_found_waited_for_and_cancelled_wherever_it_is(old: list[Job[int]]) -> None:
    job = get_job(old[0].id)
    assert job.queue == "old"
    assert job.cancel()
    job.wait(timeout=5)
    assert async_to_sync(_status)(old[0].id) is JobStatus.CANCELLED


async def _status(id: str) -> JobStatus:
    job = await aget_job(id)
    await job.wait(timeout=5)
    return job.status


def test_where_no_database_may_be_asked_a_job_is_unknown_as_ever(
    settings: Any, django_db_blocker: Any
) -> None:
    settings.JOBIFY = {"STORE": "memory"}

    async def look() -> None:
        with pytest.raises(JobNotFound):
            get_job("nobody")  # Django refuses its databases where an event loop runs

    asyncio.run(look())
    with django_db_blocker.block(), pytest.raises(JobNotFound):
        get_job("nobody")


def test_a_push_to_a_queue_that_is_gone_is_refused(settings: Any) -> None:
    settings.JOBIFY = {}

    with pytest.raises(UnknownQueue):
        add.using(queue="old").push(1)


# Pools


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [one.getMessage() for one in caplog.records if "event=unserved" in one.getMessage()]


def test_workers_say_that_jobs_wait_where_nobody_looks(
    old: list[Job[int]], caplog: pytest.LogCaptureFixture
) -> None:
    async def serve() -> None:
        async with serving():
            await asyncio.to_thread(until, lambda: bool(warnings(caplog)))

    asyncio.run(serve())

    (line,) = warnings(caplog)
    assert "event=unserved queue=old store=database waiting=2 delayed=1: this process's settings " in line
    assert line.endswith("manage.py jobs cancel --queue old --store database --yes")


def test_workers_inside_the_web_process_say_it_too(settings: Any, caplog: pytest.LogCaptureFixture) -> None:
    settings.JOBIFY = {"QUEUES": {"old": {}}}
    add.using(queue="old").push(1)
    settings.JOBIFY = {"STORE": "memory", "GRACE": 0.1}

    async def live() -> None:
        host = Host(lifespan(forbidden))
        await host.tell("startup")
        await asyncio.to_thread(until, lambda: bool(warnings(caplog)))
        await host.tell("shutdown")
        await host.task

    asyncio.run(live())

    assert "queue=old store=database waiting=1" in caplog.text


@pytest.mark.servers
@pytest.mark.parametrize("arguments", [(), ("--processes", "2")], ids=["alone", "processes"])
def test_runjobs_says_it_once(
    settings: Any, child_environment: dict[str, str], arguments: tuple[str, ...]
) -> None:
    settings.JOBIFY = {"QUEUES": {"old": {}}}
    add.using(queue="old").push(1)
    changed = {"DJANGO_SETTINGS_MODULE": "tests.servers.settings", "TEST_JOBIFY": "{}"}

    with Child(["-m", "django", "runjobs", "--batch", *arguments], {**child_environment, **changed}) as child:
        assert child.end() == 0

    assert child.output.count("event=unserved queue=old store=database waiting=1") == 1


@pytest.mark.parametrize("change", [{}], ids=["taken out"], indirect=False)
def test_jobs_run_once_the_settings_are_as_they_were(settings: Any, old: list[Job[int]]) -> None:
    settings.JOBIFY = {"QUEUES": {"old": {}}}

    async def serve() -> None:
        async with serving(["old"]) as service:
            await service.until_idle()

    asyncio.run(serve())

    assert statuses(old) == ["successful", "successful", "delayed"]


def test_a_part_that_is_left_to_others_is_no_reason_to_warn(
    settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    settings.JOBIFY = {"QUEUES": {"others": {}}}
    add.using(queue="others").push(1)

    UnconfiguredWatch([stores["database"]]).check()

    assert warnings(caplog) == []


def test_a_queue_that_a_newer_release_serves_is_no_reason_to_warn(
    old: list[Job[int]], caplog: pytest.LogCaptureFixture
) -> None:
    report(stores["database"], "old")

    UnconfiguredWatch([]).check()

    assert warnings(caplog) == []


def test_a_queue_is_said_once_and_again_when_it_was_gone(
    old: list[Job[int]], caplog: pytest.LogCaptureFixture
) -> None:
    watch = UnconfiguredWatch([stores["database"]])
    watch.check()
    watch.check()
    assert len(warnings(caplog)) == 1

    Row.objects.update(status="cancelled", ended_at=1.0)
    watch.check()
    Row.objects.update(status="waiting", ended_at=None)
    watch.check()
    assert len(warnings(caplog)) == 2


def test_a_store_that_is_away_keeps_nobody_from_looking_into_the_others(
    settings: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.JOBIFY = {"QUEUES": {"visits": {"STORE": "memory"}}}
    stores["memory"].add(a_queue("old"), [JobSpec(new_id(), add.name, "[[1],{}]")])

    def away() -> Collection[str]:
        raise StoreError("the database is away.")

    monkeypatch.setattr(stores["database"], "queues", away)

    UnconfiguredWatch([]).check()

    (line,) = warnings(caplog)
    assert "queue=old store=memory" in line


def test_no_room_for_its_thread_keeps_no_worker_from_starting(
    settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    class Refused(threading.Thread):
        def start(self) -> None:
            raise RuntimeError("can't start new thread")

    settings.JOBIFY = {}
    watch = UnconfiguredWatch([], replace(MACHINE, thread=Refused))
    watch.start()
    watch.stop()
    watch.join()

    assert "event=upkeep-failed" in caplog.text


def test_a_bug_is_no_end_of_the_looking(
    old: list[Job[int]], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = stores["database"]
    looks = iter([RuntimeError("a bug"), None])
    real = store.queues

    def queues() -> Collection[str]:
        if (error := next(looks, None)) is not None:
            raise error
        return real()

    monkeypatch.setattr(store, "queues", queues)
    monkeypatch.setattr("jobify_django.pool.unconfigured_watch.CHECK_EVERY", 0.01)
    watch = UnconfiguredWatch([])
    watch.start()
    until(lambda: bool(warnings(caplog)))
    watch.stop()
    watch.join()

    assert "event=upkeep-failed error='a bug'" in caplog.text


def test_running_jobs_of_a_dead_pool_are_rescued_although_their_queue_is_gone(
    settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    settings.JOBIFY = {"QUEUES": {"old": {}}}
    job = add.using(queue="old").push(1)
    Row.objects.update(status="running", attempt=1, pool="dead", started_at=1.0, lease_until=2.0)
    settings.JOBIFY = {"LEASE": 1}  # a pool that starts rescues a third of it later

    async def serve() -> None:
        async with serving():
            await asyncio.to_thread(until, lambda: f"event=rescued id={job.id}" in caplog.text)

    asyncio.run(serve())
    assert get_job(job.id).status is JobStatus.WAITING


def test_running_jobs_of_a_dead_pool_are_rescued_from_a_store_that_has_no_pool_left(
    settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    settings.JOBIFY = {}
    job = add.push(1)
    Row.objects.update(status="running", attempt=1, pool="dead", started_at=1.0, lease_until=2.0)
    settings.JOBIFY = {"STORE": "memory"}
    watch = UnconfiguredWatch([stores["memory"]])

    watch.check()
    assert get_job(job.id).status is JobStatus.RUNNING  # a pool that was away would come back first
    watch.check()

    assert get_job(job.id).status is JobStatus.WAITING
    assert f"event=rescued id={job.id}" in caplog.text
    assert "event=unserved queue=default store=database waiting=1" in caplog.text


def test_looking_leaves_no_connection_behind(old: list[Job[int]]) -> None:
    made: list[BaseDatabaseWrapper] = []

    def note(connection: BaseDatabaseWrapper, **named: object) -> None:
        if threading.current_thread().name == "jobify-upkeep-unserved":
            made.append(connection)

    connection_created.connect(note)
    try:
        watch = UnconfiguredWatch([])
        watch.start()
        watch.stop()  # after the look that is under way
        until(lambda: made and not any(one.connection for one in made), "the end of the connections")
        watch.join()
    finally:
        connection_created.disconnect(note)

    assert [one.connection for one in made] == [None] * len(made)
