"""Arguments and results as JSON text that reads back as what it was."""

from __future__ import annotations

import contextlib
import json
import json.encoder
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from jobify_django.exceptions import InvalidPayload
from jobify_django.fault import MAX_DEPTH, PLAIN, Fault, first_fault, is_deep

NO_ARGUMENTS = "[[],{}]"

MOST_SHOWN = 40_000
"""Characters of one stored text that a page shows: with HTML's escapes, three of them are below 1 MB."""

MOST_QUOTED = 2_000
"""Characters of a stored text that stand within a sentence or a line."""

MOST_READ = 1024 * 1024
"""Characters above which a text is not even read to lay it out: no page needs a gigabyte for one."""

SHALLOW = 2 * MAX_DEPTH
"""Characters in which no more levels fit than are allowed."""

UNREADABLE = object()
"""Stands for the value of a text that cannot be read."""

SCALARS = frozenset({int, float, bool, type(None)})
"""Types whose values read back from JSON as they were, if they can be written at all. So does a text that is
ASCII; of others some do not: two halves of a surrogate pair read back as one character."""

_standard = json.JSONEncoder(allow_nan=False, separators=(",", ":"), check_circular=True)
_encode = _standard.encode
_plain = json.JSONEncoder(ensure_ascii=False).encode
_read = json.JSONDecoder().raw_decode


def _flat_encoder() -> Callable[[object], str]:
    """Return an encoder for what cannot contain itself. The standard one makes a new one in C at each call:
    two thirds of its time for a short value (3.9 against 1.1 microseconds)."""
    make: Any = getattr(json.encoder, "c_make_encoder", None)
    if make is None:
        return _encode
    write = make(
        None, _standard.default, json.encoder.encode_basestring_ascii, None, ":", ",", False, False, False
    )
    return lambda value: "".join(write(value, 0))


_encode_flat = _flat_encoder()


def encode(value: object, *, root: str, limit: int, around: int = 0) -> str:
    """Return ``value`` as JSON text (ASCII, so that every database stores it unchanged).

    Args:
        value: what to encode.
        root: how the value is called in an error, as in ``args`` or ``result``.
        limit: how many bytes the text may have.
        around: how many of its outermost levels do not count for the depth.

    Raises ``InvalidPayload`` if the text would read back as anything else, is nested too deeply or too long.
    """
    try:
        if _are_scalars((value,)):
            text, good = _encode_flat(value), True
        else:
            text = _encode(value)
            read = json.loads(text)
            good = bool(read == value) and not is_deep(text, read, around)
    except Exception as error:  # whatever an object of a foreign class raises when it is looked at
        raise _explained(value, root, around, error) from error
    if not good:
        raise _explained(value, root, around)
    if len(text) > limit:
        raise InvalidPayload(
            f"{root} takes {len(text):,} bytes as JSON, and JOBIFY['MAX_PAYLOAD'] is {limit:,}. "
            "Store the data and pass its id.",
            root,
        )
    return text


def encode_call(args: tuple[Any, ...], kwargs: dict[str, Any], limit: int) -> str:
    """Return a call's arguments as the JSON text ``[args, kwargs]``; raises ``InvalidPayload``."""
    if not args and not kwargs:
        return NO_ARGUMENTS
    try:
        if _are_scalars(args) and (not kwargs or (_are_scalars(kwargs) and _are_scalars(kwargs.values()))):
            text = _encode_flat((args, kwargs))
            if len(text) <= limit:
                return text
        text = _encode([args, kwargs])
        read = json.loads(text)
        same = read[0] == list(args) and read[1] == kwargs
        if len(text) <= limit and same and (len(text) <= SHALLOW or not is_deep(text, read, around=2)):
            return text
    except Exception:
        pass  # said below, with the argument it was
    encode(list(args), root="args", limit=limit, around=1)
    encode(kwargs, root="kwargs", limit=limit, around=1)
    return encode([list(args), kwargs], root="args and kwargs", limit=limit, around=2)


def _are_scalars(values: Iterable[object]) -> bool:
    """Whether none of these values needs a second look: each reads back as it was, or cannot be written."""
    for value in values:
        kind = type(value)
        if kind is str:
            if not value.isascii():  # type: ignore[attr-defined]
                return False
        elif kind not in SCALARS:
            return False
    return True


