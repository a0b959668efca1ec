"""The ASGI wrapper without a server: the events it answers, the signals it passes on."""

from __future__ import annotations

import asyncio
import multiprocessing
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.asgi import get_asgi_application

from jobify_django import Job, JobStatus, asgi
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
def ended() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    assert process.wait(30) == 0
    return process.pid


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


# The application inside may have a lifespan of its own


class Inner:
    """An application with a lifespan; ``seen`` is what happened, in order, with the workers alive then."""

    def __init__(self, **answers: dict[str, Any]) -> None:
        self.seen: list[tuple[str, int]] = []
        self._answers = answers

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        scope.get("state", {})["pantry"] = "full"
        try:
            for event in ("startup", "shutdown"):
                message = await receive()
                assert message == {"type": f"lifespan.{event}"}
                self.note(event)
                await send(self._answers.get(event, {"type": f"lifespan.{event}.complete"}))
            self.note("returned")
        except asyncio.CancelledError:
            self.note("cancelled")
            raise

    def note(self, event: str) -> None:
        self.seen.append((event, len(stores["memory"].pools())))


async def test_the_application_inside_starts_before_the_workers_and_stops_after_them() -> None:
    inner = Inner()
    host = Host(lifespan(inner))
    assert await host.tell("startup") == {"type": "lifespan.startup.complete"}
    await reported()
    assert await host.tell("shutdown") == {"type": "lifespan.shutdown.complete"}
    await host.task
    assert inner.seen == [("startup", 0), ("shutdown", 0), ("returned", 0)]


async def test_the_application_inside_gets_the_servers_state() -> None:
    app = lifespan(Inner())
    state: dict[str, str] = {}
    events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    answers: asyncio.Queue[Any] = asyncio.Queue()
    task = asyncio.create_task(app({"type": "lifespan", "state": state}, events.get, answers.put))
    await events.put({"type": "lifespan.startup"})
    await answers.get()
    assert state == {"pantry": "full"}
    await events.put({"type": "lifespan.shutdown"})
    await task


async def test_an_application_inside_that_cannot_start_keeps_the_workers_from_starting() -> None:
    failed = {"type": "lifespan.startup.failed", "message": "no pantry"}
    inner = Inner(startup=failed)
    host = Host(lifespan(inner))
    assert await host.tell("startup") == failed
    assert stores["memory"].pools() == []
    host.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await host.task
    assert [event for event, _ in inner.seen] == ["startup", "cancelled"]


async def test_an_application_inside_that_fails_to_stop_is_reported_to_the_server() -> None:
    failed = {"type": "lifespan.shutdown.failed", "message": "the pantry burns"}
    host = Host(lifespan(Inner(shutdown=failed)))
    await host.tell("startup")
    assert await host.tell("shutdown") == failed
    await host.task


async def test_the_application_inside_is_stopped_when_the_workers_cannot_start(settings: Any) -> None:
    settings.JOBIFY = {"STORE": "memory", "WORKERS": 0}
    inner = Inner()
    host = Host(lifespan(inner))
    assert (await host.tell("startup"))["type"] == "lifespan.startup.failed"
    await host.task
    assert [event for event, _ in inner.seen] == ["startup", "shutdown", "returned"]


async def returns_at_once(scope: Any, receive: Any, send: Any) -> None:
    pass


async def raises_after_it_was_asked(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    raise ValueError("what is a lifespan?")


@pytest.mark.parametrize(
    "app", [forbidden, get_asgi_application(), returns_at_once, raises_after_it_was_asked]
)
async def test_an_application_inside_without_a_lifespan_is_none_the_worse(
    app: Any, caplog: pytest.LogCaptureFixture
) -> None:
    host = Host(lifespan(app))
    assert await host.tell("startup") == {"type": "lifespan.startup.complete"}
    assert await host.tell("shutdown") == {"type": "lifespan.shutdown.complete"}
    await host.task
    warned = [record for record in caplog.records if record.levelname == "WARNING"]
    assert ["what is a lifespan?" in record.getMessage() for record in warned] == (
        [True] if app is raises_after_it_was_asked else []
    )


async def test_an_application_inside_that_does_not_answer_is_named(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def dumb(scope: Any, receive: Any, send: Any) -> None:
        while True:
            await receive()

    monkeypatch.setattr(asgi, "SLOW", 0.001)
    host = Host(lifespan(dumb))
    startup = asyncio.create_task(host.tell("startup"))
    async with asyncio.timeout(30):
        while "event=lifespan-waits" not in caplog.text:  # noqa: ASYNC110 - a log is no event
            await asyncio.sleep(0)
    host.task.cancel()
    startup.cancel()
    await asyncio.wait([host.task, startup])
    assert stores["memory"].pools() == []


@pytest.mark.parametrize("where", ["receive", "send"])
async def test_a_server_that_breaks_off_stops_the_workers_once(
    where: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broken = asyncio.Event()
    inner = Inner()
    app = lifespan(inner)
    events = iter([{"type": "lifespan.startup"}])

    async def receive() -> dict[str, Any]:
        for event in events:
            return event
        await broken.wait()
        raise OSError("the server's queue is gone")

    async def send(message: dict[str, Any]) -> None:
        if where == "send":
            await broken.wait()
            raise OSError("the server's queue is gone")

    first = asyncio.create_task(app({"type": "lifespan"}, receive, send))
    await started_job(tmp_path)
    broken.set()
    with pytest.raises(OSError, match="queue is gone"):
        await asyncio.wait_for(first, 30)
    assert stores["memory"].pools() == []
    assert [event for event, _ in inner.seen] == ["startup", "cancelled"]
    assert caplog.text.count("event=lifespan-broken") == 1
    assert caplog.text.count("event=released") == 1
    second = Host(lifespan(forbidden))
    await second.tell("startup")
    await reported()
    assert len(stores["memory"].pools()) == 1
    await second.tell("shutdown")


async def test_workers_stop_whose_servers_parent_had_ended_before_anybody_looked(
    ended: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Parent:
        pid = ended

        def is_alive(self) -> bool:
            return True  # as where a forked sibling holds the pipe open that would tell of it

    monkeypatch.setattr(multiprocessing, "parent_process", Parent)
    monkeypatch.setattr(asgi, "LOOK_FOR_PARENT", 0.001)
    host = Host(lifespan(forbidden))
    await host.tell("startup")
    async with asyncio.timeout(30):
        while stores["memory"].pools():  # noqa: ASYNC110 - a pool's end is no event
            await asyncio.sleep(0)
    assert f"event=orphaned parent={ended}" in caplog.text
    await host.tell("shutdown")


async def reported() -> None:
    """Return once a pool is alive in the store."""
    async with asyncio.timeout(30):
        while not stores["memory"].pools():  # noqa: ASYNC110 - nor is a pool's report
            await asyncio.sleep(0)
