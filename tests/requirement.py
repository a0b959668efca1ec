"""What a test needs from the machine; without it the test is skipped, or fails under ``JOBIFY_CI=1``."""

import importlib
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import NoReturn

import pytest

CHROMIUM = Path("/usr/bin/chromium")


def need_module(name: str, group: str = "servers") -> ModuleType:
    """Return the module called `name`, of a dependency group; without it the test can't run."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        _missing(f"{name} is not installed: pip install --group {group}")


def need_file(path: Path) -> Path:
    """Return `path`; without a file there the test can't run."""
    if not path.exists():
        _missing(f"{path} is not there")
    return path


def need_success(command: Sequence[str], purpose: str) -> None:
    """Run a command; where it fails the test can't run."""
    try:
        ended = subprocess.run(command, capture_output=True, text=True)
    except OSError as error:
        _missing(f"{purpose}: {error}")
    if ended.returncode:
        _missing(f"{purpose}: {' '.join(command)!r} said {ended.stderr.strip()!r}")


def _missing(reason: str) -> NoReturn:
    if os.environ.get("JOBIFY_CI") == "1":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)
