"""Blocks of the documentation that start something: ``asgi.py`` in servers, ``runjobs``, scripts, tests."""

from __future__ import annotations

import re
import signal
import sqlite3
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.blocks.page import DOCS, PAGES, ROOT, Block, blocks
from tests.blocks.project import Project, Readers, an_environment
from tests.blocks.reading import FOLLOWED, STAYING, is_asgi, python, runs
from tests.child import Child, until
from tests.port import free_port
from tests.requirement import need_module
from tests.servers.server import APP, DAPHNE, HYPERCORN, UVICORN, Server

README = ROOT / "README.md"
LOGGING = """
LOGGING = {
    "version": 1,
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "root": {"handlers": ["console"], "level": "INFO"},
}
"""
"""As many projects have it: what it does not name is switched off (``disable_existing_loggers`` is true)."""


@pytest.fixture
def project(tmp_path: Path, readers: Readers) -> Project:
    return Project(tmp_path / "site", readers)


def read_to(project: Project, projects: Path, block: Block, monkeypatch: pytest.MonkeyPatch) -> None:
    """Do what the pages say up to this block, and go to the project."""
    page = ROOT / block.page
    project.fill(projects, page)
    project.paste_all(one for one in blocks(page) if one.line <= block.line)
    monkeypatch.chdir(project.directory)


# asgi.py

ASGI = [
    block
    for page in PAGES
    for block in python(page)
    if is_asgi(block) and runs(block) and not block.page.startswith(FOLLOWED)
]
SERVED = [
    *(pytest.param(block, UVICORN, "", id=f"{block}-uvicorn") for block in ASGI),
    *(pytest.param(ASGI[0], server, "", id=f"{ASGI[0]}-{server.name}") for server in (HYPERCORN, DAPHNE)),
    pytest.param(ASGI[0], UVICORN, LOGGING, id=f"{ASGI[0]}-uvicorn-logging"),
]


def test_the_readmes_asgi_file_is_among_them() -> None:
    assert ASGI[0].page == "README.md"


@pytest.mark.parametrize(("block", "server", "settings"), SERVED)
def test_a_pasted_asgi_file_serves_and_runs_jobs(
    block: Block,
    server: Server,
    settings: str,
    project: Project,
    projects: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    need_module(server.name)
    read_to(project, projects, block, monkeypatch)
    with (project.directory / "mysite" / "settings.py").open("a") as file:
        file.write(settings)
    port = free_port()
    arguments = server.arguments.replace(APP, "mysite.asgi:application").format(port=port, workers=1)
    with Child(["-m", *arguments.split()], an_environment()) as site:
        until(lambda: serves(site, port), f"{site} serving")
        if server.lifespan:
            id = push(project)
            until(lambda: status(project, id) == "successful", f"the job's end in\n{site.output}")
        assert site.end(signal.SIGTERM) == server.term_code, site.output
        assert "Traceback" not in site.output, site.output


def push(project: Project) -> str:
    """Push a job of the page's first task that charges or sends something, as somebody at a shell."""
    tasks = (project.directory / "shop" / "tasks.py").read_text()
    name = re.findall(r"^(?:async )?def (charge\w*|send\w*)\(", tasks, re.MULTILINE)[0]
    return project.run("manage.py", "jobs", "push", f"shop.tasks.{name}", '["1"]').split()[-1]


def status(project: Project, id: str) -> str:
    with closing(sqlite3.connect(project.directory / "db.sqlite3", timeout=20)) as db:
        (found,) = db.execute("SELECT status FROM jobify_job WHERE id = ?", [id]).fetchone()
    return str(found)


def serves(site: Child, port: int) -> bool:
    assert site.process.poll() is None, f"{site} has ended:\n{site.output}"
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=30) as answer:
            return bool(answer.status == 200)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code == 404
    except OSError:
        return False


# Commands that stay until they are stopped


def staying() -> Iterator[object]:
    seen = set()
    for page in PAGES:
        for block in blocks(page):
            for typed, _ in () if block.page.startswith(FOLLOWED) else block.commands:
                if typed.startswith(STAYING) and typed not in seen:
                    seen.add(typed)
                    yield pytest.param(block, typed, id=f"{block} {typed.partition(' ')[2]}")


@pytest.mark.parametrize(("block", "command"), list(staying()))
def test_a_command_that_stays_starts_and_ends(
    block: Block, command: str, project: Project, projects: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_to(project, projects, block, monkeypatch)
    ready, number = ("ready", signal.SIGTERM) if "runjobs" in command else ("default", signal.SIGINT)
    with Child(command.split()[1:], an_environment()) as typed:
        typed.wait_for(ready)
        typed.send(number)
        assert typed.end() in ((0,) if number == signal.SIGTERM else (0, 128 + number)), typed.output
        assert "Traceback" not in typed.output, typed.output


# Programs of their own

SCRIPTS = [block for page in PAGES for block in python(page) if block.is_script]


@pytest.mark.parametrize("block", SCRIPTS, ids=str)
def test_a_script_runs_as_it_is(block: Block, tmp_path: Path) -> None:
    (tmp_path / "one_file.py").write_text(block.text)
    ended = subprocess.run(
        [sys.executable, "-W", "error", "one_file.py"],
        cwd=tmp_path,
        env=an_environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    if block.page == "README.md":
        pushed = [f"pushed order {number}" for number in range(12)]
        assert ended.stdout.splitlines() == [*pushed, "charged order 11"]


# Tests of the reader's own

TESTED = DOCS / "howto" / "test-your-tasks.md"


def test_the_tests_of_the_page_about_tests_pass(project: Project, projects: Path) -> None:
    some = blocks(TESTED)
    project.fill(projects, TESTED)
    project.paste_all(some)

    said = project.run("-m", "pytest", "-q", "-p", "no:cacheprovider")
    wanted = sum(len(re.findall(r"def test_", block.text)) for block in some)
    assert f"{wanted} passed" in said
