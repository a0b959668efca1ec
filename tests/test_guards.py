"""A pool among others' code: a project's logging filters and signal receivers that raise, and a claim loop
that no longer turns."""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import pytest

from jobify_django import Job, JobStatus, queue
from jobify_django.log import get_log
from jobify_django.outcome import Outcome
from jobify_django.pool import liveness, service, upkeep
from jobify_django.signals import job_ended
from jobify_django.stores.database import DatabaseStore
from tests.child import PATIENCE, until
from tests.workshop import Configure, a_gate, at_work, both, memory, pushed


@pytest.fixture
def brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chores that come round soon, and a dead pool that is replaced at once."""
    for name in ("HEARTBEAT_EVERY", "TUNE_EVERY", "RESCUE_EVERY", "RETRY_AFTER"):
        monkeypatch.setattr(upkeep, name, 0.05)
    monkeypatch.setattr(service, "RESTART_AFTER", 0.0)


def ended(job: Job[Any]) -> JobStatus:
    job.wait(timeout=PATIENCE)
    return job.status


def fail() -> NoReturn:
    raise ValueError("as the test says")


class Refusing(logging.Filter):
    """A filter that raises."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error
        self.met: list[str] = []

    def filter(self, record: logging.LogRecord) -> bool:
        self.met.append(record.getMessage())
        raise self.error


@pytest.fixture
def refusing() -> Iterator[Callable[[BaseException], Refusing]]:
    """Make each line of the pools meet a filter that raises this."""
    logger = logging.getLogger("jobify.worker")
    filters: list[Refusing] = []

    def refuse(error: BaseException) -> Refusing:
        filters.append(Refusing(error))
        logger.addFilter(filters[-1])
        return filters[-1]

    yield refuse
    for one in filters:
        logger.removeFilter(one)


@pytest.fixture
def receiving() -> Iterator[Callable[[Callable[..., Any]], None]]:
    """Connect a receiver of ``job_ended``."""
    receivers: list[Callable[..., Any]] = []

    def receive(receiver: Callable[..., Any]) -> None:
        receivers.append(receiver)
        job_ended.connect(receiver)

    yield receive
    for receiver in receivers:
        job_ended.disconnect(receiver)


errors = pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3)], ids=["error", "exit"])


@both
@errors
def test_a_logging_filter_that_raises_does_not_end_the_pool(
    jobify: Configure, refusing: Callable[[BaseException], Refusing], error: BaseException
) -> None:
    with at_work() as shop:
        pool = shop.pool
        said = refusing(error)
        assert ended(pushed(fail)) is JobStatus.FAILED
        until(lambda: said.met, "the line that could not be logged")
        assert ended(pushed(lambda: None)) is JobStatus.SUCCESSFUL
        assert shop.pool is pool
        assert not pool.died.done()


@both
@errors
def test_a_pool_that_dies_is_replaced_although_its_death_cannot_be_logged(
    jobify: Configure,
    brisk: None,
    monkeypatch: pytest.MonkeyPatch,
    refusing: Callable[[BaseException], Refusing],
    error: BaseException,
) -> None:
    def bug(states: object) -> NoReturn:
        raise AssertionError("a bug of ours")

    with at_work() as shop:
        dead = shop.pool
        said = refusing(error)
        monkeypatch.setattr(dead.workers, "apply", bug)
        dead.wake()
        until(lambda: shop.pool is not dead, "another pool")
        assert ended(pushed(lambda: None)) is JobStatus.SUCCESSFUL
        assert any("event=pool-died" in line for line in said.met)


