"""Every code block of the README and the documentation does what a reader expects who pastes or types it.

A block that nobody accounts for fails, so none comes without. ``tests/blocks/page.py`` tells how a block says
where it is pasted, ``tests/servers/test_blocks.py`` starts what must run for longer, and
``tests/servers/test_tutorial.py`` follows the tutorial. What other programs read (YAML, systemd's units) is
parsed, and its commands with it.
"""

from __future__ import annotations

import configparser
import importlib.util
import json
import re
import shlex
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
from django.core.management import load_command_class
from django.core.management.base import CommandError
from django.db import connection

from tests.blocks.page import PAGES, ROOT, Block, blocks, relative
from tests.blocks.project import Project, Readers
from tests.blocks.reading import (
    FOLLOWED,
    IN_THE_PROJECT,
    NOT_RUN,
    OF_THE_CHECKOUT,
    SET_UP,
    file_of,
    is_asgi,
    python,
    readings,
    runs,
    steps,
)

SHOWN = {"text": "a picture, or output", "{eval-rst}": "Sphinx", "{toctree}": "Sphinx", "{include}": "Sphinx"}
"""Languages of blocks that nobody pastes, and who reads them."""

POSTGRESQL = "docs/howto/postgresql-for-dbas.md"

OURS = re.compile(r"manage\.py\W+(runjobs|jobs)\b([^|&;\n]*)")
CHOICE = """
Mend the block, so that a reader can paste it as it stands. Or say in the line above its fence where it goes,
or why it cannot run: tests/blocks/page.py has the comments, tests/blocks/reading.py the lists of commands."""


# What a block is


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=relative)
def test_each_block_is_accounted_for(page: Path) -> None:
    wrong = [f"{block}: {trouble}" for block in blocks(page) if (trouble := trouble_with(block))]

    assert not wrong, "\n".join(wrong) + CHOICE


def trouble_with(block: Block) -> str:
    """Return what is wrong with a block as far as a look at it can tell."""
    if block.note and not re.match(r"(in|needs|not run,) \S|only here$", block.note):
        return f"no such comment: {block.note!r}"
    if block.page.startswith(FOLLOWED):
        return ""  # the tutorial's test knows every language there is in it, and fails with others
    check = CHECKS.get(block.language)
    if check is None:
        return f"nobody knows what to do with {block.language!r}: put it into CHECKS, tests/test_blocks.py"
    try:
        return str(check(block))
    except (ValueError, SyntaxError, configparser.Error, CommandError) as error:
        return f"{type(error).__name__}: {error}"


def trouble_with_python(block: Block) -> str:
    compile(block.text, str(block), "exec")
    if block.missing and not block.note.startswith("not run"):
        return f"it neither imports nor defines {', '.join(block.missing)}"
    if not runs(block):
        return ""
    if (block.has_tests or block.has_tasks) and not file_of(block):
        return "the sentence above it ends without a colon, or does not name the file that it goes into"
    return ""


def trouble_with_console(block: Block) -> str:
    if not block.commands:
        return "no line begins with '$ '"
    return next(filter(None, (trouble_with_typed(command.typed) for command in block.commands)), "")


def trouble_with_typed(command: str) -> str:
    if command.startswith("make "):
        dry = ["make", "--dry-run", *shlex.split(command)[1:]]
        return subprocess.run(dry, cwd=ROOT, capture_output=True, text=True).stderr
    if command.startswith(OF_THE_CHECKOUT):
        module = command.partition(" -m ")[2].split()[0]
        return "" if importlib.util.find_spec(module) else f"there is no module {module}"
    if not command.startswith((*NOT_RUN, *IN_THE_PROJECT)):
        return f"nobody runs {command!r}: put it into one of the lists of tests/blocks/reading.py"
    return trouble_with_ours(command)


def trouble_with_commands(block: Block) -> str:
    return trouble_with_ours(block.text.replace('", "', " "))


def trouble_with_procfile(block: Block) -> str:
    return trouble_with_ours("\n".join(re.findall(r"^\w+: python .*", block.text, re.MULTILINE)))


def trouble_with_ours(text: str) -> str:
    """Parse every command of ours in a text."""
    for name, rest in OURS.findall(text):
        parser = load_command_class("jobify_django", name).create_parser("manage.py", name)
        words = shlex.split(rest.replace('"]', "").partition("  #")[0])
        try:
            parser.parse_args(words)
        except CommandError as error:
            return f"manage.py {name}{rest}: {error}"
    return ""


