"""``make demo``, as a person runs it."""

import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.request import urlopen

import pytest

from tests.port import free_port
from tests.requirement import need_module

ROOT = Path(__file__).parent.parent.parent

pytestmark = pytest.mark.slow


@contextmanager
def demo(directory: Path, **environment: str) -> Iterator[subprocess.Popen[str]]:
    need_module("uvicorn")
    inherited = {k: v for k, v in os.environ.items() if k not in ("DATABASE_URL", "DJANGO_SETTINGS_MODULE")}
    process = subprocess.Popen(
        [sys.executable, "-m", "project.demo"],
        cwd=ROOT,
        env={**inherited, "DEMO_DIRECTORY": str(directory), "DEMO_PORT": str(free_port()), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)


def read_until(process: subprocess.Popen[str], words: str) -> str:
    assert process.stdout is not None
    read = ""
    for line in process.stdout:
        read += line
        if words in line:
            return read
    raise AssertionError(f"it ended without {words!r}:\n{read}")


def test_a_timed_demo_ends_by_itself_with_a_summary(tmp_path: Path) -> None:
    with demo(tmp_path, DEMO_SECONDS="5") as process:
        output, errors = process.communicate(timeout=90)

    assert process.returncode == 0, output + errors
    assert re.search(r"login   admin  \S{8,}", output)
    pushed = int(re.search(r"pushed +([\d,]+) jobs", output)[1].replace(",", ""))  # type: ignore[index]
    done = int(re.search(r"done +([\d,]+) successful", output)[1].replace(",", ""))  # type: ignore[index]
    failed = int(re.search(r"([\d,]+) failed", output)[1].replace(",", ""))  # type: ignore[index]
    deepest, bound = map(int, re.search(r"deepest +(\d+) waiting, of (\d+) allowed", output).groups())  # type: ignore[union-attr]
    assert pushed == done + failed > 50
    assert 0 < deepest <= bound == 100
    for band in ("critical", "user_flow", "background"):
        assert re.search(rf"{band} +[\d,]+ +[\d,]+ ms +[\d,]+ ms", output), output


def test_ctrl_c_ends_it_cleanly(tmp_path: Path) -> None:
    with demo(tmp_path) as process:
        started = read_until(process, "Customers come until Ctrl+C")
        url = re.search(r"site +(\S+)", started)[1]  # type: ignore[index]
        with urlopen(url, timeout=10) as page:
            assert b"Jobify" in page.read()
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)

    assert process.returncode == 0, output + errors
    assert "pushed" in output


def test_a_server_that_dies_is_told_with_its_last_words(tmp_path: Path) -> None:
    with demo(tmp_path) as process:
        read_until(process, "Customers come until Ctrl+C")
        with closing(sqlite3.connect(tmp_path / "demo.sqlite3")) as database:
            (pid,) = database.execute("SELECT pid FROM jobify_pool").fetchone()
        os.kill(pid, signal.SIGKILL)
        _, errors = process.communicate(timeout=60)

    assert process.returncode == 1
    assert "The server ended with code -9" in errors
    assert "demo.log" in errors


def test_a_taken_port_is_said_at_once(tmp_path: Path) -> None:
    with demo(tmp_path) as process:
        url = re.search(r"site +\S+:(\d+)/", read_until(process, "Customers come"))
        assert url is not None
        with demo(tmp_path / "second", DEMO_PORT=url[1]) as second:
            began = time.monotonic()
            _, errors = second.communicate(timeout=60)

    assert second.returncode == 1
    assert "address already in use" in errors
    assert time.monotonic() - began < 30
