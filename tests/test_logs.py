"""What is logged, as it reaches a project's own logging: in a real process, under configurations as projects
write them."""

from __future__ import annotations

import ast
import contextlib
import logging
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import django
import pytest
from django.utils.log import AdminEmailHandler

import jobify_django
from jobify_django import queue
from jobify_django.job import JobSpec
from jobify_django.log import listed, quoted
from jobify_django.management import logs
from jobify_django.management.logs import JsonFormatter, TextFormatter
from jobify_django.outcome import Outcome
from jobify_django.signals import job_ended
from tests.app.tasks import write_line
from tests.child import PATIENCE, until
from tests.claims import die
from tests.workshop import Configure, ado, at_work, both, do, memory, named, pushed

ROOT = Path(__file__).parent.parent
PACKAGE = Path(str(jobify_django.__file__)).parent

FORGED = "event=done id=forged"

# A project whose LOGGING says nothing of the loggers that are there already: dictConfig switches them off

SETTINGS = """
from tests.servers.settings import *

LOGGING = {
    "version": 1,
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "root": {"handlers": ["console"], "level": "WARNING"},
}
"""

TASKS = """
from jobify_django import task

@task
def fail():
    raise ValueError("as the test says")
"""

DOCUMENTED = """
import os
from django.core.asgi import get_asgi_application
from jobify_django.asgi import lifespan

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop_settings")
application = lifespan(get_asgi_application())
"""

SERVER = """
import asyncio
import shop_asgi

async def serve(work):
    events = asyncio.Queue()
    events.put_nowait({"type": "lifespan.startup"})
    answers = asyncio.Queue()
    server = asyncio.create_task(shop_asgi.application({"type": "lifespan"}, events.get, answers.put))
    if (await answers.get())["type"] == "lifespan.startup.complete":
        await work()
        events.put_nowait({"type": "lifespan.shutdown"})
    await server
"""

FAILING = """
from jobify_django.pool import serving
from shop_tasks import fail

async def work():
    job = await fail.apush()
    await job.wait()
"""

Script = Callable[[str], "subprocess.CompletedProcess[str]"]


@pytest.fixture
def script(tmp_path: Path) -> Script:
    """Run a program in a process of its own, in a project that has ``shop_settings`` and so on."""
    for name, text in {"settings": SETTINGS, "tasks": TASKS, "asgi": DOCUMENTED}.items():
        (tmp_path / f"shop_{name}.py").write_text(text)
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path)]),
        "DJANGO_SETTINGS_MODULE": "shop_settings",
        "DATABASE_URL": f"sqlite:///{tmp_path / 'empty.sqlite3'}",
    }

    def run(program: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", textwrap.dedent(program)],
            env={**environment, "TEST_JOBIFY": '{"STORE": "memory"}' if "memory" in program else "{}"},
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )

    return run


def test_a_job_that_fails_inside_a_server_says_so_although_dictconfig_came_after_the_import(
    script: Script,
) -> None:
    ended = script(f"{SERVER}\n{FAILING}\nasyncio.run(serve(work))  # in memory")
    assert "event=failed" in ended.stderr, ended
    assert "ValueError: as the test says" in ended.stderr


def test_a_start_that_fails_inside_a_server_says_why_although_dictconfig_came_after_the_import(
    script: Script,
) -> None:
    ended = script(f"{SERVER}\nasyncio.run(serve(None))  # without tables")
    assert "event=startup-failed" in ended.stderr, ended
    assert "manage.py migrate" in ended.stderr


@pytest.mark.parametrize(
    "first",
    [
        "import jobify_django.middleware",
        "import jobify_django.asgi",
        "import jobify_django.pool.connection",
        "from jobify_django.management.commands import runjobs",
    ],
)
def test_importing_a_part_before_django_is_set_up_makes_no_logger(script: Script, first: str) -> None:
    ended = script(
        f"""
        import logging
        {first}
        print([name for name in logging.root.manager.loggerDict if name.startswith("jobify")])
        """
    )
    assert ended.stdout == "[]\n", ended


def test_a_push_of_tasks_that_the_settings_import_is_heard(script: Script, tmp_path: Path) -> None:
    (tmp_path / "shop_settings.py").write_text(f"import shop_tasks\n{SETTINGS}")
    ended = script(
        """
        import django
        django.setup()
        from shop_tasks import fail
        fail.push()  # in memory
        """
    )
    assert "no worker is alive for queue 'default'" in ended.stderr, ended


