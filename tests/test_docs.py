"""The documentation, held to the code: nothing is missing or invented, examples compile, links lead on."""

from __future__ import annotations

import argparse
import ast
import importlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.core.management import call_command
from django.core.management.base import CommandParser

import jobify_django
from jobify_django import JobifyError, checks, conf, exceptions
from jobify_django.management.commands import jobs, runjobs

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
REFERENCE = DOCS / "reference"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
PAGES = [page for page in PAGES if "_build" not in page.parts]

FENCE = re.compile(r"^( *)```(\S*)[^\n]*\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
OPTION = re.compile(r"--[a-z][a-z-]*")


def relative(page: Path) -> str:
    return str(page.relative_to(ROOT))


def sections(page: Path, level: int) -> dict[str, str]:
    """Return the text under each heading of this level, by the heading without its backticks."""
    mark = "#" * level
    parts = re.split(rf"^{mark} (.+)$", page.read_text(), flags=re.MULTILINE)
    return {
        heading.replace("`", ""): re.split(rf"^#{{1,{level}}} ", text, maxsplit=1, flags=re.MULTILINE)[0]
        for heading, text in zip(parts[1::2], parts[2::2], strict=True)
    }


def python_blocks(page: Path) -> Iterator[tuple[int, str]]:
    """Yield the line and the code of each Python block."""
    text = page.read_text()
    for found in FENCE.finditer(text):
        if found[2] in ("python", "py"):
            indent = len(found[1])
            code = "\n".join(line[indent:] for line in found[3].splitlines())
            yield text.count("\n", 0, found.start()) + 1, code


# Settings

SETTINGS = sections(REFERENCE / "settings.md", 2)


def test_every_setting_is_documented_and_none_invented() -> None:
    documented = [heading for heading in SETTINGS if heading.isupper()]

    assert documented == list(conf.DEFAULTS)


@pytest.mark.parametrize("key", conf.DEFAULTS)
def test_the_documented_default_is_the_default(key: str) -> None:
    documented = re.search(r"^- Default: `([^`]+)`", SETTINGS[key], re.MULTILINE)

    assert documented is not None
    assert ast.literal_eval(documented[1]) == conf.DEFAULTS[key]


@pytest.mark.parametrize("key", conf.DEFAULTS)
def test_what_a_queue_may_override_is_documented(key: str) -> None:
    documented = re.search(r"^- A queue may override it: (yes|no)\b", SETTINGS[key], re.MULTILINE)

    assert documented is not None
    assert (documented[1] == "yes") == (key in conf.QUEUE_KEYS)


@pytest.mark.parametrize("key", ["WORKERS", "MAXSIZE", "MAX_WAITING_PUSHES", "LEASE", "GRACE", "MAX_PAYLOAD"])
def test_the_documented_range_is_the_range(key: str) -> None:
    documented = re.search(r"^- Type: .*?(\d+) to (\d+)", SETTINGS[key], re.MULTILINE)

    assert documented is not None
    least, most = int(documented[1]), int(documented[2])

    for value in (least, most):
        assert conf.problems({key: value}) == []
    for value in (least - 1, most + 1):
        assert [problem.id for problem in conf.problems({key: value})] == ["E003"]


# Checks, errors, names


def test_every_check_is_documented_and_none_invented() -> None:
    source = "".join(Path(str(module.__file__)).read_text() for module in (checks, conf))
    used = set(re.findall(r'"(?:jobify\.)?([EWI]\d{3})"', source))
    documented = [heading.removeprefix("jobify.") for heading in sections(REFERENCE / "checks.md", 3)]

    assert sorted(documented) == sorted(used)


def test_every_error_is_documented_exported_and_none_invented() -> None:
    classes = [value for value in vars(exceptions).values() if isinstance(value, type)]
    errors = {one.__name__ for one in classes if issubclass(one, JobifyError)}
    page = REFERENCE / "errors.md"
    documented = [heading for level in (2, 3) for heading in sections(page, level) if heading.isidentifier()]

    assert sorted(set(documented) - {"Pushing", "Stores"}) == sorted(errors)
    assert errors <= set(jobify_django.__all__)


@pytest.mark.parametrize("name", [n for n in jobify_django.__all__ if not n.isupper()])
def test_every_public_name_is_in_the_reference(name: str) -> None:
    text = (REFERENCE / "api.md").read_text() + (REFERENCE / "errors.md").read_text()

    assert re.search(rf"\b{name}\b", text)


# Commands


def options_of(parser: argparse.ArgumentParser) -> set[str]:
    shown = [action for action in parser._actions if action.help is not argparse.SUPPRESS]
    return {option for action in shown for option in action.option_strings} - {"-h", "--help"}


def subparsers() -> dict[str, argparse.ArgumentParser]:
    parser = CommandParser()
    jobs.Command().add_arguments(parser)
    (found,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    return dict(found.choices)


def documented_options(text: str) -> set[str]:
    """Return the options in the first column of a section's tables."""
    cells = [line.split("|")[1] for line in text.splitlines() if line.startswith("|")]
    return {option for cell in cells for option in OPTION.findall(cell)}


def test_every_option_of_runjobs_is_documented_and_none_invented() -> None:
    parser = CommandParser()
    runjobs.Command().add_arguments(parser)

    assert documented_options(sections(REFERENCE / "commands.md", 2)["runjobs"]) == options_of(parser)


def test_every_subcommand_of_jobs_is_documented_in_its_order() -> None:
    headings = [heading for heading in sections(REFERENCE / "commands.md", 3) if heading.startswith("jobs ")]

    assert headings == [f"jobs {name}" for name in subparsers()]


@pytest.mark.parametrize("name", subparsers())
def test_every_option_of_a_subcommand_is_documented_and_none_invented(name: str) -> None:
    text = sections(REFERENCE / "commands.md", 3)[f"jobs {name}"]

    assert documented_options(text) == options_of(subparsers()[name])
    assert f"manage.py jobs {name}" in text, "an example"


def test_every_logged_event_is_documented_and_none_invented() -> None:
    package = Path(str(jobify_django.__file__)).parent
    source = "".join(page.read_text() for page in package.rglob("*.py"))
    logged = set(re.findall(r'"event=([a-z]+(?:-[a-z]+)*)', source))
    jobs, _, table = sections(REFERENCE / "commands.md", 3)["The log"].partition("Other events")
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    rows += re.findall(r"^\| `event` \|(.*)\|$", jobs, re.MULTILINE)

    assert {event for row in rows for event in re.findall(r"`([a-z-]+)`", row)} == logged


# Examples and links

SITE = """
from django.urls import path

from shop import views

urlpatterns = [path("checkout/", views.checkout), path("acheckout/", views.acheckout)]
"""
SITE_SETTINGS = """
INSTALLED_APPS += ["jobify_django", "shop"]
MIDDLEWARE += ["jobify_django.middleware.QueueFullMiddleware"]
JOBIFY = {"PRIORITIES": {"critical": 100, "background": 5}}
"""
INI = "[pytest]\nDJANGO_SETTINGS_MODULE = mysite.test_settings\nasyncio_mode = auto\n"


@pytest.mark.slow
def test_the_samples_of_testing_and_of_views_run(tmp_path: Path) -> None:
    """A new project gets the tasks and views of one page, and passes the tests of the other."""
    call_command("startproject", "mysite", str(tmp_path))
    views = [code for _, code in python_blocks(DOCS / "howto" / "backpressure-in-views.md")]
    samples = [code for _, code in python_blocks(DOCS / "howto" / "test-your-tasks.md")]
    tests = [code for code in samples if "def test_" in code]
    (settings,) = [code for code in samples if code.startswith("from mysite.settings import")]
    (database,) = [code for code in samples if code.startswith("DATABASES")]
    (fixture,) = [code for code in samples if "def empty_queues" in code]
    shop = tmp_path / "shop"
    shop.mkdir()
    (shop / "__init__.py").touch()
    # Its stub gets a body that can fail, for the test of a failing job.
    body = "\n    if not path.startswith('/'):\n        raise ValueError(f'{path!r} is no path')\n"
    (shop / "tasks.py").write_text(views[0].removesuffix(" ...") + body)
    (shop / "views.py").write_text(views[1])
    with (tmp_path / "mysite" / "settings.py").open("a") as file:
        file.write(SITE_SETTINGS)
    (tmp_path / "mysite" / "urls.py").write_text(SITE)
    (tmp_path / "mysite" / "test_settings.py").write_text(f"{settings}\n{database}\n")
    (tmp_path / "conftest.py").write_text(fixture)
    (tmp_path / "pytest.ini").write_text(INI)
    for number, code in enumerate(tests):
        (shop / f"test_{number}.py").write_text(code)

    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "mysite.test_settings", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )

    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert f"{sum(code.count('def test_') for code in tests)} passed" in ended.stdout


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_python_in_the_docs_compiles_and_imports_names_that_exist(page: Path) -> None:
    for line, code in python_blocks(page):
        place = f"{relative(page)}:{line}"
        tree = compile(code, place, "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "jobify_django":
                module = importlib.import_module(str(node.module))
                for name in node.names:
                    assert hasattr(module, name.name), f"{place}: {node.module} has no {name.name}"


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_relative_links_lead_to_files(page: Path) -> None:
    prose = FENCE.sub("", page.read_text())
    for target in LINK.findall(prose):
        path = target.partition("#")[0]
        if path and not re.match(r"[a-z]+:", path):
            assert (page.parent / path).exists(), f"{relative(page)} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_commands_in_the_docs_exist(page: Path) -> None:
    known = subparsers()
    for _, language, code in FENCE.findall(page.read_text()):
        if language not in ("console", "text"):
            continue
        for name, rest in re.findall(r"^ *\$ .*manage\.py jobs ([a-z]+)(.*)$", code, re.MULTILINE):
            assert name in known, f"{relative(page)}: jobs {name}"
            unknown = set(OPTION.findall(rest)) - options_of(known[name])
            assert not unknown, f"{relative(page)}: jobs {name} {unknown}"
