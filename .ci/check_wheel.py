"""Check that a wheel holds what the package needs, and nothing of the repository around it."""

import email
import re
import sys
import zipfile

NEEDED = {
    "the type marker": "jobify_django/py.typed",
    "migrations": "jobify_django/migrations/0001",
    "templates": "jobify_django/templates/",
    "static files": "jobify_django/static/",
}
ADDRESSES = {"Documentation", "Source", "Changelog", "Issues"}
RELATIVE = re.compile(r"\]\((?!https://|#)([^)]+)\)")
"""A link that leads nowhere on the package's page."""


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


def problems_of_metadata(text: str) -> list[str]:
    metadata = email.message_from_string(text)
    named = {one.partition(",")[0] for one in metadata.get_all("Project-URL", [])}
    found = [f"the metadata name no address for {name}" for name in sorted(ADDRESSES - named)]
    found += [f"the README's link to {link} is relative" for link in RELATIVE.findall(metadata.get_payload())]
    return found


def main() -> int:
    (path,) = sys.argv[1:]
    wheel = zipfile.ZipFile(path)
    names = wheel.namelist()
    found = problems(names)
    found += problems_of_metadata(
        "".join(wheel.read(name).decode() for name in names if name.endswith(".dist-info/METADATA"))
    )
    print("\n".join(found) or f"{path}: {len(names)} files, complete")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