AGAIN = """
import asyncio, django, logging, logging.config  # in memory
django.setup()
from jobify_django.pool import serving
from shop_tasks import fail

async def fail_once():
    async with serving():
        await (await fail.apush()).wait()

asyncio.run(fail_once())
{change}
print("from here on", file=__import__("sys").stderr)
asyncio.run(fail_once())
"""

CONFIG = """
logging.config.dictConfig({"version": 1, "handlers": {"again": {"class": "logging.StreamHandler"}},
                           "root": {"handlers": ["again"]}})
"""


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (CONFIG, 1),
        ('logging.getLogger("jobify.worker").disabled = True', 0),
        (CONFIG + 'logging.getLogger("jobify").setLevel("CRITICAL")', 0),
    ],
    ids=["another configuration", "switched off by hand", "a level"],
)
def test_a_later_configuration_does_not_silence_what_was_logged_through_by_oversight(
    script: Script, change: str, said: int
) -> None:
    ended = script(AGAIN.format(change=change))
    before, _, after = ended.stderr.partition("from here on")
    assert (before.count("event=failed"), after.count("event=failed")) == (1, said), ended


# A failed job, with its exception


class Ear(logging.Handler):
    """A project's handler: it keeps what it gets."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def of(self, event: str) -> list[logging.LogRecord]:
        return [one for one in self.records if f"event={event} " in one.getMessage()]


@pytest.fixture
def ear() -> Iterator[Ear]:
    logger, heard = logging.getLogger("jobify"), Ear()
    before = logger.level
    logger.addHandler(heard)
    logger.setLevel(logging.INFO)
    yield heard
    logger.removeHandler(heard)
    logger.setLevel(before)


def deep() -> None:
    local = "a secret of the job's"  # noqa: F841
    raise ValueError("one\nevent=done id=forged")


async def adeep() -> None:
    try:
        deep()
    except ValueError as error:
        raise KeyError("two") from error


@both
@pytest.mark.parametrize("action", [deep, adeep])
def test_a_failed_job_reaches_a_handler_with_its_exception_under_a_stable_template(
    jobify: Configure, ear: Ear, action: Any
) -> None:
    with at_work():
        for _ in range(2):
            pushed(action).wait(timeout=PATIENCE)
        until(lambda: len(ear.of("failed")) == 2, "both lines")
    one, other = ear.of("failed")
    assert one.msg == other.msg
    assert "event=failed" in one.msg
    assert one.args != other.args
    assert one.exc_info is not None
    kind, _, trace = one.exc_info
    assert kind is (ValueError if action is deep else KeyError)
    assert trace is not None
    named, last = trace.tb_frame.f_code.co_name, trace
    while last.tb_next is not None:
        last = last.tb_next
    assert last.tb_frame.f_code.co_name == action.__name__
    assert named in ("do", "ado")  # from the task's function on, without the pool's own frames


@memory
@pytest.mark.parametrize("action", [deep, adeep])
def test_the_frames_of_a_reported_exception_hold_no_variables(
    jobify: Configure, ear: Ear, action: Any
) -> None:
    with at_work():
        pushed(action).wait(timeout=PATIENCE)
        until(lambda: ear.of("failed"), "the line")
    exc_info = ear.of("failed")[0].exc_info
    assert exc_info is not None
    error: BaseException | None = exc_info[1]
    frames = 0
    while error is not None:
        trace = error.__traceback__
        while trace is not None:
            assert not trace.tb_frame.f_locals, trace.tb_frame
            frames += 1
            trace = trace.tb_next
        error = error.__cause__
    assert frames >= 2


@both
def test_receivers_of_job_ended_get_the_exception_of_a_failed_job_and_none_of_others(
    jobify: Configure,
) -> None:
    told: dict[str, BaseException | None] = {}

    def receive(outcome: Outcome, exception: BaseException | None, **kwargs: Any) -> None:
        told[outcome.id] = exception

    async def acancel() -> None:
        raise RuntimeError("another")

    job_ended.connect(receive)
    try:
        with at_work():
            jobs = [pushed(deep), pushed(lambda: 7), pushed(lambda: {1}), pushed(acancel)]
            for job in jobs:
                job.wait(timeout=PATIENCE)
            until(lambda: len(told) == len(jobs), "the signals")
    finally:
        job_ended.disconnect(receive)
    kinds = [type(told[job.id]).__name__ for job in jobs]
    assert kinds == ["ValueError", "NoneType", "InvalidPayload", "RuntimeError"]


@memory
def test_a_failed_job_is_mailed_with_its_traceback_and_without_what_it_held(
    jobify: Configure, ear: Ear, settings: Any, mailoutbox: list[Any]
) -> None:
    settings.ADMINS = (
        ["admin@example.com"] if django.VERSION >= (6, 0) else [("An admin", "admin@example.com")]
    )
    with at_work():
        job = pushed(deep)
        job.wait(timeout=PATIENCE)
        until(lambda: ear.of("failed"), "the line")
    AdminEmailHandler().handle(ear.of("failed")[0])
    (mail,) = mailoutbox
    assert f"event=failed id={job.id}" in mail.subject
    assert "raise ValueError" in mail.body
    assert "Traceback (most recent call last)" in mail.body
    assert "local" not in mail.body.partition("Traceback")[2].partition("Request")[0].replace("<locals>", "")


@memory
def test_a_pool_lets_go_of_an_exception_once_it_is_reported(jobify: Configure) -> None:
    seen: list[Any] = []

    def receive(outcome: Outcome, exception: BaseException | None, **kwargs: Any) -> None:
        seen.append(exception)

    job_ended.connect(receive)
    try:
        with at_work() as shop:
            running: list[Any] = []
            settle = shop.pool.completer.forget

            def settling(id: str, attempt: int) -> Any:
                running.append(settle(id, attempt))
                return running[-1]

            shop.pool.completer.forget = settling  # type: ignore[method-assign]
            pushed(deep).wait(timeout=PATIENCE)
            until(lambda: seen, "the signal")
            until(lambda: running[0].exception is None, "the end of it")
    finally:
        job_ended.disconnect(receive)
    assert isinstance(seen[0], ValueError)


# How it looks


def a_failure(message: str) -> logging.LogRecord:
    try:
        raise ValueError(message)
    except ValueError as error:
        exc_info = (type(error), error, error.__traceback__)
    return logging.LogRecord("jobify.worker", logging.ERROR, "", 0, "event=failed id=%s", ("x",), exc_info)


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n", "\x0b", "\x1c", "\x85", "\u2028", "\x1b[2K\n"])
def test_a_traceback_in_the_text_format_cannot_look_like_a_line(end: str) -> None:
    text = TextFormatter(None).format(a_failure(f"one{end}2026-01-31 12:00:00,123 INFO {FORGED}"))
    first, *lines = text.split("\n")
    assert first.endswith("ERROR event=failed id=x")
    assert "    Traceback (most recent call last):" in lines
    assert all(line.startswith("    ") and line.isprintable() for line in lines)


def test_a_traceback_in_the_json_format_is_one_field() -> None:
    text = JsonFormatter(None).format(a_failure(f"one\n{FORGED}"))
    assert "\n" not in text
    assert '"traceback": "Traceback' in text


# Text from outside


PLAIN = ["shop.tasks.export_orders", "/checkout/", "01a214d6-8e64-7e13", "a@b:8000", "größe"]
HOSTILE = ["a b", "", "x\nevent=done", "a=b", "\x1b[2K", "a\u2028b", "'", "\u202e", "a\x00"]


def test_a_plain_word_is_written_as_it_is_and_anything_else_quoted() -> None:
    assert [quoted(text) for text in PLAIN] == PLAIN
    assert [quoted(text) for text in HOSTILE] == [repr(text) for text in HOSTILE]
    assert listed(["a", "b c"]) == "a,'b c'"


def test_a_thing_whose_repr_lies_or_raises_is_written_on_one_line() -> None:
    class Liar:
        def __repr__(self) -> str:
            return f"x\n{FORGED}"

    class Nameless:
        def __repr__(self) -> str:
            raise ValueError

    assert "\n" not in quoted(Liar())
    assert "Nameless" in quoted(Nameless())


class Strict(logging.Handler):
    """Takes down each record whose message a reader of lines would take for two, or for another one."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())

    def assert_honest(self, *events: str) -> None:
        for line in self.said:
            if not line.startswith("event=snapshot"):
                assert line.isprintable(), line
        for event in events:
            assert [line for line in self.said if line.startswith(f"event={event} ")], (event, self.said)
        assert not [line for line in self.said if line.startswith(FORGED)]


