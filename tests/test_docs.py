"""The documentation, held to the code: nothing is missing or invented, and links lead on.

``tests/test_blocks.py`` pastes and types its code blocks.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import re
from pathlib import Path

import pytest
from django.apps import apps
from django.core.management.base import CommandParser

import jobify_django
from jobify_django import JobifyError, JobStatus, checks, conf, exceptions, outcome
from jobify_django.job import Claim
from jobify_django.management.commands import jobs, runjobs
from tests.blocks.page import DOCS, FENCE, PAGES, blocks, relative

REFERENCE = DOCS / "reference"

LINK = re.compile(r"\]\(([^)\s]+)\)")
OPTION = re.compile(r"--[a-z][a-z-]*")


def sections(page: Path, level: int) -> dict[str, str]:
    """Return the text under each heading of this level, by the heading without its backticks."""
    mark = "#" * level
    parts = re.split(rf"^{mark} (.+)$", page.read_text(), flags=re.MULTILINE)
    return {
        heading.replace("`", ""): re.split(rf"^#{{1,{level}}} ", text, maxsplit=1, flags=re.MULTILINE)[0]
        for heading, text in zip(parts[1::2], parts[2::2], strict=True)
    }


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


def test_the_picture_of_the_errors_is_their_tree() -> None:
    (picture,) = [block.text for block in blocks(REFERENCE / "errors.md") if block.language == "text"]
    line = re.compile(r"^((?:[│ ] {3})*)(?:[├└]── )?(\w+)(?: \((\w+)\))?$")
    parents: list[type] = []
    for prefix, name, also in (line.findall(text)[0] for text in picture.splitlines()):
        error = getattr(jobify_django, name)
        del parents[len(prefix) // 4 + 1 :]
        if parents:
            bases = [parents[-1].__name__, *([also] if also else [])]
            assert sorted(base.__name__ for base in error.__bases__) == sorted(bases), name
        parents.append(error)


@pytest.mark.parametrize("name", [n for n in jobify_django.__all__ if not n.isupper()])
def test_every_public_name_is_in_the_reference(name: str) -> None:
    text = (REFERENCE / "api.md").read_text() + (REFERENCE / "errors.md").read_text()

    assert re.search(rf"\b{name}\b", text)


# What is public

PUBLIC = sections(REFERENCE / "stability.md", 2)["Names in Python"]
DIRECTIVE = re.compile(r"^\.\. auto(?:class|data|function):: (jobify_django[\w.]*)\.(\w+)", re.MULTILINE)
MEMBERS = re.compile(r"^\.\. automodule:: (jobify_django[\w.]*)\n +:members: (.+)$", re.MULTILINE)
IMPORT = re.compile(r"^ *from (jobify_django[\w.]*) import ([\w, ]+)$", re.MULTILINE)


def public_names() -> set[tuple[str, str]]:
    """Return each name in a module that the page about stability calls public, with that module."""
    rows = re.findall(r"^\| `(jobify_django\.[\w.]+)` \| ([^:|]+)", PUBLIC, re.MULTILINE)
    return {(module, name) for module, names in rows for name in re.findall(r"`(\w+)`", names)}


def documented_names() -> set[tuple[str, str]]:
    """Return each name in a module that the reference documents, or a page imports."""
    reference = (REFERENCE / "api.md").read_text()
    found = set(DIRECTIVE.findall(reference))
    pages = "".join(page.read_text() for page in PAGES)
    for module, names in [*MEMBERS.findall(reference), *IMPORT.findall(pages)]:
        found |= {(module, name.strip()) for name in names.split(",")}
    return {(module, name) for module, name in found if module != "jobify_django"}


def test_every_name_of_the_package_is_said_to_be_public_and_none_invented() -> None:
    (line,) = re.findall(r"^From `jobify_django` itself:\n\n(.+?)\n\n", PUBLIC, re.MULTILINE | re.DOTALL)

    assert re.findall(r"`(\w+)`", line) == jobify_django.__all__


def test_every_documented_name_of_a_module_is_said_to_be_public_and_none_invented() -> None:
    assert public_names() == documented_names()


@pytest.mark.parametrize(("module", "name"), sorted(public_names()))
def test_a_public_name_is_where_it_is_said_to_be(module: str, name: str) -> None:
    assert hasattr(importlib.import_module(module), name)


def test_the_tables_and_loggers_that_are_said_to_be_public_are_those_there_are() -> None:
    rows = dict(
        re.findall(
            r"^\| (.+?) \| (.+) \|$", sections(REFERENCE / "stability.md", 2)["What is not Python"], re.M
        )
    )
    models = apps.get_app_config("jobify_django").get_models()
    package = Path(str(jobify_django.__file__)).parent
    source = "".join(page.read_text() for page in package.rglob("*.py"))

    assert set(re.findall(r"`(jobify_\w+)`", rows["the database"])) == {one._meta.db_table for one in models}
    assert set(re.findall(r"`(jobify[.a-z]*)`", rows["[the log](commands.md#the-log)"])) == {
        "jobify",
        *re.findall(r'get_log\("([\w.]+)"\)', source),
    }


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


# The states of a job

STATES = sections(DOCS / "explanation" / "how-it-works.md", 2)["The states of a job"]


def documented_ways() -> set[tuple[str, str, str]]:
    """Return what the table says: from which state, to which, by which verb."""
    rows = [
        [cell.strip() for cell in line.split("|")[1:4]] for line in STATES.splitlines() if line[:2] == "| "
    ]
    return {
        (one, other, verb)
        for before, after, verbs in rows[1:]
        for one in before.split(", ")
        for other in after.split(", ")
        for verb in verbs.split(", ")
    }


def ways_of_the_rule() -> set[tuple[str, str, str]]:
    """Return what the rule makes of each outcome: of a running job, and of one that is retried."""
    job = Claim("1", 1, "default", "task", "[[], {}]", 0, pushed_at=0.0, eligible_at=0.0, started_at=0.0)
    settled = [
        outcome.succeeded(job),
        outcome.failed(job),
        outcome.cancelled(job),
        outcome.released(job, "its pool stopped"),
        outcome.released(job, "later", until=9.0),
    ]
    rescued = [outcome.expired(job, 3.0, None), outcome.expired(job, 3.0, (2.0, 4.0))]
    verbs = {"settle": settled, "rescue": rescued, "reconcile": [outcome.released(job, outcome.LOST_REPLY)]}
    running = {
        (JobStatus.RUNNING, outcome.next_state(one, crashes=crashes, cancel_requested=asked, now=5.0), verb)
        for verb, outcomes in verbs.items()
        for one in outcomes
        for crashes in range(outcome.CRASH_LIMIT)
        for asked in (False, True)
    }
    retried = outcome.next_state(outcome.retried(job), crashes=2, cancel_requested=True, now=5.0)
    return {(before, then.status, verb) for before, then, verb in running} | {
        (before, retried.status, "retry") for before in (JobStatus.FAILED, JobStatus.CANCELLED)
    }


def test_the_states_of_a_job_are_those_of_the_rule() -> None:
    documented = documented_ways()
    others = {
        ("", "waiting", "push"),
        ("", "delayed", "push"),
        ("delayed", "waiting", "claim"),
        ("waiting", "running", "claim"),
        ("waiting", "cancelled", "cancel"),
        ("delayed", "cancelled", "cancel"),
        *((status, "", "prune") for status in JobStatus if status.ended),
    }

    assert documented == ways_of_the_rule() | others


def test_the_picture_has_every_state_and_every_verb() -> None:
    picture = (DOCS / "images" / "states.svg").read_text()
    states = re.findall(r'<g class="state \w+"><rect [^>]*/><text [^>]*>(\w+)<', picture)
    verbs = re.findall(r'<tspan class="verb">(\w+)<', picture)

    assert sorted(states) == sorted(JobStatus)
    assert set(verbs) == {verb for _, _, verb in documented_ways()}


# The words inside


def test_the_words_inside_name_files_and_names_that_there_are() -> None:
    text = (DOCS / "contributing" / "glossary.md").read_text()
    package = Path(str(jobify_django.__file__)).parent
    source = "".join(page.read_text() for page in package.rglob("*.py"))
    files = re.findall(r"`([\w/]+(?:\.py|/))`", text)
    classes = {name: body for name, body in re.findall(r"^class (\w+)(.+?)^(?=\S)", source, re.M | re.S)}
    names = re.findall(r"`([A-Z][a-z]\w*)(?:\.(\w+))?`", text)

    assert len(files) > 30
    assert [file for file in files if not (package.parent / file).exists() | (package / file).exists()] == []
    assert len(names) > 5
    assert [name for name, _ in names if name not in classes] == []
    assert [
        (name, attribute)
        for name, attribute in names
        if not re.search(rf"(?:def |self\.|^    ){attribute}\b", classes[name], re.MULTILINE)
    ] == []
    assert [word for word in re.findall(r"`(\w+)`", text) if not re.search(rf"\b{word}\b", source)] == []


# Decisions

DECISIONS = sorted(page for page in (DOCS / "decisions").glob("*.md") if page.name != "index.md")


@pytest.mark.parametrize("page", DECISIONS, ids=lambda page: page.stem)
def test_a_decision_says_why_what_follows_and_what_was_measured(page: Path) -> None:
    assert list(sections(page, 2)) == ["Context", "Decision", "Consequences", "What was measured"]


@pytest.mark.parametrize("page", DECISIONS, ids=lambda page: page.stem)
def test_each_figure_of_a_decision_stands_on_a_page_that_it_names(page: Path) -> None:
    measured = sections(page, 2)["What was measured"]
    targets = [target.partition("#")[0] for target in LINK.findall(measured)]
    sources = "".join((page.parent / target).read_text() for target in targets)
    figures = re.findall(r"\d[\d,.]*\d", measured)

    assert [one for one in figures if not re.search(rf"(?<![\d,.]){re.escape(one)}(?![\d])", sources)] == []


# Links


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_relative_links_lead_to_files(page: Path) -> None:
    prose = FENCE.sub("", page.read_text())
    for target in LINK.findall(prose):
        path = target.partition("#")[0]
        if path and not re.match(r"[a-z]+:", path):
            assert (page.parent / path).exists(), f"{relative(page)} links to {target}"
