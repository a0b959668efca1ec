"""The tutorial, followed literally: every file, command, line of Python and page in it, in order.

What a page shows is compared with what happens: ``...`` stands for anything, and times need not agree.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Self
from urllib.parse import urlencode

import pytest

from tests.blocks.page import examples
from tests.child import PATIENCE, Child
from tests.port import free_port
from tests.requirement import need_module

PAGES = sorted(
    page for page in (Path(__file__).parents[2] / "docs" / "tutorial").glob("*.md") if page.stem != "index"
)
BLOCK = re.compile(r"^```(\S+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
# The environment that runs this test stands for the one a reader makes.
INSTALLING = ("python3 -m venv", "source ", "python -m pip install")
STAYING = ("python manage.py runjobs", "python -m uvicorn")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_tutorial_does_what_it_says(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need_module("uvicorn")
    monkeypatch.chdir(tmp_path)
    with Reader(tmp_path) as reader:
        for paragraph, language, text in steps(page.read_text()):
            reader.read(paragraph)
            if language:
                reader.do(language, text, paragraph)
    assert reader.done >= {"console", "file", "pycon", "page", "text", "stop"}


def steps(page: str) -> Iterator[tuple[str, str, str]]:
    """Yield each paragraph with the block that follows it, if one does."""
    place = 0
    for block in BLOCK.finditer(page):
        *others, last = paragraphs(page[place : block.start()])
        yield from ((other, "", "") for other in others)
        yield last, block[1], block[2]
        place = block.end()
    yield from ((other, "", "") for other in paragraphs(page[place:]))


def paragraphs(text: str) -> list[str]:
    return [" ".join(part.split()) for part in re.split(r"\n\s*\n", text.strip())]


class Reader:
    """Somebody who does what the page says, in a directory of their own, and looks at what comes of it."""

    def __init__(self, directory: Path) -> None:
        self.done: set[str] = set()
        self._directory = directory
        self._environment = environment()
        self._port = free_port()
        self._stack = ExitStack()
        self._shell: Shell | None = None
        self._staying: Child | None = None
        self._seen = 0
        self._password = ""
        self._answer = ""
        self._browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def read(self, paragraph: str) -> None:
        """Do what a paragraph itself asks for: open a page, or stop what runs."""
        for url in re.findall(r"<(http://[^>]+)>", paragraph):
            self._open(self._here(url), paragraph)
        if paragraph.startswith("Stop "):
            self._press_ctrl_c()

    def do(self, language: str, text: str, paragraph: str) -> None:
        """Follow a block."""
        {"python": self._write, "console": self._type, "pycon": self._talk, "text": self._look}[language](
            text, paragraph
        )

    def _write(self, text: str, paragraph: str) -> None:
        (name,) = re.findall(r"`([\w/]+\.py)`(?=[^`]*:$)", paragraph)
        path = self._directory / name
        if "to the end of" in paragraph:
            path.write_text(path.read_text() + "\n" + text)
        else:
            assert path.exists() == ("Replace `" in paragraph), paragraph
            path.write_text(text)
        self.done.add("file")

    def _type(self, text: str, paragraph: str) -> None:
        for command, shown in examples(text, "$ "):
            if command.startswith(INSTALLING):
                continue
            self.done.add("console")
            if command == "python manage.py shell":
                self._shell = self._stack.enter_context(Shell(self._environment))
            elif command.startswith(STAYING):
                self._stay(command, shown)
            elif command.startswith("export "):
                name, _, value = command.removeprefix("export ").partition("=")
                self._environment[name] = self._password = value
            else:
                compare(shown, self._run(command), command, exactly=False)

    def _run(self, command: str) -> str:
        ended = subprocess.run(
            command,
            shell=True,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert ended.returncode == 0, f"{command}\n{ended.stdout}{ended.stderr}"
        return ended.stdout

    def _stay(self, command: str, shown: Sequence[str]) -> None:
        arguments = self._here(command).split()[1:]
        self._staying = self._stack.enter_context(Child(arguments, self._environment))
        self._seen = 0
        self._look_at_staying([self._here(line) for line in shown])

    def _here(self, text: str) -> str:
        """Return a text with a port that is free, in place of the page's."""
        return text.replace("8000", str(self._port))

    def _look_at_staying(self, shown: Sequence[str]) -> None:
        assert self._staying is not None
        for line in shown:
            text = next(part for part in (*sorted(line.split("..."), key=len, reverse=True), ""))
            if text:
                self._staying.wait_for(text, after=self._seen)
                place = next(
                    place
                    for place, found in enumerate(self._staying.lines[self._seen :], self._seen + 1)
                    if text in found
                )
                assert pattern([line]).fullmatch(self._staying.lines[place - 1]), line
                self._seen = place

    def _press_ctrl_c(self) -> None:
        assert self._staying is not None
        # A terminal sends it to every process of its group.
        os.killpg(self._staying.pid, signal.SIGINT)
        self._staying.end()
        self.done.add("stop")

    def _talk(self, text: str, paragraph: str) -> None:
        assert self._shell is not None, "the page talks to a shell that it has not opened"
        for source, shown in examples(text, ">>> "):
            if source == "exit()":
                self._shell.leave()
                continue
            compare(shown, self._shell.say(source), source, exactly=True)
        self.done.add("pycon")

    def _open(self, url: str, paragraph: str) -> None:
        try:
            with self._browser.open(url, timeout=PATIENCE) as response:
                status, self._answer = response.status, response.read().decode()
                headers = response.headers
        except urllib.error.HTTPError as error:
            with error:
                status, self._answer = error.code, error.read().decode()
                headers = error.headers
        if "Log in" in paragraph:
            self._log_in(url)
        wanted = re.search(r"status (\d+)", paragraph)
        assert status == (int(wanted[1]) if wanted else 200), self._answer
        assert ("Retry-After" in headers) == ("`Retry-After`" in paragraph)
        self.done.add("page")

    def _log_in(self, url: str) -> None:
        token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', self._answer)
        assert token is not None
        form = {"username": "admin", "password": self._password, "csrfmiddlewaretoken": token[1]}
        path = url.partition(str(self._port))[2]
        login = f"http://127.0.0.1:{self._port}/admin/login/?next={path}"
        with self._browser.open(login, urlencode(form).encode(), timeout=PATIENCE) as response:
            self._answer = response.read().decode()
            assert response.url == url, response.url
        assert "default" in self._answer

    def _look(self, text: str, paragraph: str) -> None:
        lines = text.splitlines()
        if "event=" in text:
            self._look_at_staying(lines)
        else:
            compare(lines, self._answer, paragraph, exactly=True)
        self.done.add("text")


