"""A venv for each contestant, built once from ``benchmarks/peers/requirements``."""

from __future__ import annotations

import subprocess
import sys

from benchmarks import harness

REQUIREMENTS = harness.ROOT / "benchmarks" / "peers" / "requirements"
CACHE = harness.ROOT / ".venv-long-run"


def python_for(name: str, python: str = sys.executable) -> str:
    """Return the interpreter of an environment, which is built unless it is there as its file describes it.

    Raises subprocess.CalledProcessError when it cannot be built.
    """
    wanted = (REQUIREMENTS / f"{name}.txt").read_text()
    directory = CACHE / name
    own, stamp = directory / "bin" / "python", directory / "requirements.txt"
    if not stamp.exists() or stamp.read_text() != wanted:
        harness.say(f"installing {name}")
        subprocess.run([python, "-m", "venv", "--clear", str(directory)], check=True)
        pip = [str(own), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "-r", str(REQUIREMENTS / f"{name}.txt")], check=True)
        stamp.write_text(wanted)
    return str(own)


def versions(python: str) -> dict[str, str]:
    """Return the version of each package in an environment."""
    listed = subprocess.run(
        [python, "-m", "pip", "list", "--format=freeze", "--disable-pip-version-check"],
        check=True,
        capture_output=True,
        text=True,
    )
    found = dict(line.split("==", 1) for line in listed.stdout.splitlines() if "==" in line)
    return {name: version for name, version in found.items() if name != "pip"}
