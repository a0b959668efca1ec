"""A program that does in a project what a page says.

It pastes Python, calls what that defines (views, tasks and functions, with what ``SAMPLES`` holds for their
parameters), lets the jobs be run, and types commands. The first step that fails ends it, with its place.

Each line of its standard input names a directory and the steps to do there. They are done in a fork, since
settings cannot be changed once they are read, and importing Django anew each time would take most of the
time. It answers with a line that tells what went wrong, if anything did."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import importlib
import inspect
import io
import json
import logging
import os
import re
import shlex
import subprocess
import sys
import threading
import traceback
import types
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

PATIENCE = 60.0
ID = re.compile(r"\bID\b|\b[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}\b")
WARM = (
    "contrib.admin",
    "contrib.auth.hashers",
    "contrib.messages.middleware",
    "core.checks",
    "core.management.commands.migrate",
    "db.backends.sqlite3.base",
    "db.models",
    "forms",
    "template",
    "test",
    "urls",
)
"""Modules of Django that every project imports, and that keep nothing of the settings."""


class Failure(Exception):
    """What a reader saw that the page does not say."""


def main() -> None:
    """Read each line, do what it says in a fork, and tell how that went."""
    for name in WARM:
        importlib.import_module(f"django.{name}")
    for line in sys.stdin:
        order = json.loads(line)
        said = Path(order["directory"], "said.txt")
        pid = os.fork()
        if not pid:
            os._exit(follow(order["directory"], order["steps"], said))
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        print(json.dumps(f"exit {code}: {said.read_text()}" if code else ""), flush=True)


def follow(directory: str, steps: Sequence[dict[str, Any]], said: Path) -> int:
    """Do every step in a directory, and return 1 if one failed; what it said stands in a file."""
    os.chdir(directory)
    output = os.open(said, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.path.insert(0, directory)
    place = "mysite/settings.py"
    code = 0
    try:
        with contextlib.ExitStack() as stack:
            reader = Reader(stack)
            for step in steps:
                place = step["place"]
                reader.do(step)
    except BaseException as error:
        text = str(error) if isinstance(error, Failure) else traceback.format_exc()
        print(f"{place}: {text}", file=sys.stderr)
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def set_up() -> None:
    """Start the project as manage.py does, and let its system checks pass."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")
    import django
    from django.core.management import call_command

    django.setup()
    logging.getLogger("jobify").setLevel(logging.CRITICAL)  # no worker is alive, as the page may say
    call_command("check", verbosity=0)


class Reader:
    """Somebody in the project's directory."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self._stack = stack
        self._works = False

    def do(self, step: dict[str, Any]) -> None:
        """Paste what a step pastes, or type what it types."""
        if "new" in step:
            execute(shlex.split(step["new"]), io.StringIO())
        elif "set up" in step:
            set_up()
        elif "server" in step:
            self._import(step["server"])
        elif "command" in step:
            self._type(step["command"], step["shown"])
        else:
            self._paste(step["place"], step["text"], step["file"], call=step["call"])

    # Python

    def _paste(self, place: str, text: str, file: str, *, call: bool) -> None:
        name = file.removesuffix(".py").replace("/", ".") if file else "__main__"
        if file.endswith(("tasks.py", "models.py", "urls.py")):
            module = importlib.import_module(name)  # the app has imported it, or will
        else:
            module = types.ModuleType(name)
            exec(compile(text, place, "exec"), module.__dict__)
        for one in ast.parse(text).body if call else ():
            if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef):
                needed = one.args.args[: len(one.args.args) - len(one.args.defaults)]
                self._call(getattr(module, one.name), [sample(parameter.arg) for parameter in needed])

    def _call(self, function: Any, arguments: Sequence[Any]) -> None:
        """Call a view or a function; push a task, and let its job be run."""
        from jobify_django import Task

        if not self._works:
            self._stack.enter_context(at_work())
            self._works = True
        if isinstance(function, Task):
            job = function.push(*arguments)
            job.wait(timeout=PATIENCE)
            job.result()
            return
        made = function(*arguments)
        if inspect.iscoroutine(made):
            made = asyncio.run(made)
        if getattr(made, "status_code", 200) >= 400:
            raise Failure(f"{function.__name__} answers with status {made.status_code}")

    @staticmethod
    def _import(place: str) -> None:
        """Import an application as a server does, which knows nothing of settings."""
        module, _, name = place.partition(":")
        application = getattr(importlib.import_module(module), name)
        if type(application).__module__ != "jobify_django.asgi":
            raise Failure(f"{place} is {application!r}: the outermost wrapper must be lifespan()")

    # Commands

    def _type(self, command: str, shown: list[str]) -> None:
        if not command.startswith("python manage.py "):
            self._run(command)
            return
        states = STATES if ID.search(command) else STATES[:1]
        happened = []
        for state in states:
            typed = ID.sub(lambda found, state=state: a_job_that_is(state, found[0]), command)
            out = io.StringIO()
            said = execute(shlex.split(typed)[1:], out)
            if is_as_shown(said, out.getvalue(), shown):
                return
            happened.append(said or out.getvalue())
        tried = f" (of a job that was, in turn, {', '.join(states)})" if len(states) > 1 else ""
        page, said = "\n".join(shown), "".join(happened)
        raise Failure(f"$ {command}\nThe page shows\n{page}\nand this is said{tried}:\n{said}")

    def _run(self, command: str) -> None:
        Path("jobs.alive").touch()  # as `runjobs --heartbeat-file` does
        ended = subprocess.run(command.replace("/tmp/", ""), shell=True, capture_output=True, text=True)
        if ended.returncode:
            raise Failure(f"$ {command}\nexit {ended.returncode}\n{ended.stderr}")


def sample(parameter: str) -> Any:
    """Return an argument for a parameter of a page's function."""
    made = SAMPLES.get(parameter)
    if made is None:
        raise Failure(f"what is {parameter!r}? Say it in SAMPLES, tests/blocks/reader.py.")
    return made()


