"""Check that a wheel holds what the package needs, and nothing of the repository around it."""

import sys
import zipfile

NEEDED = {
    "the type marker": "jobify_django/py.typed",
    "migrations": "jobify_django/migrations/0001",
    "templates": "jobify_django/templates/",
    "static files": "jobify_django/static/",
}


def problems(names: list[str]) -> list[str]:
    found = [
        f"{what} are missing: nothing starts with {start}"
        for what, start in NEEDED.items()
        if not any(name.startswith(start) for name in names)
    ]
    if not any(".dist-info/" in name and name.endswith("/LICENSE") for name in names):
        found.append("the licence is missing")
    for name in names:
        if not name.startswith("jobify_django/") and ".dist-info/" not in name:
            found.append(f"{name} does not belong in the wheel")
        if "__pycache__" in name or name.endswith((".pyc", ".sqlite3")):
            found.append(f"{name} was generated")
    return found


def main() -> int:
    (path,) = sys.argv[1:]
    names = zipfile.ZipFile(path).namelist()
    found = problems(names)
    print("\n".join(found) or f"{path}: {len(names)} files, complete")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
