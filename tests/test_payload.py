"""Arguments and results: what survives JSON, and what is said about the rest."""

import collections
import dataclasses
import datetime
import decimal
import enum
import fractions
import ipaddress
import json
import math
import pathlib
import re
import types
import uuid
from typing import Any, NamedTuple

import pytest
from django.contrib.auth.models import User
from django.core.files.base import ContentFile
from django.http import HttpRequest, QueryDict
from django.utils.datastructures import MultiValueDict
from django.utils.functional import SimpleLazyObject
from django.utils.safestring import mark_safe
from django.utils.translation import gettext_lazy
from hypothesis import given
from hypothesis import strategies as st

from jobify_django import InvalidPayload, Job, task
from jobify_django.job import JobSpec, new_id
from jobify_django.payload import decode, decode_call, encode, encode_call
from jobify_django.stores.memory import MemoryStore

LIMIT = 10**6
SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
)
# Lone surrogates too: JSON can carry them, and so a caller's text arrives as it was.
TEXT = st.text(st.characters(codec=None, exclude_categories=()))
VALUES = st.recursive(
    SCALARS | TEXT, lambda inner: st.lists(inner) | st.dictionaries(st.text() | TEXT, inner), max_leaves=20
)
PAIR = "\ud83d\ude00"
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


@task
def noop(value: Any = None) -> None: ...


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


@given(SCALARS | TEXT)
def test_a_scalar_is_written_as_the_standard_library_writes_it(value: object) -> None:
    assert encode(value, root="result", limit=LIMIT) == json.dumps(value)
    assert encode_call((value,), {"a": value}, LIMIT) == json.dumps(
        [[value], {"a": value}], separators=(",", ":")
    )


@pytest.mark.parametrize("call", [((PAIR,), {}), ((), {"a": PAIR}), ((), {PAIR: 1}), (([PAIR],), {})])
def test_two_halves_of_a_pair_would_read_back_as_one_character(call: Any) -> None:
    args, kwargs = call
    with pytest.raises(InvalidPayload, match="does not equal what JSON reads back"):
        encode_call(args, kwargs, LIMIT)
    with pytest.raises(InvalidPayload, match="does not equal what JSON reads back"):
        encode(PAIR, root="result", limit=LIMIT)


def test_a_text_of_another_hand_may_have_spaces_around_it() -> None:
    assert decode(" [1] \n") == [1]
    with pytest.raises(InvalidPayload, match="cannot be read"):
        decode("[1] 2")


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


class Size(enum.IntEnum):
    SMALL = 1


class Weekday(enum.StrEnum):
    MONDAY = "monday"


@dataclasses.dataclass
class Parcel:
    weight: int = 1


class Shouting(str):
    """Equal to no plain text."""

    __slots__ = ()
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Shouting)


async def later() -> int:
    return 1


class Scalar:
    """Named as numpy names the base of its scalars, which this project does not use."""


Scalar.__module__, Scalar.__qualname__ = "numpy", "generic"


def unread() -> Any:
    raise AssertionError("a refused value was read")


LISTED = "list(value.values_list('pk', flat=True))"
REMEDIES = {
    "uuid": (uuid.UUID(int=1), "str(value)"),
    "path": (pathlib.Path("/tmp"), "str(value)"),
    "decimal": (decimal.Decimal(1), "str(value)"),
    "fraction": (fractions.Fraction(1, 2), "str(value)"),
    "address": (ipaddress.ip_address("::1"), "str(value)"),
    "zone": (datetime.UTC, "str(value)"),
    "lazy text": (gettext_lazy("Monday"), "str(value)"),
    "exception": (ValueError("no"), "str(value)"),
    "datetime": (datetime.datetime.now(datetime.UTC), "value.isoformat()"),
    "date": (datetime.date(2026, 1, 1), "value.isoformat()"),
    "time": (datetime.time(12), "value.isoformat()"),
    "timedelta": (datetime.timedelta(1), "value.total_seconds()"),
    "set": ({1}, "list(value)"),
    "frozenset": (frozenset({1}), "list(value)"),
    "tuple": ((1,), "list(value)"),
    "named tuple": (Point(1, 2), "list(value) or value._asdict()"),
    "keys": ({1: 2}.keys(), "list(value)"),
    "items": ({"a": 2}.items(), "list(value)"),
    "range": (range(3), "list(value)"),
    "deque": (collections.deque([1]), "list(value)"),
    "generator": ((one for one in "ab"), "list(value)"),
    "mapping": (types.MappingProxyType({"a": 1}), "dict(value)"),
    "bytes": (b"a", "base64.b64encode(value).decode(), or store it and pass its name"),
    "enum": (Colour.RED, "value.value"),
    "dataclass": (Parcel(), "dataclasses.asdict(value)"),
    "model": (User(pk=1), "its id (value.pk), and read it again in the task"),
    "query": (User.objects.all(), f"ids, as in {LISTED}"),
    "manager": (User.objects, f"ids, as in {LISTED}"),
    "lazy object": (SimpleLazyObject(unread), "what the task needs of it, as request.user.pk"),
    "request": (HttpRequest(), "what the task needs of it, as request.POST.dict() or request.user.pk"),
    "upload": (
        ContentFile(b"a", "a.txt"),
        "the name it is stored under: default_storage.save(value.name, value)",
    ),
    "form data": (
        QueryDict("a=1&a=2"),
        "value.dict() (the last value of each key) or dict(value.lists()) (all of them)",
    ),
    "nan": (math.nan, "None, or str(value)"),
    "long number": (10**5_000, "hex(value)"),
    "key": ({1: 2}, "a dict with string keys: {str(key): item for key, item in value.items()}"),
    "text of its own": (Shouting("a"), "str(value)"),
    "numpy": (Scalar(), "value.item()"),
    "function": (later, "its name"),
    "anything": (object(), "plain JSON values (None, bool, int, float, str, list, dict), or an id"),
}


