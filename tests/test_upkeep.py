"""What a pool does beside claiming: while the store refuses some of it, and when there is a lot of it."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Sequence
from typing import Any

import pytest

from jobify_django import JobStatus, queue
from jobify_django.job import JobSpec, new_id
from jobify_django.pool import upkeep
from jobify_django.stores.database import DatabaseStore
from jobify_django.stores.memory import MemoryStore
from jobify_django.stores.value import PoolQueue, PoolRecord, Rescued
from tests.child import PATIENCE, until
from tests.claims import claim, die
from tests.workshop import Configure, Workshop, at_work, both, do, faulty, held, named, pushed, trouble


@faulty
def test_a_chore_that_fails_among_others_that_work_is_reported_once(
    jobify: Configure, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # As on a full disk: reading goes on, writing does not.
    for name in ("HEARTBEAT_EVERY", "TUNE_EVERY", "RESCUE_EVERY", "RETRY_AFTER"):
        monkeypatch.setattr(upkeep, name, 0.01)
    jobify()
    with caplog.at_level(logging.DEBUG, "jobify.worker"), at_work():
        trouble.break_down("heartbeat")
        until(lambda: trouble.met["heartbeat"] >= 5, "five tries")
        trouble.clear()
    failures = [record.levelno for record in caplog.records if "event=upkeep-failed" in record.message]
    assert len(failures) >= 5
    assert failures.count(logging.WARNING) == 1


class Endless(MemoryStore):
    """A store in which there is always more to prune and to rescue than one batch."""

    pruned = threading.Event()

    def prune(self, *, older_than: float, failed_older_than: float, limit: int = 500) -> int:
        Endless.pruned.set()
        return limit

    def rescue(self, limit: int = 500, **known: Any) -> Sequence[Rescued]:
        return [Rescued(new_id(), "default", "a.task", 1, "dead-pool", JobStatus.WAITING)] * limit


def test_leases_are_renewed_however_much_there_is_to_prune_and_to_rescue(
    jobify: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "PRUNE_BATCH", 1)
    monkeypatch.setattr(upkeep, "RESCUE_BATCH", 1)
    monkeypatch.setattr(upkeep.logger.logger, "disabled", True)
    monkeypatch.setattr(upkeep, "RESCUE_EVERY", 0.05)
    Endless.pruned.clear()
    jobify(STORE="tests.test_upkeep.Endless", LEASE=1)
    job, gate = held()
    with at_work():
        gate.reached()
        assert Endless.pruned.wait(PATIENCE)
        for _ in range(2):
            lease = job.record().lease_until
            until(lambda lease=lease: job.record().lease_until > lease, "the renewal")
        gate.open()
        job.wait(timeout=PATIENCE)


@both
def test_a_great_many_jobs_of_dead_pools_are_rescued_in_one_go(
    jobify: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobify(MAXSIZE=1000, WORKERS=4, LEASE=1)  # a pool that starts looks on for a third of it
    monkeypatch.setattr(upkeep, "RESCUE_BATCH", 20)
    name = named(lambda: None)
    jobs = do.push_many([(name,)] * 150)
    store = queue().store
    # Leases that hold stand first in every list but one that goes by the lease's end.
    claim(store, 50, pool="living-pool", lease=3600.0)
    die(store, 100)
    monkeypatch.setattr(upkeep, "RESCUE_EVERY", 3600.0)
    with at_work():
        for job in jobs[50:]:
            job.wait(timeout=PATIENCE)
    records = store.get([job.id for job in jobs]).values()
    assert [(one.attempt, one.status) for one in records if one.pool == "living-pool"] == [
        (1, JobStatus.RUNNING)
    ] * 50
    assert sum(one.attempt == 2 and one.crashes == 1 for one in records) == 100


class Stuck(DatabaseStore):
    """A store whose claims do not come back, as behind a lock, until the test says so."""

    stuck, go = threading.Event(), threading.Event()

    def claim(self, *given: Any, **named: Any) -> Any:
        claimed = super().claim(*given, **named)
        if not claimed.claims:
            Stuck.stuck.set()
            Stuck.go.wait(PATIENCE)
        return claimed


@pytest.mark.django_db(transaction=True)
def test_leases_are_renewed_while_a_claim_hangs(jobify: Configure) -> None:
    Stuck.stuck.clear()
    Stuck.go.clear()
    jobify(STORE="tests.test_upkeep.Stuck", LEASE=1, WORKERS=2)
    job, gate = held()
    with at_work():
        gate.reached()
        assert Stuck.stuck.wait(PATIENCE)
        try:
            for _ in range(2):
                lease = job.record().lease_until
                until(lambda lease=lease: job.record().lease_until > lease, "the renewal")
        finally:
            Stuck.go.set()
        gate.open()
        job.wait(timeout=PATIENCE)
    assert job.record().attempt == 1


@both
def test_a_new_process_with_a_dead_ones_name_and_number_does_not_keep_its_jobs(jobify: Configure) -> None:
    jobify(LEASE=1)
    job = pushed(lambda: "at last")
    store = queue().store
    serves = {"default": PoolQueue(1, 1, 0)}
    store.heartbeat(PoolRecord("dead-pool", socket.gethostname(), os.getpid(), "code", 1.0, serves))
    claim(store, pool="dead-pool", lease=1.0)
    with at_work():
        assert job.wait(timeout=PATIENCE) is None
    assert (job.result(), job.record().attempt, job.record().crashes) == ("at last", 2, 1)


@both
def test_the_jobs_of_a_pool_that_nobody_remembers_are_rescued(jobify: Configure) -> None:
    queue_, store = queue().settings, queue().store
    spec = JobSpec(new_id(), do.name, f'[["{named(lambda: 1)}"],{{}}]')
    store.add(queue_, [spec])
    die(store)
    store.retire("dead-pool")
    assert [one.id for one in store.rescue()] == [spec.id]


# What an idle pool asks for


def idle(shop: Workshop) -> None:
    until(lambda: trouble.done["heartbeat"] and shop.pool.completer.empty, "a pool with nothing to do")


@pytest.fixture
def beats(monkeypatch: pytest.MonkeyPatch) -> None:
    """Heartbeats come fast, and neither a look nor a notification tells of anything."""
    monkeypatch.setattr(upkeep, "HEARTBEAT_EVERY", 0.02)
    monkeypatch.setattr(upkeep, "RESCUE_EVERY", 3600.0)
    monkeypatch.setattr("jobify_django.pool.turn.POLL", 3600.0)


def test_a_pool_without_jobs_hears_of_tuning_by_its_heartbeats(
    jobify: Configure, monkeypatch: pytest.MonkeyPatch, beats: None
) -> None:
    jobify(STORE="tests.workshop.FaultyMemory")
    trouble.break_down("sync")
    with at_work() as shop:
        idle(shop)
        store = queue().store
        with monkeypatch.context() as deaf:
            deaf.setattr(store.notifier, "publish", lambda kind, about: None)
            store.tune(queue().settings, {"workers": 3}, actor="", source="code")
        until(lambda: shop.pool.slots["default"].size == 3, "the tuned value")


def test_a_pool_whose_leases_are_short_looks_often_all_the_same(
    jobify: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "TUNE_EVERY", 0.02)
    jobify(STORE="tests.workshop.FaultyMemory", LEASE=1)
    with at_work() as shop:
        idle(shop)
        goal = trouble.done["sync"] + 3
        until(lambda: trouble.done["sync"] >= goal, "looks beside the heartbeats")


def test_a_pool_that_cannot_report_itself_looks_all_the_same(
    jobify: Configure, monkeypatch: pytest.MonkeyPatch, beats: None
) -> None:
    monkeypatch.setattr(upkeep, "TUNE_EVERY", 0.02)
    jobify(STORE="tests.workshop.FaultyMemory")
    with at_work() as shop:
        idle(shop)
        trouble.break_down("heartbeat")
        goal = trouble.done["sync"] + 3
        until(lambda: trouble.done["sync"] >= goal, "looks instead of the heartbeats")
        trouble.clear()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("lease", [-1.0, 10_000.0], ids=["over", "too long"])
def test_a_heartbeat_that_tells_of_a_lease_to_be_mended_calls_the_rescue(
    jobify: Configure, monkeypatch: pytest.MonkeyPatch, beats: None, lease: float
) -> None:
    jobify(STORE="tests.workshop.FaultyDatabase", LEASE=1)
    with at_work() as shop:
        idle(shop)
        # A pool that has just started leaves the others a third of the lease; from then on beats look for it.
        goal = trouble.done["heartbeat"] + 40
        until(lambda: trouble.done["heartbeat"] >= goal, "as many heartbeats as take longer than that")
        looked = trouble.done["rescue"]
        queue().store.add(queue().settings, [JobSpec(new_id(), "no.task", "[[],{}]")])
        # The pool that is alive may have it for a moment: it does not know the task.
        until(lambda: claim(queue().store, pool="dead-pool", lease=lease), "the claim")
        until(lambda: trouble.done["rescue"] > looked, "the rescue")
