"""The house itself: the ground that every other test stands on."""

import re
import subprocess
import sys
import threading
from importlib.metadata import version
from pathlib import Path

import pytest
from django.contrib.auth.models import Group
from django.core.management import call_command
from django.db import connection

ROOT = Path(__file__).parent.parent


@pytest.mark.django_db(transaction=True)
def test_threads_meet_in_the_database() -> None:
    Group.objects.create(name="written by the test")
    seen: list[str] = []

    def read() -> None:
        try:
            seen.extend(Group.objects.values_list("name", flat=True))
        finally:
            connection.close()

    thread = threading.Thread(target=read)
    thread.start()
    thread.join()

    assert seen == ["written by the test"]


@pytest.mark.django_db(transaction=True)
def test_processes_meet_in_the_database(child_environment: dict[str, str]) -> None:
    Group.objects.create(name="written by the test")
    program = """
import django
django.setup()
from django.contrib.auth.models import Group
print(Group.objects.get())
"""

    child = subprocess.run(
        [sys.executable, "-c", program], env=child_environment, cwd=ROOT, capture_output=True, text=True
    )

    assert child.stdout.strip() == "written by the test", child.stderr


@pytest.mark.django_db
def test_the_migrations_match_the_models() -> None:
    call_command("makemigrations", "--check", "--dry-run", verbosity=0)


def test_the_changelog_knows_this_version() -> None:
    headings = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)

    assert headings[0] in {"Unreleased", version("jobify-django")}