@pytest.fixture
def strict() -> Iterator[Strict]:
    logger, handler = logging.getLogger("jobify"), Strict()
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(before)


EVIL = f"x\n{FORGED}"


@both
def test_jobs_whose_ids_and_tasks_are_hostile_forge_no_line(jobify: Configure, strict: Strict) -> None:
    jobify(WORKERS=2)
    store, settings = queue().store, queue().settings

    def add(id: str, task: str, action: Callable[[], Any]) -> None:
        store.add(settings, [JobSpec(id[:36], task, f'[["{named(action)}"],{{}}]')])

    async def afail() -> None:
        raise ValueError(EVIL)

    def fail() -> None:
        raise ValueError(EVIL)

    ids = [f"{number}\n{FORGED}" for number in range(6)]
    add(ids[0], EVIL, fail)
    add(ids[1], do.name, lambda: None)
    add(ids[2], do.name, fail)
    add(ids[3], ado.name, afail)
    add(ids[4], do.name, lambda: None)
    add(ids[5], EVIL, fail)
    die(store, pool=f"dead\n{FORGED}")

    def ended() -> bool:
        return all(store.get((id,))[id].status.ended for id in ids[1:5])

    with at_work():
        until(ended, "the jobs")
        for event in ("rescued", "held"):
            until(lambda event=event: any(f"event={event}" in line for line in strict.said), event)
        until(lambda: sum("id='" in line for line in strict.said) >= 5, "the lines")
    strict.assert_honest("done", "failed", "held", "rescued")


