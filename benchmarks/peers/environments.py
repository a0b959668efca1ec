"""An environment for each contestant, built once: a venv from ``requirements``, and packages for Node."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks import harness

REQUIREMENTS = Path(__file__).resolve().parent / "requirements"
CACHE = harness.ROOT / ".venv-peers"
STAMP = "peers.stamp"
VERSIONS = (
    "import json, platform, importlib.metadata as m;"
    "print(json.dumps({'Python': platform.python_version(),"
    " **{d.metadata['Name']: d.version for d in m.distributions() if d.metadata['Name'] != 'pip'}}))"
)


class NotInstalled(Exception):
    """An environment could not be built; the message holds the end of what the installer said."""


def interpreter() -> str:
    """Return the Python that contestants run with unless another is named: 3.13 where there is one."""
    # pyenv first: its `python3.13` on the path is a script that may know of no such version.
    candidates = sorted(Path.home().glob(".pyenv/versions/3.13*/bin/python"))
    return str(candidates[-1]) if candidates else shutil.which("python3.13") or sys.executable


def python_for(environment: str, python: str) -> str:
    """Build the venv if it is not there as its file describes it; return its interpreter.

    Raises NotInstalled.
    """
    requirements = REQUIREMENTS / f"{environment}.txt"
    directory = CACHE / environment
    own = directory / "bin" / "python"
    wanted = _digest(python, requirements)
    if _stamp(directory) != wanted:
        harness.say(f"installing {environment}")
        shutil.rmtree(directory, ignore_errors=True)
        _install([python, "-m", "venv", str(directory)])
        pip = [str(own), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        _install([*pip, "--requirement", str(requirements)])
        (directory / STAMP).write_text(wanted)
    return str(own)


def node_modules(package: str) -> str:
    """Install packages for Node if they are not there as described; return their directory.

    Raises NotInstalled, and says so where ``node`` or ``npm`` is missing.
    """
    described, directory = REQUIREMENTS / package / "package.json", CACHE / f"node-{package}"
    for tool in ("node", "npm"):
        if shutil.which(tool) is None:
            raise NotInstalled(f"{package} needs {tool}, which is not on this machine")
    wanted = _digest("node", described)
    if _stamp(directory) != wanted:
        harness.say(f"installing {package}")
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        shutil.copy(described, directory)
        quiet = ["--no-audit", "--no-fund", "--no-package-lock", "--loglevel=error"]
        _install(["npm", "install", "--prefix", str(directory), *quiet])
        (directory / STAMP).write_text(wanted)
    return str(directory)


def versions(python: str, node: str) -> dict[str, str]:
    """Return the version of everything in an environment."""
    listed = subprocess.run([python, "-c", VERSIONS], check=True, capture_output=True, text=True)
    found: dict[str, str] = json.loads(listed.stdout)
    if node:
        found["Node"] = subprocess.run(["node", "--version"], capture_output=True, text=True).stdout.strip(
            " v\n"
        )
        for manifest in Path(node).glob("node_modules/*/package.json"):
            described = json.loads(manifest.read_text())
            found[described["name"]] = described["version"]
    return found


def _install(command: list[str]) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise NotInstalled(f"{' '.join(command[:4])} ended with {done.returncode}: {done.stderr[-500:]}")


def _stamp(directory: Path) -> str:
    stamp = directory / STAMP
    return stamp.read_text() if stamp.exists() else ""


def _digest(interpreter: str, file: Path) -> str:
    return hashlib.sha256(f"{interpreter}\n{file.read_text()}".encode()).hexdigest()