def a_request() -> Any:
    """Return somebody's order."""
    from django.test import RequestFactory

    return RequestFactory().post("/checkout/", {"order": "ord-1"})


def a_job() -> str:
    """Return the id of a job that waits for an hour."""
    try:
        charge_payment = importlib.import_module("shop.tasks").charge_payment
    except (ImportError, AttributeError) as error:
        raise Failure(f"{error}: say in '<!-- after: ... -->' which page makes that task") from error

    return str(charge_payment.using(delay=3600).push("ord-1").id)


SAMPLES: dict[str, Callable[[], Any]] = {
    "request": a_request,
    "id": a_job,
    "basket": lambda: "a basket",
    "order_id": lambda: "ord-1",
    "event_id": lambda: "evt-1",
    "path": lambda: "/",
    "year": lambda: 2026,
}


STATES = ("failed", "running", "waiting")
"""States of the job whose id a page shows, in the order in which they are tried."""


def a_job_that_is(state: str, id: str) -> str:
    """Return the id of a job in a state: the one that a page shows, or a new one for ``ID``."""
    from jobify_django.models import Job

    if id == "ID":
        id = a_job()
    elif not Job.objects.filter(id=id).exists():
        Job.objects.filter(id=a_job()).update(id=id)
    ended = 1.0 if state == "failed" else None
    Job.objects.filter(id=id).update(
        status=state, attempt=1, started_at=1.0, ended_at=ended, lease_until=None if ended else 1e10
    )
    return id


def is_as_shown(failure: str, output: str, shown: list[str]) -> bool:
    """Whether a command ended, and said, what the page shows.

    A longer output depends on what the reader has, so of that only success is compared.
    """
    if shown and shown[0].startswith("CommandError: "):
        return failure == shown[0]
    return not failure and (len(shown) != 1 or shape(shown[0]) in map(shape, output.splitlines()))


def execute(arguments: list[str], out: io.StringIO) -> str:
    """Run manage.py, and return how it failed; nothing if it did not."""
    from django.core.management import CommandError, ManagementUtility, color

    color.color_style = lambda force_color=False: color.no_style()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            ManagementUtility(arguments).execute()
        except SystemExit as end:
            if end.code:
                lines = out.getvalue().splitlines()
                return next((line for line in lines if line.startswith("CommandError: ")), f"exit {end.code}")
        except CommandError as error:
            return f"CommandError: {error}"
    return ""


def shape(line: str) -> str:
    """Return a line of output without its numbers and ids."""
    return re.sub(r"\d+", "0", ID.sub("ID", line)).strip()


@contextlib.contextmanager
def at_work() -> Iterator[None]:
    """Run jobs on a thread while the block runs."""
    from jobify_django.pool import Service

    ready = threading.Event()
    stop: list[Callable[[], object]] = []
    failed: list[BaseException] = []

    async def serve() -> None:
        service, stopped = Service(), asyncio.Event()
        await service.start()
        loop = asyncio.get_running_loop()
        stop.append(lambda: loop.call_soon_threadsafe(stopped.set))
        ready.set()
        await stopped.wait()
        await service.drain(PATIENCE)

    def run() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:
            failed.append(error)
        finally:
            ready.set()

    thread = threading.Thread(target=run)
    thread.start()
    ready.wait(PATIENCE)
    try:
        if failed:
            raise failed[0]
        yield
    finally:
        for call in stop:
            call()
        thread.join(PATIENCE)


if __name__ == "__main__":
    main()
