"""Arguments and results as JSON text that reads back as what it was."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

from jobify_django.exceptions import InvalidPayload

NO_ARGUMENTS = "[[],{}]"

_encode = json.JSONEncoder(allow_nan=False, separators=(",", ":"), check_circular=True).encode


def encode(value: object, *, root: str, limit: int) -> str:
    """Return ``value`` as JSON text (ASCII, so that every database stores it unchanged).

    Args:
        value: what to encode.
        root: how the value is called in an error, as in ``args`` or ``result``.
        limit: how many bytes the text may have.

    Raises ``InvalidPayload`` if the text would read back as anything else, or is too long.
    """
    try:
        text = _encode(value)
        same = json.loads(text) == value
    except (TypeError, ValueError, RecursionError) as error:
        raise _explained(value, root, error) from error
    if not same:
        raise _explained(value, root, None)
    if len(text) > limit:
        raise InvalidPayload(
            f"{root} takes {len(text):,} bytes as JSON, and JOBIFY['MAX_PAYLOAD'] is {limit:,}. "
            "Store the data and pass its id.",
            root,
        )
    return text


def decode(text: str) -> Any:
    """Return the value of a text that ``encode`` made; raises ``InvalidPayload`` for any other."""
    try:
        return json.loads(text)
    except (ValueError, TypeError, RecursionError) as error:
        raise _unreadable("result", str(error)) from error


def encode_call(args: tuple[Any, ...], kwargs: dict[str, Any], limit: int) -> str:
    """Return a call's arguments as the JSON text ``[args, kwargs]``; raises ``InvalidPayload``."""
    if not args and not kwargs:
        return NO_ARGUMENTS
    try:
        text = _encode([args, kwargs])
        read = json.loads(text)
        if len(text) <= limit and read[0] == list(args) and read[1] == kwargs:
            return text
    except (TypeError, ValueError, RecursionError):
        pass  # said below, with the argument it was
    encode(list(args), root="args", limit=limit)
    encode(kwargs, root="kwargs", limit=limit)
    return encode([list(args), kwargs], root="args and kwargs", limit=limit)


def decode_call(text: str) -> tuple[list[Any], dict[str, Any]]:
    """Return the arguments of a text that ``encode_call`` made; raises ``InvalidPayload`` for any other."""
    if text == NO_ARGUMENTS:
        return [], {}
    try:
        args, kwargs = json.loads(text)
    except (ValueError, TypeError, RecursionError) as error:
        raise _unreadable("arguments", str(error)) from error
    if type(args) is not list or type(kwargs) is not dict:
        raise _unreadable("arguments", "they are no list and dict")
    return args, kwargs


def _unreadable(what: str, why: str) -> InvalidPayload:
    return InvalidPayload(
        f"the job's stored {what} cannot be read: {why}. Something else than a push or a worker has written "
        "them: push the job anew.",
        what,
    )


def _explained(value: object, root: str, error: Exception | None) -> InvalidPayload:
    try:
        path, why = next(_faults(value, root, ()), (root, str(error) or "it is no JSON"))
    except RecursionError:
        path, why = root, "it is nested too deeply"
    return InvalidPayload(f"{path} cannot be stored as JSON: {why}. Pass plain JSON values, or an id.", path)


def _faults(value: object, path: str, parents: tuple[int, ...]) -> Iterator[tuple[str, str]]:
    """Yield where a value does not survive JSON, and why."""
    if id(value) in parents:
        yield path, "it contains itself"
    elif isinstance(value, float) and not math.isfinite(value):
        yield path, f"{value!r} is no JSON number"
    elif isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                yield f"{path}[{key!r}]", f"the key is {_a(key)}, and JSON makes it a string"
            yield from _faults(item, f"{path}[{key!r}]", (*parents, id(value)))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _faults(item, f"{path}[{index}]", (*parents, id(value)))
    elif isinstance(value, tuple):
        yield path, "it is a tuple, and JSON makes it a list"
    elif not isinstance(value, (str, int, float, type(None))):
        yield path, f"it is {_a(value)}"


def _a(value: object) -> str:
    name = type(value).__qualname__
    return f"an {name}" if name[0].lower() in "aeiou" else f"a {name}"
