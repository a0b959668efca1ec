"""Check that a version is written down wherever one is: .ci/check_release.py VERSION"""

import ast
import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent


def problems(version: str, root: Path = ROOT) -> list[str]:
    """Return what keeps the checkout from being released as this version."""
    found: list[str] = []
    said = tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"]
    if said != version:
        found.append(f"pyproject.toml has version {said}")
    if (said := version_of((root / "jobify_django/__init__.py").read_text())) != version:
        found.append(f"jobify_django.__version__ is {said}")
    newest = next(
        iter(re.findall(r"^## (.+)$", (root / "CHANGELOG.md").read_text(), re.MULTILINE)), "nothing"
    )
    if not re.fullmatch(rf"{re.escape(version)} - \d{{4}}-\d\d-\d\d", newest):
        found.append(f"CHANGELOG.md begins with {newest!r}, not with '{version} - YYYY-MM-DD'")
    return found


def version_of(source: str) -> str:
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__version__":
            return str(ast.literal_eval(node.value))
    return "missing"


def main() -> int:
    (version,) = sys.argv[1:]
    found = problems(version)
    print("\n".join(found) or f"{version} is written down everywhere")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
