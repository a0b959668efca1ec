"""A project made by ``django-admin startproject``, into which blocks are pasted."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Self

from tests.blocks.page import INSTALL, ROOT, Block, blocks, followed_before
from tests.blocks.reading import SET_UP, file_of, runs
from tests.child import PATIENCE

SHOP = '\nINSTALLED_APPS += ["shop"]\n'
WHOLE = {"mysite/asgi.py", "mysite/urls.py"}
"""Files of Django's own that a block replaces; to all others it is added."""


class Readers:
    """A process that readers are forked from."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.blocks.reader"],
            env=an_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def follow(self, directory: Path, steps: Sequence[dict[str, Any]]) -> str:
        """Do these steps in a directory; return what went wrong."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps({"directory": str(directory), "steps": steps}), file=self._process.stdin, flush=True)
        return str(json.loads(self._process.stdout.readline()))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.communicate()


class Project:
    """The project ``mysite`` with the app ``shop``.

    Args:
        directory: where it is.
        readers: who does things in it.
    """

    def __init__(self, directory: Path, readers: Readers) -> None:
        self.directory = directory
        self._readers = readers
        self._pasted: dict[str, list[Block]] = {}

    def start(self) -> None:
        """Make the project, and the app in it."""
        self.directory.mkdir(parents=True, exist_ok=True)
        self.read([{"place": "startproject", "new": "django-admin startproject mysite ."}])
        self.read([{"place": "startapp", "new": "manage.py startapp shop"}])
        self._add("mysite/settings.py", SHOP)

    def fill(self, projects: Path, page: Path) -> None:
        """Begin as somebody who has followed the pages that come before this one.

        Args:
            projects: where ``make`` has made some to copy.
            page: the page.
        """
        before = followed_before(page)
        shutil.copytree(projects / ("installed" if before else "bare"), self.directory)
        for one in before[1:]:
            self.paste_all(block for block in blocks(one) if block.note != "only here")

    def paste_all(self, some: Iterable[Block]) -> None:
        """Paste those that go into files."""
        for block in some:
            if runs(block) and file_of(block):
                self.paste(block, file_of(block))

    def paste(self, block: Block, name: str) -> None:
        """Write a block to a file, in place of one that it defines anew."""
        if name == "mysite/settings.py":
            self._add(name, f"\n# {block}\n{block.text}")
            return
        pasted = self._pasted.setdefault(name, [])
        pasted[:] = [one for one in pasted if name not in WHOLE and not _again(one, block)]
        pasted.append(block)
        file = self.directory / name
        file.parent.mkdir(exist_ok=True)
        file.write_text("\n\n".join(f"# {one}\n{one.text}" for one in pasted))

    def read(self, steps: Sequence[dict[str, Any]]) -> str:
        """Let a reader do these steps in a process of its own; return what went wrong."""
        return self._readers.follow(self.directory, steps)

    def run(self, *arguments: str) -> str:
        """Run Python with these arguments in the project, and return its output."""
        ended = subprocess.run(
            [sys.executable, *arguments],
            cwd=self.directory,
            env=an_environment(),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert ended.returncode == 0, f"{' '.join(arguments)}\n{ended.stdout}{ended.stderr}"
        return ended.stdout

    def _add(self, name: str, text: str) -> None:
        with (self.directory / name).open("a") as file:
            file.write(text)


def _again(old: Block, new: Block) -> bool:
    """Whether a block defines all that another has."""
    return bool(old.defined) and old.defined <= new.defined


def an_environment() -> dict[str, str]:
    """Return the environment of somebody who knows nothing of this test run but where the package is."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("DJANGO_", "PY"))}
    return {**ours, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}


def make(directory: Path, readers: Readers) -> None:
    """Make a bare project in a directory, and beside it one with the app installed and its tables made."""
    Project(directory / "bare", readers).start()
    shutil.copytree(directory / "bare", directory / "installed")
    project = Project(directory / "installed", readers)
    project.paste_all(blocks(INSTALL))
    trouble = project.read([SET_UP, {"place": "migrate", "command": "python manage.py migrate", "shown": []}])
    assert not trouble, trouble
