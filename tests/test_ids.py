"""Ids of jobs: they grow with time, no two are the same, and asking the system for chance is rare."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from uuid import UUID

import pytest

from jobify_django.job import Ids, new_id
from jobify_django.runtime import MACHINE, Runtime
from jobify_django.testing import FakeClock

MOMENT = 1_800_000_000.123


class Noise:
    """Chance that says how often it was asked."""

    asked = 0

    def __call__(self, size: int) -> bytes:
        self.asked += 1
        return os.urandom(size)


def a_machine(clock: FakeClock, noise: Noise) -> Runtime:
    return replace(MACHINE, clock=clock, urandom=noise)


def test_an_id_is_a_version_7_uuid_of_its_moment() -> None:
    id = UUID(Ids(a_machine(FakeClock(MOMENT), Noise())).new())

    assert (id.version, id.variant) == (7, "specified in RFC 4122")
    assert id.int >> 80 == 1_800_000_000_123


def test_ids_grow_with_time() -> None:
    ids = Ids(a_machine(clock := FakeClock(MOMENT), Noise()))
    made = []
    for _ in range(300):
        made.append(ids.new())
        clock.advance(0.01)

    assert made == sorted(made)
    assert len(set(made)) == 300


def test_chance_is_asked_for_once_for_many_ids() -> None:
    ids = Ids(a_machine(FakeClock(MOMENT), noise := Noise()))

    made = {ids.new() for _ in range(128)}

    assert (len(made), noise.asked) == (128, 1)
    ids.new()
    assert noise.asked == 2


def test_one_id_by_itself_is_of_the_machine_that_is_handed_in() -> None:
    runtime = a_machine(FakeClock(MOMENT), noise := Noise())

    assert UUID(new_id(runtime)).int >> 80 == 1_800_000_000_123
    assert noise.asked == 1


PROGRAM = """
import os, sys
import django
from django.conf import settings
settings.configure(JOBIFY={"STORE": "memory"}, INSTALLED_APPS=["jobify_django"])
django.setup()
from jobify_django import task

@task(name="note")
def note(): pass

note.push()  # makes the random ends of many ids to come
child = os.fork()
os.write(1, (" ".join(note.push().id for _ in range(50)) + "\\n").encode())  # at once: both write here
if child:
    assert os.waitpid(child, 0)[1] == 0
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_process_and_its_fork_do_not_make_the_same_ids() -> None:
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM], capture_output=True, text=True, check=False
    )

    lines = [{id[14:] for id in line.split()} for line in ran.stdout.splitlines()]  # without their moments
    assert [len(line) for line in lines] == [50, 50], ran.stderr
    assert not lines[0] & lines[1]