@memory
def test_a_receiver_with_a_hostile_name_forges_no_line(jobify: Configure, strict: Strict) -> None:
    class Receiver:
        def __call__(self, **kwargs: Any) -> None:
            raise ValueError(EVIL)

        def __repr__(self) -> str:
            return EVIL

    receiver = Receiver()
    job_ended.connect(receiver)
    try:
        with at_work():
            pushed(lambda: None).wait(timeout=PATIENCE)
            until(lambda: any("receiver-failed" in line for line in strict.said), "the report")
    finally:
        job_ended.disconnect(receiver)
    strict.assert_honest("receiver-failed")


LEVELS = {"debug", "info", "warning", "error", "critical", "exception", "log"}
SAFE = {"quoted", "listed", "_ending"}
OURS = {
    "why",  # "signal=TERM" and the like
    "name",  # a signal's
    "kind",  # of a notification
    "event",  # of a lifespan
    "rescued.status",
    "self.id",  # a pool's, which it made itself
    "self._pool",
    "queues",  # of the first lines, each name shown
    "'\\n'.join(lines)",  # of a snapshot
    "', '.join(jobs) or 'none'",  # of a blocked loop, each listed
    "__version__",
    "django.get_version()",
    "platform.python_version()",
    "parent.pid",
    "queue.fault",
    "queue.remedy",
}


def log_calls() -> Iterator[tuple[str, ast.Call]]:
    for file in sorted(PACKAGE.rglob("*.py")):
        if file.name == "log.py":
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in LEVELS
                and ast.unparse(node.func.value) == "logger"
            ):
                yield f"{file.relative_to(PACKAGE)}:{node.lineno}", node


CALLS = list(log_calls())


@pytest.mark.parametrize(("place", "call"), CALLS, ids=[place for place, _ in CALLS])
def test_a_log_call_has_a_stable_template_and_shows_text_from_outside_by_one_function(
    place: str, call: ast.Call
) -> None:
    assert isinstance(call.func, ast.Attribute)
    template, *values = call.args[1:] if call.func.attr == "log" else call.args
    if ast.unparse(template).startswith("LINES["):
        return  # the ends of jobs: constants, and the test of hostile jobs sends them through
    assert isinstance(template, ast.Constant), f"{place}: a template that differs from line to line"
    assert isinstance(template.value, str)
    for mark, value in zip(re.findall(r"%(?:\.\d+)?([a-z])", template.value), values, strict=True):
        if mark == "s":
            inner = ast.unparse(value)
            by = ast.unparse(value.func) if isinstance(value, ast.Call) else ""
            safe = by in SAFE or inner in OURS or "quoted(" in inner
            safe = safe or (isinstance(value, ast.IfExp) and "'" in ast.unparse(value.body))
            assert safe, f"{place}: {inner} may hold anything: write quoted({inner})"


