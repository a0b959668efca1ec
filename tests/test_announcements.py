"""What open transactions on PostgreSQL have announced, and how much room that leaves to others."""

from __future__ import annotations

import pytest

from jobify_django import QueueFull, queue
from tests.test_server import OpenPush, note, postgresql, the_store
from tests.workshop import Configure, database, elsewhere

pytestmark = [database, postgresql]


def waiting() -> int:
    return queue().stats().waiting


def push_until_full(most: int) -> int:
    """Push, at most so often, until the queue is full; return how often that went through."""
    for done in range(most):
        try:
            note.push()
        except QueueFull:
            return done
    return most


@pytest.mark.parametrize("jobs", [1, 2, 4, 8])
def test_a_transaction_that_has_used_up_what_it_announced_leaves_all_the_rest(
    jobify: Configure, jobs: int
) -> None:
    """The last push before an announcement is used up makes no further one, which would take others' room."""
    jobify(MAXSIZE=jobs + 1, PUSH_TIMEOUT=0)
    open_push = OpenPush(jobs)
    try:
        elsewhere(note.push)
        with pytest.raises(QueueFull):
            elsewhere(note.push)
    finally:
        open_push.end()
    assert waiting() == jobs + 1


@pytest.mark.parametrize("jobs", [3, 5, 6, 7, 9, 20])
def test_a_transaction_has_always_announced_what_it_has_pushed(jobify: Configure, jobs: int) -> None:
    jobify(MAXSIZE=jobs + 2, PUSH_TIMEOUT=0)
    open_push = OpenPush(jobs)
    try:
        elsewhere(lambda: push_until_full(jobs + 3))
    finally:
        open_push.end()
    assert jobs <= waiting() <= jobs + 2
    push_until_full(3)
    assert waiting() == jobs + 2


@pytest.mark.parametrize("kept", [True, False], ids=["committed", "rolled back"])
def test_a_count_that_was_taken_beside_an_open_transaction_stays_a_ceiling_when_that_ends(
    jobify: Configure, kept: bool
) -> None:
    """Its jobs have smaller numbers than the count, so the numbers taken since do not tell of them."""
    jobify(MAXSIZE=20, PUSH_TIMEOUT=0)
    for _ in range(5):
        note.push()
    open_push = OpenPush(8, keep=kept)
    the_store().close()  # so that the next push counts
    try:
        note.push()
    finally:
        open_push.end()
    assert waiting() == (14 if kept else 6)
    push_until_full(30)
    assert waiting() == 20


def test_a_queue_has_no_more_room_while_what_is_open_may_still_take_it(jobify: Configure) -> None:
    jobify(MAXSIZE=20, PUSH_TIMEOUT=0)
    for _ in range(5):
        note.push()
    open_push = OpenPush(8)
    try:
        assert push_until_full(30) == 7
    finally:
        open_push.end()
    assert waiting() == 20