class Nameless:
    """A receiver without a name, whose ``repr`` raises too."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def __call__(self, **kwargs: Any) -> None:
        raise self._error

    def __repr__(self) -> str:
        raise ValueError("no name")


@both
@errors
@pytest.mark.parametrize("kind", ["function", "partial", "nameless"])
def test_a_receiver_that_raises_does_not_end_the_pool(
    jobify: Configure,
    caplog: pytest.LogCaptureFixture,
    receiving: Callable[[Callable[..., Any]], None],
    error: BaseException,
    kind: str,
) -> None:
    told = threading.Event()

    def function(outcome: Outcome, **kwargs: Any) -> None:
        told.set()
        raise error

    nameless = Nameless(error)
    receiving({"function": function, "partial": functools.partial(function), "nameless": nameless}[kind])
    with at_work() as shop:
        pool = shop.pool
        assert ended(pushed(fail)) is JobStatus.FAILED
        until(lambda: "event=receiver-failed" in caplog.text, "the report")
        assert ended(pushed(lambda: None)) is JobStatus.SUCCESSFUL
        assert shop.pool is pool
        assert not pool.died.done()


class Stuck(DatabaseStore):
    """A store whose claims do not come back until the test says so."""

    stuck, go = threading.Event(), threading.Event()

    def claim(self, *given: Any, **named: Any) -> Any:
        Stuck.stuck.set()
        assert Stuck.go.wait(PATIENCE)
        return super().claim(*given, **named)


def assert_not_alive_until(go_on: Callable[[], object], caplog: pytest.LogCaptureFixture) -> None:
    store = queue().store
    until(lambda: "event=pool-stuck" in caplog.text, "the report")
    clock = store.clock
    store.clock = lambda: clock() + 60  # its last report is old
    looks = []
    turning = liveness.TurnMonitor.check

    def look(self: liveness.TurnMonitor, turns: int) -> bool:
        looks.append(turning(self, turns))
        return looks[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(liveness.TurnMonitor, "check", look)
        until(lambda: len(looks) >= 3, "more looks")
        assert list(store.pools()) == []
        go_on()
        until(lambda: list(store.pools()), "a report again")


@pytest.mark.django_db(transaction=True)
def test_a_pool_whose_claim_hangs_is_not_reported_alive(
    jobify: Configure, brisk: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(liveness, "STUCK_AFTER", 0.2)
    Stuck.stuck.clear()
    Stuck.go.clear()
    jobify(STORE="tests.test_guards.Stuck")
    with at_work():
        try:
            assert Stuck.stuck.wait(PATIENCE)
            assert_not_alive_until(Stuck.go.set, caplog)
        finally:
            Stuck.go.set()
        assert ended(pushed(lambda: None)) is JobStatus.SUCCESSFUL


@memory
def test_a_pool_in_memory_whose_loop_is_blocked_is_not_reported_alive(
    jobify: Configure, brisk: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(liveness, "STUCK_AFTER", 0.2)
    gate = a_gate()

    async def block() -> None:
        gate.pass_through()

    with at_work():
        pushed(block)
        gate.reached()
        assert_not_alive_until(gate.open, caplog)


# The loggers themselves


def test_a_line_names_the_place_it_was_logged_at_and_keeps_its_fields(
    caplog: pytest.LogCaptureFixture,
) -> None:
    get_log("jobify.test").warning("one %s", "line", extra={"jobify": {"event": "x"}})
    (record,) = caplog.records
    assert record.filename == "test_guards.py"
    assert record.getMessage() == "one line"
    assert vars(record)["jobify"] == {"event": "x"}


def test_what_could_not_be_logged_is_said_on_stderr(
    refusing: Callable[[BaseException], Refusing], capsys: pytest.CaptureFixture[str]
) -> None:
    refusing(ValueError("a broken filter"))
    get_log("jobify.worker").error("event=something")
    said = capsys.readouterr().err
    assert "event=something" in said
    assert "a broken filter" in said


def test_a_project_that_wants_no_errors_of_logging_gets_none(
    refusing: Callable[[BaseException], Refusing],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(logging, "raiseExceptions", False)
    refusing(ValueError("a broken filter"))
    get_log("jobify.worker").error("event=something")
    assert capsys.readouterr().err == ""


@memory
def test_the_end_of_a_job_is_told_before_the_next_job_of_its_worker_begins(
    jobify: Configure, receiving: Callable[[Callable[..., Any]], None]
) -> None:
    jobify(WORKERS=1)
    seen: list[str] = []
    receiving(lambda **values: seen.append("told"))

    async def begin() -> None:
        seen.append("begins")

    jobs = [pushed(begin) for _ in range(3)]
    with at_work():
        for job in jobs:
            job.wait(timeout=PATIENCE)
        until(lambda: len(seen) == 6, "what is told of the last")
    assert seen == ["begins", "told"] * 3
