"""The catalogue of failures is whole, and each test it names exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CATALOGUE = (ROOT / "docs/explanation/failures.md").read_text()
NAMED = re.findall(r"`((?:tests|conformance|chaos)/[\w/]+\.py)::(\w+)`", CATALOGUE)
OF_CONFORMANCE = "jobify_django/testing/"


def test_every_failure_has_its_line() -> None:
    numbers = re.findall(r"^(?:###|\|) F(\d+)\b", CATALOGUE, re.MULTILINE)
    assert sorted(map(int, numbers)) == list(range(1, max(50, len(numbers)) + 1))


@pytest.mark.parametrize(("file", "name"), sorted(set(NAMED)))
def test_a_test_that_the_catalogue_names_exists(file: str, name: str) -> None:
    path = ROOT / (f"{OF_CONFORMANCE}{file}" if file.startswith("conformance") else file)
    tree = ast.parse(path.read_text())
    assert name in {
        node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def test_a_failure_without_a_test_says_how_it_is_measured() -> None:
    lines = re.findall(r"^### F\d+: .+?(?=^##)", CATALOGUE, re.MULTILINE | re.DOTALL)
    assert lines
    assert [line for line in lines if "::test_" not in line and "make chaos" not in line] == []