def _explained(value: object, root: str, around: int, error: Exception | None = None) -> InvalidPayload:
    fault = first_fault(value, root, around)
    if fault is None:  # a class of the project's own that says it equals nothing, or a stack that is full
        why = f"{type(error).__name__}: {error}" if error else "it does not equal what JSON reads back"
        fault = Fault(root, why, PLAIN)
    verb = "Return" if root == "result" else "Pass"
    message = f"{fault.path} cannot be stored as JSON: {fault.why}. {verb} {fault.instead}."
    return InvalidPayload(message, fault.path)


def decode(text: str, root: str = "result") -> Any:
    """Return the value of a text that ``encode`` made; raises ``InvalidPayload`` if it cannot be read."""
    try:
        # What ``encode`` wrote begins with the value and ends with it. ``loads`` looks for spaces around it,
        # and takes three times as long; it decides about a text of another hand.
        value, end = _read(text)
        if end == len(text):
            return value
    except (ValueError, TypeError, RecursionError):
        pass
    try:
        return json.loads(text)
    except (ValueError, TypeError, RecursionError) as error:
        raise _unreadable(root, f"{type(error).__name__}: {error}") from error


def decode_call(text: str) -> tuple[list[Any], dict[str, Any]]:
    """Return the arguments of a text that ``encode_call`` made; raises ``InvalidPayload`` if it is none."""
    if text == NO_ARGUMENTS:
        return [], {}
    call = decode(text, "arguments")
    if type(call) is list and len(call) == 2 and type(call[0]) is list and type(call[1]) is dict:
        return call[0], call[1]
    raise _unreadable("arguments", "they are not [[...], {...}]")


def _unreadable(root: str, why: str) -> InvalidPayload:
    return InvalidPayload(
        f"the stored {root} of this job cannot be read ({why}): another hand than push wrote the text, or "
        "cut it. 'manage.py jobs show' and the admin show it as it is; push the call anew.",
        root,
    )


def readable(text: str | None, *, call: bool = False) -> Any:
    """Return what ``decode`` does (``decode_call``, for a call), for those who hand it on as JSON.

    What cannot be read is ``UNREADABLE``, and so is what is nested deeper than a push takes: others could
    not read that.
    """
    if text is None:
        return None
    try:
        value = decode_call(text) if call else decode(text)
    except InvalidPayload:
        return UNREADABLE
    return UNREADABLE if is_deep(text, list(value) if call else value, around=2 * call) else value


class Shown(NamedTuple):
    """A stored text for a page.

    Attributes:
        text: what to show.
        left_out: how many more characters there are.
        unreadable: whether it should have been JSON, and cannot be read as that.
    """

    text: str
    left_out: int = 0
    unreadable: bool = False


def shown(text: object, limit: int = MOST_SHOWN, arrange: Callable[[Any], Any] | None = None) -> Shown:
    """Return a stored text for people, at most ``limit`` characters of it. Never raises, whatever it is.

    JSON is laid out with indents if it fits then, else on one line. What cannot be read (no JSON, nested
    too deeply, larger than ``MOST_READ``) is shown as it stands.

    Args:
        text: what the row holds.
        limit: how many characters a page has room for.
        arrange: makes of the value that was read the one to show; if it raises, the text stands as it is.
    """
    words = text if isinstance(text, str) else repr(text)
    unreadable = False
    if len(words) <= MOST_READ:
        try:
            value = json.loads(words) if arrange is None else arrange(json.loads(words))
            words = _plain(value)
            words = in_lines(value, limit) or words
        except Exception:  # whatever ``arrange`` makes of another shape
            unreadable = True
    return cut(words, limit)._replace(unreadable=unreadable)


def cut(text: str, limit: int = MOST_SHOWN) -> Shown:
    """Return a text for a page that is no JSON, at most ``limit`` characters of it. Never raises."""
    # A lone surrogate, which JSON can carry, is nothing that a page can be encoded with.
    words = text[:limit].encode("utf-8", "backslashreplace").decode()
    return Shown(words, max(0, len(text) - limit))


def brief(text: str) -> str:
    """Return the beginning of a text, and how much more of it there is."""
    shown = cut(text, MOST_QUOTED)
    return f"{shown.text} (and {shown.left_out:,} characters more)" if shown.left_out else shown.text


def in_lines(value: object, limit: int, *, ascii: bool = False) -> str | None:
    """Return JSON with indents, or ``None`` if that takes more than ``limit`` characters: of a wide list
    that stands deep in a value, most would be spaces."""
    parts: list[str] = []
    size = 0
    with contextlib.suppress(RecursionError):  # it takes more of the stack than reading does
        for part in json.JSONEncoder(ensure_ascii=ascii, indent=2).iterencode(value):
            parts.append(part)
            size += len(part)
            if size > limit:
                return None
        return "".join(parts)
    return None
