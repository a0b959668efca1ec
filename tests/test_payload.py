"""Arguments and results: what survives JSON, and what is said about the rest."""

import contextlib
import datetime
import decimal
import enum
import json
import math
import uuid
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobify_django import InvalidPayload
from jobify_django.payload import decode, decode_call, encode, encode_call

LIMIT = 10**6
SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
)
# Lone surrogates too: JSON can carry them, and so a caller's text arrives as it was.
TEXT = st.text(st.characters(codec=None, exclude_categories=()))
VALUES = st.recursive(
    SCALARS | TEXT, lambda inner: st.lists(inner) | st.dictionaries(st.text() | TEXT, inner), max_leaves=20
)
ANYTHING = st.recursive(
    SCALARS | st.floats() | st.binary() | st.decimals() | st.dates() | st.uuids() | st.fractions(),
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner, inner)
        | st.frozensets(st.integers())
        | st.dictionaries(st.integers() | st.booleans() | st.text(), inner)
    ),
    max_leaves=10,
)


class Colour(enum.Enum):
    RED = "red"


class Point(NamedTuple):
    x: int
    y: int


def refused(value: object, root: str = "args") -> InvalidPayload:
    with pytest.raises(InvalidPayload) as raised:
        encode(value, root=root, limit=LIMIT)
    return raised.value


@given(VALUES)
def test_a_json_value_reads_back_as_it_was(value: object) -> None:
    text = encode(value, root="result", limit=LIMIT)

    assert text.isascii()
    assert "\x00" not in text
    assert decode(text) == value


@given(st.lists(VALUES, max_size=3), st.dictionaries(st.text(), VALUES, max_size=3))
def test_a_call_reads_back_as_it_was(args: list[Any], kwargs: dict[str, Any]) -> None:
    assert decode_call(encode_call(tuple(args), kwargs, LIMIT)) == (args, kwargs)


@given(ANYTHING)
def test_any_other_value_is_refused_and_never_changed(value: object) -> None:
    try:
        text = encode(value, root="result", limit=LIMIT)
    except InvalidPayload as error:
        assert error.path.startswith("result")  # noqa: PT017 - most values are refused, some are not
    else:
        assert decode(text) == value


@pytest.mark.parametrize(
    ("value", "path", "why"),
    [
        (math.nan, "args", "nan is no JSON number"),
        ([1, [math.inf]], "args[1][0]", "inf is no JSON number"),
        ([{"a": {"b": -math.inf}}], "args[0]['a']['b']", "-inf is no JSON number"),
        ([(1, 2)], "args[0]", "it is a tuple"),
        ([Point(1, 2)], "args[0]", "it is a tuple"),
        ([{"a": {1, 2}}], "args[0]['a']", "it is a set"),
        ([{1: "a"}], "args[0][1]", "the key is an int"),
        ([{None: "a"}], "args[0][None]", "the key is a NoneType"),
        ([{True: "a"}], "args[0][True]", "the key is a bool"),
        ([{"1": "a", 1: "b"}], "args[0][1]", "the key is an int"),
        ([b"a"], "args[0]", "it is a bytes"),
        ([datetime.date(2026, 1, 1)], "args[0]", "it is a date"),
        ([decimal.Decimal("1.0")], "args[0]", "it is a Decimal"),
        ([uuid.UUID(int=1)], "args[0]", "it is a UUID"),
        ([Colour.RED], "args[0]", "it is a Colour"),
        ([object()], "args[0]", "it is an object"),
    ],
)
def test_the_error_names_the_place_and_the_reason(value: object, path: str, why: str) -> None:
    error = refused(value)

    assert error.path == path
    assert str(error).startswith(f"{path} cannot be stored as JSON: {why}")


def test_a_value_that_contains_itself_is_refused() -> None:
    value: list[Any] = [1]
    value.append([value])

    assert refused(value).path == "args[1][0]"
    assert "contains itself" in str(refused(value))


def test_one_value_in_two_places_is_no_cycle() -> None:
    shared = {"a": 1}

    assert decode(encode([shared, shared], root="args", limit=LIMIT)) == [shared, shared]


@pytest.mark.parametrize("depth", [2_000, 100_000])
def test_deep_nesting_is_stored_or_refused_and_nothing_else(depth: int) -> None:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]

    # How deep is too deep differs from Python to Python.
    with contextlib.suppress(InvalidPayload):
        encode(value, root="args", limit=LIMIT)


@pytest.mark.parametrize("text", ["\x00", "a\x00b", "\ud800", "\udc80\ud800", "\U0001f600", "\u2028"])
def test_text_that_databases_reject_is_stored_as_ascii(text: str) -> None:
    encoded = encode([text, {text: text}], root="args", limit=LIMIT)

    assert encoded.isascii()
    assert "\x00" not in encoded
    assert decode(encoded) == [text, {text: text}]


def test_a_number_too_long_for_python_to_read_back_is_refused() -> None:
    assert refused([10**5_000]).path.startswith("args")


def test_the_size_has_a_limit_and_the_error_says_so() -> None:
    encode("a" * 98, root="result", limit=100)

    with pytest.raises(
        InvalidPayload, match=r"result takes 101 bytes as JSON, and JOBIFY\['MAX_PAYLOAD'\] is 100"
    ):
        encode("a" * 99, root="result", limit=100)


def test_the_size_of_a_call_counts_as_a_whole() -> None:
    args, kwargs = ("a" * 60,), {"b": "c" * 60}

    with pytest.raises(InvalidPayload, match="args and kwargs takes") as raised:
        encode_call(args, kwargs, 100)
    assert raised.value.path == "args and kwargs"
    with pytest.raises(InvalidPayload, match="kwargs takes"):
        encode_call((), {"b": "c" * 100}, 100)


@pytest.mark.parametrize(
    ("args", "kwargs", "path"),
    [(((1, 2),), {}, "args[0]"), ((1,), {"when": {"at": {1}}}, "kwargs['when']['at']")],
)
def test_a_call_names_the_argument(args: tuple[Any, ...], kwargs: dict[str, Any], path: str) -> None:
    with pytest.raises(InvalidPayload) as raised:
        encode_call(args, kwargs, LIMIT)

    assert raised.value.path == path


def test_no_arguments_are_one_text() -> None:
    assert json.loads(encode_call((), {}, LIMIT)) == [[], {}]
    assert decode_call(encode_call((), {}, LIMIT)) == ([], {})