class Shell:
    """``python manage.py shell``, as one who types into it sees it."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "manage.py", "shell", "-i", "python"],
            env={**environment, "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self._text = ""
        self._closed = False
        self._progress = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._until_prompt()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()

    def say(self, source: str) -> str:
        """Type a statement, and return what was printed until the next prompt."""
        said = ""
        assert self._process.stdin is not None
        for line in source.split("\n"):
            self._process.stdin.write(f"{line}\n".encode())
            self._process.stdin.flush()
            said += self._until_prompt()
        return said

    def leave(self) -> None:
        """Say goodbye, and wait for the end."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"exit()\n")
        self._process.stdin.flush()
        assert self._process.wait(PATIENCE) == 0

    def _until_prompt(self) -> str:
        def prompted() -> bool:
            return self._text.endswith((">>> ", "... ")) or self._closed

        with self._progress:
            assert self._progress.wait_for(prompted, PATIENCE), f"no prompt after:\n{self._text}"
            said, self._text = self._text, ""
        return said.removesuffix(">>> ").removesuffix("... ")

    def _read(self) -> None:
        assert self._process.stdout is not None
        while read := os.read(self._process.stdout.fileno(), 65536):
            with self._progress:
                self._text += read.decode()
                self._progress.notify_all()
        with self._progress:
            self._closed = True
            self._progress.notify_all()


def compare(shown: Sequence[str], happened: str, what: str, *, exactly: bool) -> None:
    """Hold what the page shows against what happened; not exactly: there may be more, before and after."""
    look: Callable[[str], object] = pattern(shown).fullmatch if exactly else pattern(shown).search
    assert look(happened.strip()), (
        f"{what}\nshows\n{os.linesep.join(shown)}\nand what happened is\n{happened}"
    )


def pattern(shown: Sequence[str]) -> re.Pattern[str]:
    text = re.escape("\n".join(shown).strip())
    text = text.replace(re.escape("..."), ".*?")
    return re.compile(re.sub(r"\d+\\\.\d+", r"\\d+\\.\\d+", text), re.DOTALL)


def environment() -> dict[str, str]:
    """Return the environment of somebody who has just activated the environment that runs this test."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("DJANGO_", "PYTHON"))}
    return {**ours, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