def trouble_with_ini(block: Block) -> str:
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(block.text)
    return trouble_with_commands(block)


def trouble_with_yaml(block: Block) -> str:
    if importlib.util.find_spec("yaml") is not None:
        importlib.import_module("yaml").safe_load(block.text)
    return trouble_with_commands(block)


def trouble_with_json(block: Block) -> str:
    json.loads(block.text)
    return ""


def trouble_with_toml(block: Block) -> str:
    tomllib.loads(block.text)
    return trouble_with_commands(block)


def trouble_with_sql(block: Block) -> str:
    return "" if block.page == POSTGRESQL else "tests/test_postgresql_page.py runs those of its page alone"


CHECKS: dict[str, Any] = {
    "sql": trouble_with_sql,
    "python": trouble_with_python,
    "console": trouble_with_console,
    "ini": trouble_with_ini,
    "toml": trouble_with_toml,
    "yaml": trouble_with_yaml,
    "json": trouble_with_json,
    **dict.fromkeys(SHOWN, trouble_with_procfile),
}


def a_block(language: str, text: str, note: str = "") -> Block:
    return Block("README.md", 1, language, text, "Type:", note)


@pytest.mark.parametrize(
    ("block", "trouble"),
    [
        (a_block("python", "charge.push()\n"), "neither imports nor defines charge"),
        (
            a_block("python", "def view(request):\n    return charge()\n"),
            "neither imports nor defines charge",
        ),
        (a_block("python", "from x import task\n\n@task\ndef a(): ...\n"), "does not name the file"),
        (a_block("python", "if True\n"), "SyntaxError"),
        (a_block("python", "import os\n", "somewhere"), "no such comment"),
        (a_block("console", "$ rm -rf jobs\n"), "nobody runs 'rm -rf jobs'"),
        (a_block("console", "$ python manage.py jobs tune mail --wrkers 4\n"), "--wrkers"),
        (a_block("console", "$ make no-such-target\n"), "No rule to make target"),
        (a_block("console", "$ python -m tests.nowhere\n"), "no module tests.nowhere"),
        (a_block("text", "worker: python manage.py runjobs --proceses 4\n"), "--proceses"),
        (a_block("yaml", 'command: ["python", "manage.py", "runjobs", "--heartbeat"]\n'), "--heartbeat"),
        (a_block("ini", "ExecStart=python manage.py runjobs\n"), "MissingSectionHeaderError"),
        (a_block("toml", "a = \n"), "TOMLDecodeError"),
        (a_block("json", "{'a': 1}\n"), "JSONDecodeError"),
        (a_block("rst", "*\n"), "nobody knows what to do with 'rst'"),
    ],
)
def test_a_block_that_is_not_whole_is_found(block: Block, trouble: str) -> None:
    assert trouble in trouble_with(block)


def test_no_reason_is_left_over() -> None:
    typed = [command.typed for page in PAGES for block in blocks(page) for command in block.commands]

    for beginning in NOT_RUN:
        assert any(one.startswith(beginning) for one in typed), f"no page says {beginning!r} any more"


# What a reader does with it

once = pytest.mark.skipif(
    connection.vendor != "sqlite", reason="its projects have databases of their own: once is enough"
)


@once
@pytest.mark.parametrize("page", [page for page in PAGES if list(readings(page))], ids=relative)
def test_a_reader_can_follow_the_page(page: Path, projects: Path, readers: Readers, tmp_path: Path) -> None:
    project = Project(tmp_path / "site", readers)
    project.fill(projects, page)
    for part in readings(page):
        project.paste_all(part)
        trouble = project.read([SET_UP, *(step for block in part for step in steps(block))])
        assert not trouble, f"{trouble}{CHOICE}"


ASGI = [block for page in PAGES for block in python(page) if is_asgi(block) and runs(block)]


@once
@pytest.mark.parametrize("block", ASGI, ids=str)
def test_a_server_can_import_the_asgi_file(
    block: Block, projects: Path, readers: Readers, tmp_path: Path
) -> None:
    project = Project(tmp_path / "site", readers)
    project.fill(projects, ROOT / block.page)
    # The tutorial calls its project otherwise.
    file = project.directory / "mysite" / "asgi.py"
    file.write_text(block.text.replace("config.settings", "mysite.settings"))

    trouble = project.read([{"place": str(block), "server": "mysite.asgi:application"}])

    assert not trouble, f"{trouble}{CHOICE}"
