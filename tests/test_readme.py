"""The README's examples, as type checkers read them in ``tests/typing/``."""

import re

import pytest

from tests.blocks.page import ROOT, blocks

BLOCKS = [block.text for block in blocks(ROOT / "README.md") if block.language == "python"]
ONE_FILE = ROOT / "tests" / "typing" / "one_file.py"
IMPORT = re.compile(r"^(?:from|import) .*\n+", re.MULTILINE)


def test_type_checkers_read_the_first_example() -> None:
    assert BLOCKS[0] == ONE_FILE.read_text()


@pytest.mark.parametrize("block", BLOCKS[1:], ids=range(1, len(BLOCKS)))
def test_type_checkers_read_the_other_examples(block: str) -> None:
    checked = (ROOT / "tests" / "typing" / "readme.py").read_text()
    for part in IMPORT.sub("", block).strip().split("\n\n"):
        assert part in checked
    imports = {line.strip() for line in IMPORT.findall(block)}
    assert imports <= set(checked.splitlines())
