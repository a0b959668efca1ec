"""What is handed to another process or put into a cache: errors, handles and values, pickled and copied."""

import asyncio
import copy
import dataclasses
import pickle
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import pytest
from django.core.cache import caches

from jobify_django import (
    InvalidPayload,
    Job,
    JobFailed,
    JobifyError,
    JobNotFound,
    JobStatus,
    QueueFull,
    StaleVersion,
    get_job,
    queue,
    task,
)
from jobify_django.handle import unpickled
from jobify_django.job import JobSpec, new_id
from jobify_django.stores.memory import MemoryStore
from tests.child import PATIENCE, until
from tests.workshop import Configure, at_work, both, database, memory, pushed

COPIES: dict[str, Callable[[Any], Any]] = {
    "pickle": lambda value: pickle.loads(pickle.dumps(value)),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
}
copied = pytest.mark.parametrize("again", COPIES.values(), ids=COPIES)

SAMPLES: dict[type[JobifyError], JobifyError] = {
    InvalidPayload: InvalidPayload("it is a set", "args[0]"),
    StaleVersion: StaleVersion("mail", expected=3, version=5),
    QueueFull: QueueFull("mail", depth=3, maxsize=3, retry_after=2, reason="It was not to wait.", taken=1),
    JobFailed: JobFailed("it failed", error_type="builtins.ValueError", traceback="Traceback"),
}


class Refused(QueueFull):
    """An error of a project's own, made otherwise than what it derives from."""

    def __init__(self, *, customer: int) -> None:
        super().__init__("mail", depth=1, maxsize=1, retry_after=1, reason="No.")
        self.customer = customer


SAMPLES[Refused] = Refused(customer=7)


@task
def double(number: int) -> int:
    return 2 * number


def tree(kind: type[JobifyError]) -> Iterator[type[JobifyError]]:
    """All errors there are. One that is made otherwise than by its message needs a sample above."""
    yield kind
    for below in kind.__subclasses__():
        yield from tree(below)


def fail() -> None:
    raise QueueFull("mail", depth=3, maxsize=3, retry_after=2, reason="It was not to wait.")


def look(job: Job[int]) -> tuple[str, str]:
    return job.id, str(job)


# Errors


@copied
@pytest.mark.parametrize("kind", sorted(set(tree(JobifyError)), key=lambda kind: kind.__name__))
def test_every_error_survives_with_all_it_carries(kind: type[JobifyError], again: Any) -> None:
    error = SAMPLES.get(kind) or kind("what happened")
    error.add_note("seen by a test")

    copied = again(error)

    assert type(copied) is kind
    assert (str(copied), copied.args, vars(copied)) == (str(error), error.args, vars(error))


def test_an_error_comes_back_from_another_process() -> None:
    with ProcessPoolExecutor(1, get_context("spawn")) as executor:
        with pytest.raises(QueueFull) as full:
            executor.submit(fail).result(PATIENCE)
        assert executor.submit(max, 1, 2).result(PATIENCE) == 2  # the pool is not broken

    assert full.value.retry_after == 2


@both
@copied
def test_the_jobs_that_were_taken_go_along_with_the_error(jobify: Configure, again: Any) -> None:
    jobify(MAXSIZE=1)

    with pytest.raises(QueueFull) as full:
        double.using(timeout=0).push_many([(1,), (2,)])
    (job,) = again(full.value).pushed

    assert job == full.value.pushed[0]
    assert job.args == [1]
    assert job.cancel() is True


# Handles


@both
@copied
def test_a_handle_is_usable_again(jobify: Configure, again: Any) -> None:
    job = double.push(4)

    other = again(job)

    assert (other, other.id, other.task, other.queue) == (job, job.id, double.name, "default")
    assert (other.args, other.status, other.pushed_at) == ([4], JobStatus.WAITING, job.pushed_at)
    assert other.position() == 0
    with at_work():
        other.wait(timeout=PATIENCE)
    assert other.result() == 8


@both
@copied
def test_a_handle_shows_what_was_last_read_without_reading(jobify: Configure, again: Any) -> None:
    with at_work():
        job = pushed(lambda: {"a": 1})
        job.wait(timeout=PATIENCE)

    async def result() -> Any:
        return again(job).result()  # where an event loop runs, it goes by what was read

    assert asyncio.run(result()) == {"a": 1}
    assert again(job).attempts == 1


@both
def test_a_handle_can_be_put_into_a_cache(jobify: Configure) -> None:
    job = double.push(4)
    caches["default"].set("job", job)

    assert caches["default"].get("job").record().id == job.id


@database
def test_a_handle_goes_to_another_process_and_back(jobify: Configure) -> None:
    job = double.push(4)

    with ProcessPoolExecutor(1, get_context("spawn")) as executor:
        assert executor.submit(look, job).result(PATIENCE) == (job.id, str(job))
        assert executor.submit(copy.copy, job).result(PATIENCE).record().id == job.id


@memory
def test_a_handle_whose_memory_is_in_another_process_says_so(jobify: Configure) -> None:
    other = unpickled("memory", "default", 1.0, JobSpec(new_id(), double.name, "[[1], {}]")._asdict())

    assert other.args == [1]
    with pytest.raises(JobNotFound, match="in the memory of the process that pushed it"):
        other.refresh()


@memory
def test_a_handle_of_a_newer_release_is_read_too(jobify: Configure) -> None:
    job = double.push(4)
    values = {**job.record()._asdict(), "mood": "new in some later release"}

    assert unpickled("memory", "default", 0.0, values).status is JobStatus.WAITING


def test_a_copy_of_a_handle_stays_with_a_store_that_no_settings_name() -> None:
    store = MemoryStore("of a test")
    spec = JobSpec(new_id(), double.name, "[[1], {}]")
    store.add(queue().settings, [spec])
    job: Job[int] = Job(store, "default", spec)

    for again in (copy.copy, copy.deepcopy):
        assert again(job).record().id == spec.id


# Values


@both
@copied
def test_what_a_store_says_survives(jobify: Configure, again: Any) -> None:
    with at_work():
        job = pushed(lambda: 1)
        job.wait(timeout=PATIENCE)
        # A job may end before its pool has reported itself.
        until(lambda: queue().stats().pools, "the pool's report")
        stats = queue().stats()
    state = queue().tune(workers=3)

    for value in (job.record(), job.status, state, *stats.pools, job.error):
        assert again(value) == value
    assert dataclasses.asdict(again(stats)) == dataclasses.asdict(stats)


@memory
@copied
def test_a_queue_goes_by_its_name(jobify: Configure, again: Any) -> None:
    jobify(QUEUES={"mail": {}})

    assert again(queue("mail")).name == "mail"
    assert get_job(double.push(1).id) is not None
