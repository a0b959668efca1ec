"""The house itself: the ground that every other test stands on."""

import ast
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
from django.contrib.auth.models import Group
from django.core.management import call_command
from django.db import connection

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "jobify_django"
OURS = ("jobify_django", "chaos", "benchmarks", "project", "tests")
PRIVATE = re.compile(r"_[a-zA-Z][a-zA-Z0-9_]*")
MADE = re.compile(r"(?:def|class) (_\w+)|\b(?:self|cls)\.(_\w+)|^ *(_\w+)\b.* =", re.MULTILINE)
"""Where a private name is given to a function, a class, an attribute or a variable."""

PUBLIC = {"_replace", "_asdict", "_fields", "_meta"}
"""Names of named tuples and of Django's models that are public although they look private."""

OF_THE_MACHINE = frozenset(
    {"_thread", "concurrent", "queue", "random", "sched", "secrets", "threading", "time"}
)
"""Modules that give time, chance and threads."""

CALLS_OF_THE_MACHINE = frozenset(
    {
        "asgiref.sync.sync_to_async",
        "datetime.now",
        "datetime.utcnow",
        "date.today",
        "os.getpid",
        "os.urandom",
        "timezone.now",
        "uuid.uuid1",
        "uuid.uuid4",
    }
)
"""The same, from modules that are good for more."""

BY_THEMSELVES = (
    "runtime.py",  # the one place
    "pool/forking.py",  # what forks is this very process, whatever machine a pool was handed
    # Doors and tools: each is a process's own, and what they start is handed to nobody.
    "asgi.py",
    "apps.py",
    "checks.py",
    "admin/",
    "management/",
    "testing/",
)


@pytest.mark.django_db(transaction=True)
def test_threads_meet_in_the_database() -> None:
    Group.objects.create(name="written by the test")
    seen: list[str] = []

    def read() -> None:
        try:
            seen.extend(Group.objects.values_list("name", flat=True))
        finally:
            connection.close()

    thread = threading.Thread(target=read)
    thread.start()
    thread.join()

    assert seen == ["written by the test"]


@pytest.mark.django_db(transaction=True)
def test_processes_meet_in_the_database(child_environment: dict[str, str]) -> None:
    Group.objects.create(name="written by the test")
    program = """
import django
django.setup()
from django.contrib.auth.models import Group
print(Group.objects.get())
"""

    child = subprocess.run(
        [sys.executable, "-c", program], env=child_environment, cwd=ROOT, capture_output=True, text=True
    )

    assert child.stdout.strip() == "written by the test", child.stderr


@pytest.mark.django_db
def test_the_migrations_match_the_models() -> None:
    call_command("makemigrations", "--check", "--dry-run", verbosity=0)


def test_the_changelog_knows_this_version() -> None:
    headings = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)

    assert headings[0] in {"Unreleased", version("jobify-django")}


def test_tests_do_not_reach_into_privates() -> None:
    """They read what everybody may read, or break something real: a private may go at any time."""
    files = [file for folder in OURS for file in (ROOT / folder).rglob("*.py")]
    private = {name for file in files for names in MADE.findall(file.read_text()) for name in names}
    assert {"_upkeep", "_tasks", "_spell"} <= private
    found = [
        f"{file.relative_to(ROOT).as_posix()}:{line} {name}"
        for file in sorted([*(ROOT / "tests").rglob("*.py"), *(PACKAGE / "testing").rglob("*.py")])
        # The simulator compares all that a store holds, and drives an event loop by itself.
        if "simulation" not in file.parts
        for name, line in reached(ast.parse(file.read_text()))
        if name in private and name not in PUBLIC
    ]

    assert found == []


def test_a_reach_into_a_private_is_found() -> None:
    source = """
from somewhere import _a
from somewhere import _b as b
x._c.d
x._e = 1
setattr(x, "_f", 1)
monkeypatch.setattr("some.where._g", 1)
patch.object(x, "_h")
getattr(x, "_i", None)
vars(x)["_j"]
super()._k()
self._l = self.m._n
"""

    assert {name for name, _ in reached(ast.parse(source))} == {f"_{letter}" for letter in "abcefghijn"}


def reached(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Yield the private names that a module reaches into, and the lines: not a class's own, by ``self``,
    ``cls`` or ``super()``; those of a class it derives from are its own."""
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id="self" | "cls")):
                continue
            case ast.Attribute(value=ast.Call(func=ast.Name(id="super"))):
                continue
            case ast.Attribute(attr=name):
                names = [name]
            case ast.ImportFrom(names=aliases):
                names = [alias.name for alias in aliases]
            case ast.Call(args=[_, ast.Constant(value=str(name)), *_]):
                names = [name]
            case ast.Call(args=[ast.Constant(value=str(path)), *_]) if "." in path:
                names = [path.rpartition(".")[2]]
            case ast.Subscript(value=ast.Call(), slice=ast.Constant(value=str(name))):
                names = [name]
            case _:
                continue
        for name in names:
            if PRIVATE.fullmatch(name):
                yield name, node.lineno


def taken_from_the_machine(source: str) -> Iterator[str]:
    """Yield what a module takes from the machine by itself, instead of from a ``Runtime``."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            names = [f"{node.value.id}.{node.attr}"]
        else:
            continue
        for name in names:
            module = isinstance(node, ast.Import | ast.ImportFrom) and name.split(".")[0] in OF_THE_MACHINE
            if module or name in CALLS_OF_THE_MACHINE:
                yield name


def test_time_chance_and_threads_come_from_the_runtime_alone() -> None:
    # Or a simulation would have to replace modules, and a test could not hand in a clock.
    modules = {path.relative_to(PACKAGE).as_posix(): path for path in PACKAGE.rglob("*.py")}
    taken = {
        name: sorted(set(taken_from_the_machine(path.read_text())))
        for name, path in modules.items()
        if not name.startswith(BY_THEMSELVES)
    }

    assert {name: what for name, what in taken.items() if what} == {}
    assert len(taken) > 80


@pytest.mark.parametrize(
    "source",
    [
        "import time",
        "import threading as t",
        "def f():\n    from random import uniform",
        "import concurrent.futures",
        "from asgiref.sync import AsyncToSync, sync_to_async",
        "from os import getpid",
        "import os\nos.urandom(9)",
        "from django.utils import timezone\ntimezone.now()",
    ],
)
def test_what_is_taken_from_the_machine_is_seen(source: str) -> None:
    assert len(list(taken_from_the_machine(source))) == 1


@pytest.mark.parametrize(
    "source", ["import os\nos.path.join", "import asyncio", "from asgiref.sync import AsyncToSync"]
)
def test_what_is_not_of_the_machine_is_let_be(source: str) -> None:
    assert list(taken_from_the_machine(source)) == []
