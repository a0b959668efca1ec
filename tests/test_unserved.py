"""A push to a queue that nobody works on says so: once, and only then."""

from __future__ import annotations

import os
import socket
from typing import Any

import pytest

from jobify_django.pool import serving
from jobify_django.stores import stores
from jobify_django.stores.base import Store
from jobify_django.stores.value import PoolQueue, PoolRecord
from tests.app.tasks import write_line
from tests.child import until

WARNING = "no worker is alive for queue 'default'"


@pytest.fixture(autouse=True)
def store(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Store:
    settings.JOBIFY = {"STORE": "memory", "QUEUES": {"default": {}, "mail": {}}}
    # Each push looks; without it only one in five seconds does.
    monkeypatch.setattr("jobify_django.push.unserved.CHECK_EVERY", 0.0)
    return stores["memory"]


def report(store: Store, *queues: str, pid: int = 1, host: str = "elsewhere") -> None:
    """Say what a pool says of itself while it lives."""
    store.heartbeat(
        PoolRecord(f"{host}-{pid}", host, pid, "code", 0.0, {name: PoolQueue(1, 0, 0) for name in queues})
    )


def test_a_push_to_a_queue_without_workers_warns_once(caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(3):
        write_line.push("path", "line")
    assert caplog.text.count(WARNING) == 1


def test_a_live_pool_of_the_queue_is_no_reason_to_warn(
    caplog: pytest.LogCaptureFixture, store: Store
) -> None:
    report(store, "default")
    write_line.push("path", "line")
    assert caplog.text == ""


def test_a_live_pool_of_another_queue_is_not_enough(caplog: pytest.LogCaptureFixture, store: Store) -> None:
    report(store, "mail")
    write_line.push("path", "line")
    assert WARNING in caplog.text


def test_a_pool_that_dies_later_is_noticed(caplog: pytest.LogCaptureFixture, store: Store) -> None:
    report(store, "default")
    write_line.push("path", "line")
    store.retire("elsewhere-1")
    write_line.push("path", "line")
    assert WARNING in caplog.text


def test_a_pool_of_this_process_that_has_not_reported_yet_is_waited_for(
    caplog: pytest.LogCaptureFixture, store: Store
) -> None:
    unsubscribe = store.listen("work", lambda queue: None)  # as a pool does when it starts
    write_line.push("path", "line")
    assert caplog.text == ""
    report(store, "mail", pid=os.getpid(), host=socket.gethostname())
    write_line.push("path", "line")
    assert WARNING in caplog.text
    unsubscribe()


async def test_a_pool_of_another_queue_in_this_process_is_not_enough(
    caplog: pytest.LogCaptureFixture, store: Store
) -> None:
    async with serving(["mail"]):
        await write_line.apush("path", "line")
        until(store.pools, "the pool's first report")
        await write_line.apush("path", "line")
    assert caplog.text.count(WARNING) == 1