@pytest.mark.parametrize(("value", "instead"), REMEDIES.values(), ids=REMEDIES)
def test_the_error_says_what_to_hand_over_instead(value: object, instead: str) -> None:
    for root, verb in (("args", "Pass"), ("result", "Return")):
        error = refused({"deep": [value]}, root)

        assert error.path.startswith(f"{root}['deep'][0]")
        assert str(error).endswith(f". {verb} {instead}.")
        assert f" {None}." not in str(error)


@pytest.mark.parametrize("data", ["a=1&b=2", "a=1&a=2"])
def test_form_data_is_refused_as_what_it_is(data: str) -> None:
    """Django's QueryDict is a dict, and holds a list where it shows one value."""
    for error in (
        refused(QueryDict(data)),
        refused([QueryDict(data)]),
        refused(MultiValueDict({"a": [1, 2]})),
    ):
        assert re.search(
            r"it is a (QueryDict|MultiValueDict), and JSON makes something else of it", str(error)
        )
    assert decode(encode(QueryDict(data).dict(), root="args", limit=LIMIT)) == QueryDict(data).dict()


def test_a_handle_and_a_task_go_by_what_names_them() -> None:
    handle: Job[Any] = Job(
        MemoryStore("of a test"), "default", JobSpec(new_id(), "shop.tasks.charge", "[[],{}]")
    )

    assert str(refused([handle])).endswith("it is a Job. Pass value.id, and use get_job(id) in the task.")
    assert str(refused([noop])).endswith("it is a Task. Pass value.name.")


async def test_a_push_as_an_argument_is_to_be_awaited_first(settings: Any) -> None:
    settings.JOBIFY = {"STORE": "memory"}
    inner: Any = noop.push()

    with pytest.raises(InvalidPayload, match="Pass the id of the job that it gives: await it first"):
        await noop.push(inner)
    inner.close()


def test_an_awaitable_is_to_be_awaited_first() -> None:
    coroutine = later()
    try:
        assert str(refused([coroutine])).endswith("it is a coroutine. Pass what it gives: await it first.")
    finally:
        coroutine.close()


@pytest.mark.parametrize(
    "value",
    [
        mark_safe("<b>"),
        Size.SMALL,
        Weekday.MONDAY,
        True,
        collections.OrderedDict(a=1),
        collections.Counter("aab"),
        collections.defaultdict(list, a=[1]),
        QueryDict(""),
    ],
)
def test_what_equals_a_plain_value_arrives_as_that(value: Any) -> None:
    arrived = decode(encode([value], root="args", limit=LIMIT))

    assert arrived == [value]
    assert type(arrived[0]) in (str, int, bool, dict)


class Closed(dict[str, Any]):
    """Cannot be read any more."""

    def items(self) -> Any:
        raise LookupError("the session is closed")


def test_what_an_object_raises_when_it_is_read_is_told() -> None:
    error = refused({"row": Closed(a=1)})

    assert error.path == "args['row']"
    assert "to read it raises LookupError: the session is closed" in str(error)


def test_a_path_stays_short_whatever_the_keys_are() -> None:
    value: Any = {1}
    for letter in "abcdefghij":
        value = {letter * 100_000: value}

    assert len(refused(value).path) < 500
    assert len(str(refused([{object: 1}, {"b" * 100_000: 1}, {("c" * 100_000,): 1}]))) < 500


def test_a_value_that_contains_itself_is_refused() -> None:
    value: list[Any] = [1]
    value.append([value])

    assert refused(value).path == "args[1][0]"
    assert "contains itself" in str(refused(value))


def test_one_value_in_two_places_is_no_cycle() -> None:
    shared = {"a": 1}

    assert decode(encode([shared, shared], root="args", limit=LIMIT)) == [shared, shared]


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
