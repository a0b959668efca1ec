"""How deep a value may be nested, and what becomes of texts in a store that nobody can read."""

import contextlib
import inspect
import json
import sys
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from jobify_django import InvalidPayload, Job, JobFailed, get_job, queue, task
from jobify_django.fault import MAX_DEPTH
from jobify_django.job import JobSpec, new_id
from jobify_django.payload import (
    MOST_SHOWN,
    Shown,
    cut,
    decode,
    decode_call,
    encode,
    encode_call,
    in_lines,
    shown,
)
from jobify_django.stores import stores
from tests.child import PATIENCE
from tests.workshop import Configure, at_work, both, pushed

LIMIT = 10**6
TOO_DEEP_FOR_PYTHON = "[" * 200_000 + "]" * 200_000
UNREADABLE = ["", "no JSON", '"ab"', "[]", "[1, 2]", "[[]]", "[[], []]", f"[[{TOO_DEEP_FOR_PYTHON}], {{}}]"]


@task
def take(value: Any = None, **values: Any) -> None: ...


def nested(depth: int, kind: type = list) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value] if kind is list else {"a": value}
    return value


def stored(arguments: str) -> Job[Any]:
    """Put a job into the store as another hand would."""
    settings = queue().settings
    spec = JobSpec(new_id(), take.name, arguments)
    stores.of(settings).add(settings, [spec])
    return get_job(spec.id)


def jobs(*arguments: str) -> str:
    out = StringIO()
    call_command("jobs", *arguments, stdout=out)
    return out.getvalue()


# At the push


@pytest.mark.parametrize("kind", [list, dict])
def test_an_argument_and_a_result_may_be_as_deep_as_the_bound(kind: type) -> None:
    deep = nested(MAX_DEPTH, kind)

    assert decode(encode(deep, root="result", limit=LIMIT)) == deep
    assert decode_call(encode_call((deep, 1), {"a": deep}, LIMIT)) == ([deep, 1], {"a": deep})


@pytest.mark.parametrize("depth", [MAX_DEPTH + 1, 900, 970, 100_000])
@pytest.mark.parametrize("kind", [list, dict])
def test_a_deeper_one_is_refused_with_its_name(kind: type, depth: int) -> None:
    deep = nested(depth, kind)

    for args, kwargs, path in (((1, deep), {}, "args[1]"), ((), {"a": deep}, "kwargs['a']")):
        with pytest.raises(
            InvalidPayload, match=f"nested deeper than {MAX_DEPTH} levels. Pass a fl"
        ) as raised:
            encode_call(args, kwargs, LIMIT)
        assert raised.value.path == path
    with pytest.raises(InvalidPayload, match=r"nested deeper than 100 levels\. Return a flatter value"):
        encode(deep, root="result", limit=LIMIT)


def test_many_brackets_side_by_side_are_not_deep() -> None:
    wide = [[[], {}, "[[[{{{"]] * 1_000 + ["[" * 1_000]

    assert decode_call(encode_call((wide,), {}, LIMIT)) == ([wide], {})


@both
def test_a_push_of_a_deep_value_pushes_nothing(jobify: Configure) -> None:
    with pytest.raises(InvalidPayload, match="nested deeper"):
        take.push(nested(900))

    assert queue().stats().waiting == 0


@both
def test_a_result_that_is_too_deep_fails_the_job(jobify: Configure) -> None:
    with at_work():
        job = pushed(lambda: nested(900))
        job.wait(timeout=PATIENCE)

    assert job.error is not None
    assert job.error.type == "jobify_django.exceptions.InvalidPayload"
    assert "result cannot be stored as JSON: it is nested deeper than 100 levels" in job.error.message


# In the store


@both
@pytest.mark.parametrize("text", UNREADABLE, ids=range(len(UNREADABLE)))
def test_a_job_whose_arguments_cannot_be_read_fails_and_says_so(jobify: Configure, text: str) -> None:
    jobify(WORKERS=1)
    job = stored(text)

    with at_work():
        job.wait(timeout=PATIENCE)
        assert pushed(lambda: "next").wait(timeout=PATIENCE) is None

    with pytest.raises(JobFailed, match="the stored arguments of this job cannot be read"):
        job.result()
    for read in (lambda: job.args, lambda: job.kwargs):
        with pytest.raises(InvalidPayload, match="cannot be read") as raised:
            read()
        assert raised.value.path == "arguments"


@both
@pytest.mark.parametrize("text", UNREADABLE, ids=range(len(UNREADABLE)))
def test_show_and_list_give_a_text_that_cannot_be_read_as_it_is(jobify: Configure, text: str) -> None:
    job = stored(text)

    for told in (json.loads(jobs("show", job.id)), *json.loads(jobs("list", "--format", "json"))):
        assert (told["args"], told["kwargs"], told["unreadable"]["arguments"]) == (None, None, text)
    assert job.id in jobs("list")


@both
def test_show_gives_a_deep_text_as_it_is_and_never_grows_with_its_depth(jobify: Configure) -> None:
    deep = "[" * 900 + ",".join(["1"] * 10_000) + "]" * 900
    as_deep_as_allowed = nested(MAX_DEPTH - 1)
    as_deep_as_allowed[0] = list(range(10_000))
    wide = take.push(as_deep_as_allowed)
    old = stored(f"[[{deep}],{{}}]")

    assert json.loads(jobs("show", old.id))["unreadable"]["arguments"] == f"[[{deep}],{{}}]"
    assert json.loads(jobs("show", wide.id))["args"] == [as_deep_as_allowed]
    assert len(jobs("list", "--format", "json")) < 500_000


def test_jobs_push_tells_of_a_text_that_is_too_deep_to_read() -> None:
    with pytest.raises(CommandError, match="is no JSON") as raised:
        jobs("push", take.name, TOO_DEEP_FOR_PYTHON)

    assert len(str(raised.value)) < 1_000


def test_a_text_that_the_stack_leaves_no_room_to_read_is_shown_as_it_stands() -> None:
    text = "[" * 400 + "]" * 400

    def dig(levels: int) -> Any:
        if levels:
            return dig(levels - 1)
        with contextlib.suppress(InvalidPayload):  # Python 3.12 and later leave the room
            decode(text)
        return shown(text)

    assert dig(sys.getrecursionlimit() - len(inspect.stack()) - 200)[:2] == (text, 0)


# On a page


@pytest.mark.parametrize(
    "text", [None, 1, b"x", "", "no JSON", "NaN", "1e999", "\ud800", TOO_DEEP_FOR_PYTHON, "9" * 9_000, "[1,"]
)
def test_any_text_can_be_shown(text: object) -> None:
    found = shown(text, arrange=lambda value: value[0])

    found.text.encode()
    assert len(found.text) <= MOST_SHOWN
    assert bool(found.text) is (text != "")


def test_a_text_that_is_cut_says_by_how_much() -> None:
    assert shown('"' + "x" * 100 + '"', limit=10) == Shown('"' + "x" * 9, 92)
    assert cut("x" * 10, 10) == Shown("x" * 10)
    assert cut("x" * 11, 10) == Shown("x" * 10, 1)


def test_a_text_that_can_be_read_but_not_laid_out_is_on_one_line() -> None:
    value = nested(5_000) if sys.version_info >= (3, 12) else nested(sys.getrecursionlimit())

    assert in_lines(value, 10**9) is None
