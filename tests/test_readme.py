"""The README's examples: type checkers read them in ``tests/typing/``, and the first one runs as it is."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BLOCKS = re.findall(r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)
ONE_FILE = ROOT / "tests" / "typing" / "one_file.py"
IMPORT = re.compile(r"^(?:from|import) .*\n+", re.MULTILINE)


def test_type_checkers_read_the_first_example() -> None:
    assert BLOCKS[0] == ONE_FILE.read_text()


@pytest.mark.parametrize("block", BLOCKS[1:], ids=range(1, len(BLOCKS)))
def test_type_checkers_read_the_other_examples(block: str) -> None:
    checked = (ROOT / "tests" / "typing" / "readme.py").read_text()
    assert IMPORT.sub("", block).strip() in checked
    imports = {line.strip() for line in IMPORT.findall(block)}
    assert imports <= set(checked.splitlines())


@pytest.mark.servers
def test_the_first_example_runs_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "one_file.py").write_text(BLOCKS[0])
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DJANGO_")}
    ended = subprocess.run(
        [sys.executable, "-W", "error", "one_file.py"],
        cwd=tmp_path,
        env={**environment, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    pushed = [f"pushed order {number}" for number in range(12)]
    assert ended.stdout.splitlines() == [*pushed, "charged order 11"]
