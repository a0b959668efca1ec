"""The ASGI wrapper without a server: the events it answers, the signals it passes on."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jobify_django import Job, JobStatus
from jobify_django.asgi import Lifespan, lifespan
from jobify_django.stores import stores
from tests.app.tasks import asleep_at_first


async def forbidden(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError(f"the application was called with {scope}")


class Host:
    """A server that sends lifespan events."""

    def __init__(self, app: Lifespan) -> None:
        self._events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._answers: asyncio.Queue[Any] = asyncio.Queue()
        self.task = asyncio.create_task(app({"type": "lifespan"}, self._events.get, self._answers.put))

    async def tell(self, event: str) -> dict[str, Any]:
        await self._events.put({"type": f"lifespan.{event}"})
        answer: dict[str, Any] = await asyncio.wait_for(self._answers.get(), 30)
        return answer


@pytest.fixture(autouse=True)
def memory(settings: Any) -> None:
    settings.JOBIFY = {"STORE": "memory", "GRACE": 0.1}


@pytest.fixture
def heard() -> Iterator[list[int]]:
    """The signals a server's own handler gets."""
    got: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: got.append(number))
    yield got
    signal.signal(signal.SIGTERM, before)


async def test_it_answers_startup_and_shutdown_itself() -> None:
    host = Host(lifespan(forbidden))
    assert await host.tell("startup") == {"type": "lifespan.startup.complete"}
    assert await host.tell("shutdown") == {"type": "lifespan.shutdown.complete"}
    await host.task


@pytest.mark.parametrize("kind", ["http", "websocket", "something new"])
async def test_other_scopes_go_to_the_application(kind: str) -> None:
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])

    async def nothing(*args: Any) -> Any:
        raise AssertionError("nobody reads or writes here")

    await lifespan(app)({"type": kind}, nothing, nothing)
    assert seen == [kind]


def test_wrapping_starts_nothing_and_reads_no_settings(settings: Any) -> None:
    settings.JOBIFY = {"WORKERS": "wrong"}
    lifespan(forbidden, queues=["no such queue"])


@pytest.mark.parametrize(
    ("jobify", "options", "reason"),
    [
        ({"STORE": "memory", "WORKERS": 0}, {}, "JOBIFY['WORKERS'] is 0"),
        ({"STORE": "memory"}, {"queues": ["mial"]}, "there is no queue 'mial'"),
        ({"STORE": "memory"}, {"exclude": ["default"]}, "no queue is left"),
        ({"STORE": "no.such.Store"}, {}, "cannot be imported"),
    ],
)
async def test_what_keeps_it_from_starting_is_named(
    settings: Any, jobify: dict[str, Any], options: dict[str, Any], reason: str
) -> None:
    settings.JOBIFY = jobify
    host = Host(lifespan(forbidden, **options))
    answer = await host.tell("startup")
    assert answer["type"] == "lifespan.startup.failed"
    assert reason in answer["message"]
    await host.task


async def test_a_second_start_is_refused_aloud_and_starts_nothing(caplog: pytest.LogCaptureFixture) -> None:
    app = lifespan(forbidden)
    first, second = Host(app), Host(app)
    await first.tell("startup")
    assert await second.tell("startup") == {"type": "lifespan.startup.complete"}
    assert "event=lifespan-twice" in caplog.text
    await second.tell("shutdown")
    await first.tell("shutdown")
    third = Host(app)
    caplog.clear()
    await third.tell("startup")
    assert "event=lifespan-twice" not in caplog.text
    await third.tell("shutdown")


async def test_a_signal_goes_on_to_the_servers_handler_and_handlers_are_put_back(heard: list[int]) -> None:
    theirs = signal.getsignal(signal.SIGTERM)
    host = Host(lifespan(forbidden))
    await host.tell("startup")
    assert signal.getsignal(signal.SIGTERM) is not theirs
    signal.raise_signal(signal.SIGTERM)
    assert heard == [signal.SIGTERM]
    await host.tell("shutdown")
    assert signal.getsignal(signal.SIGTERM) is theirs


async def test_a_handler_set_meanwhile_is_left_alone(heard: list[int]) -> None:
    host = Host(lifespan(forbidden))
    await host.tell("startup")

    def later(number: int, frame: object) -> None: ...

    signal.signal(signal.SIGTERM, later)
    await host.tell("shutdown")
    assert signal.getsignal(signal.SIGTERM) is later


async def test_a_server_that_cancels_gets_its_jobs_handed_back_first(tmp_path: Path) -> None:
    host = Host(lifespan(forbidden, grace=600))
    await host.tell("startup")
    job = await started_job(tmp_path)
    host.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(host.task, 30)
    assert_handed_back(job)


async def test_a_server_that_cancels_every_task_of_a_drain_gets_its_jobs_handed_back(
    tmp_path: Path, heard: list[int]
) -> None:
    before = asyncio.all_tasks()
    host = Host(lifespan(forbidden, grace=600))
    await host.tell("startup")
    job = await started_job(tmp_path)
    signal.raise_signal(signal.SIGTERM)
    for _ in range(10):  # turns of the loop: the drain has begun, and waits for the job
        await asyncio.sleep(0)
    rest = asyncio.all_tasks() - before
    for task in rest:
        task.cancel()
    await asyncio.wait(rest, timeout=30)
    assert_handed_back(job)


async def started_job(tmp_path: Path) -> Job[str]:
    """Return a job that runs for an hour."""
    job = await asleep_at_first.apush(str(tmp_path / "started"))
    async with asyncio.timeout(30):
        while job.status is not JobStatus.RUNNING:
            await asyncio.sleep(0)
            await job.arefresh()
    return job


def assert_handed_back(job: Job[str]) -> None:
    record = stores["memory"].get([job.id])[job.id]
    assert (record.status, record.attempt) == (JobStatus.WAITING, 1)
    assert stores["memory"].pools() == []
