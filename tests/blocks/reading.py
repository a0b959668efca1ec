"""What a reader does with each block, in which file and in which order."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.blocks.page import ROOT, Block, Command, blocks, relative

STAYING = ("python manage.py runjobs", "python manage.py jobs status --watch", "python -m uvicorn")
"""Commands that run until they are stopped: ``tests/servers/test_blocks.py`` starts them."""

NOT_RUN = {
    "python -m pip install": "it installs; .ci/smoke installs the wheel and uses it",
    "pip install --group": "it installs; .ci/run makes its environments so",
    "git tag": "it makes a release",
    "git push": "it makes a release",
    "python -m venv": "it installs; .ci/smoke makes an environment so",
    "/tmp/released/": "it installs a release; .ci/smoke installs the wheel and uses it",
    "kill -USR1": "the process is the reader's; tests/servers/test_processes.py sends that signal",
}
"""Why a command is not run, by its beginning."""

OF_THE_CHECKOUT = (
    ".venv/bin/python -m",
    "EXAMPLES=5000 .venv/bin/python -m",
    "python -m tests",
    "python -m benchmarks",
)
"""Commands that contributors type, in a checkout: only looked at, to name what exists."""

IN_THE_PROJECT = ("python manage.py ", "sqlite3 ", "find ", "mv jobs-", "rm -f jobs.")
"""Commands of a project's owner: the reader types them."""

SET_UP = {"place": "mysite/settings.py", "set up": True}
"""What a reader does first, with new settings."""

FOLLOWED = "docs/tutorial/"
"""Pages that tests/servers/test_tutorial.py follows, all of them."""


def python(page: Path) -> list[Block]:
    """Return the blocks in Python of a page."""
    return [block for block in blocks(page) if block.language == "python"]


def readings(page: Path) -> Iterator[list[Block]]:
    """Yield the blocks that are read in one process: whenever settings change, another begins."""
    part: list[Block] = []
    if relative(page).startswith(FOLLOWED):
        return
    for block in blocks(page):
        if not runs(block):
            continue
        settings = block.language == "python" and block.is_settings
        if settings and any(not (one.language == "python" and one.is_settings) for one in part):
            yield part
            part = []
        part.append(block)
    if part:
        yield part


def runs(block: Block) -> bool:
    """Whether a reader of these tests does something with it, in the project."""
    if block.language == "console":
        return any(map(is_typed, block.commands))
    if block.language == "ini":
        return bool(block.file)
    if block.language != "python" or block.note.startswith("not run"):
        return False
    needed = block.note.removeprefix("needs ") if block.note.startswith("needs") else ""
    return not block.is_script and not (needed and importlib.util.find_spec(needed) is None)


def is_asgi(block: Block) -> bool:
    """Whether a server is started with it."""
    return file_of(block).endswith("asgi.py")


def is_typed(command: Command) -> bool:
    """Whether a command is one of the project's, and ends by itself."""
    there = command.typed.startswith("python ") or shutil.which(command.typed.split()[0])
    return bool(there) and command.typed.startswith(IN_THE_PROJECT) and not command.typed.startswith(STAYING)


def file_of(block: Block) -> str:
    """Return the file a block is pasted into; tests go where those above them went."""
    if block.language != "python" or block.file:
        return block.file
    if block.is_settings:
        return "mysite/settings.py"
    above = [one for one in python(ROOT / block.page) if one.line < block.line and one.has_tests and one.file]
    return above[-1].file if block.has_tests and above else ""


def steps(block: Block) -> Iterator[dict[str, Any]]:
    """Yield what a reader does with a block that is in its file already, or goes into none."""
    place, file = str(block), file_of(block)
    if block.language == "console":
        for command in filter(is_typed, block.commands):
            yield {"place": place, "command": command.typed, "shown": command.shown}
    elif file.endswith("models.py"):
        for name in ("makemigrations shop", "migrate"):
            yield {"place": place, "command": f"python manage.py {name}", "shown": []}
    elif not block.is_settings and not is_asgi(block) and block.language == "python":
        yield {"place": place, "text": block.text, "file": file, "call": not block.has_tests}