# Who decides what runjobs logs


@contextlib.contextmanager
def nothing_configured() -> Iterator[logging.Logger]:
    """The loggers as they are where nothing is configured; pytest has its own handlers on the root."""
    root, logger = logging.getLogger(), logging.getLogger("jobify")
    kept = root.handlers[:], logger.handlers[:], logger.level, logger.propagate
    root.handlers, logger.handlers = [], []
    try:
        yield logger
    finally:
        root.handlers, logger.handlers, level, logger.propagate = kept
        logger.setLevel(level)
        logging.getLogger("jobify.push").handlers = []


def test_where_nothing_is_configured_runjobs_writes_to_stderr() -> None:
    with nothing_configured() as logger:
        assert logs.configure("text", 1)
        assert (len(logger.handlers), logger.level) == (1, logging.INFO)
        assert logs.configure("json", 2), "once more in one process, as tests and scripts do"
        assert (len(logger.handlers), logger.level) == (1, logging.DEBUG)


@pytest.mark.parametrize("name", ["", "jobify", "jobify.push"])
def test_where_the_project_has_a_handler_nothing_is_touched(name: str) -> None:
    with nothing_configured() as logger:
        logger.setLevel(logging.ERROR)
        handler = Ear()
        logging.getLogger(name).addHandler(handler)
        assert not logs.configure("json", 2, 3)
        assert logger.handlers == ([handler] if name == "jobify" else [])
        assert (logger.level, logger.propagate) == (logging.ERROR, True)


STRUCTURED = """
import json, logging

class Formatter(logging.Formatter):
    # As structlog's ProcessorFormatter: it wants the record, not a text.
    def format(self, record):
        return json.dumps({"template": str(record.msg), "fields": getattr(record, "jobify", None)})

from tests.servers.settings import *
JOBIFY = {}
LOGGING = {
    "version": 1, "disable_existing_loggers": False,
    "formatters": {"structured": {"()": Formatter}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "structured"}},
    "root": {"handlers": ["console"], "level": "LEVEL"},
}
"""


@pytest.fixture
def runjobs(tmp_path: Path, child_environment: dict[str, str]) -> Callable[..., list[str]]:
    """Run ``runjobs --batch`` in a project that logs through a handler on the root; return its lines."""

    def run(level: str, *arguments: str) -> list[str]:
        (tmp_path / "structured.py").write_text(STRUCTURED.replace("LEVEL", level))
        ended = subprocess.run(
            [sys.executable, "-m", "django", "runjobs", "--batch", *arguments],
            env={
                **child_environment,
                "DJANGO_SETTINGS_MODULE": "structured",
                "PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path)]),
            },
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert ended.returncode == 0, ended
        return ended.stderr.splitlines()

    return run


@pytest.mark.servers
def test_a_project_that_logs_in_its_own_way_gets_each_record_once_with_its_fields(
    runjobs: Callable[..., list[str]], tmp_path: Path
) -> None:
    job = write_line.push(str(tmp_path / "written"), "x")
    lines = runjobs("INFO")
    (said,) = [line for line in lines if job.id in line]
    assert '"event": "done"' in said
    assert all(line.startswith("{") for line in lines), lines
    assert sum("tasks    %d" in line for line in lines) == 1


@pytest.mark.servers
@pytest.mark.parametrize("processes", [[], ["--processes", "2"]])
def test_a_project_whose_logging_hides_the_events_is_told_so_once(
    runjobs: Callable[..., list[str]], processes: list[str]
) -> None:
    lines = runjobs("WARNING", "--log-format", "json", "-v", "2", *processes)
    idle, hidden = lines
    assert "no effect of --log-format and -v 2" in idle
    assert "level INFO for the logger 'jobify'" in hidden


@pytest.mark.servers
def test_a_project_that_shows_the_events_is_told_nothing(runjobs: Callable[..., list[str]]) -> None:
    assert all(line.startswith("{") for line in runjobs("INFO"))
