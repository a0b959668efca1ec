"""What JSON does not hold: where in a value it stands, why, and what to hand over instead."""

from __future__ import annotations

import array
import collections
import dataclasses
import datetime
import decimal
import enum
import fractions
import inspect
import ipaddress
import json
import math
import pathlib
import re
import types
import uuid
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

MAX_DEPTH = 100
"""Levels of lists and dicts in one argument or result: what the JSON functions of MySQL read at most."""

LONGEST_KEY = 60
LONGEST_PATH = 300

PLAIN = "plain JSON values (None, bool, int, float, str, list, dict), or an id"
FLATTER = "a flatter value, or store the data and pass its id"
STRING_KEYS = "a dict with string keys: {str(key): item for key, item in value.items()}"

# By name along the class's bases, so that nothing is imported that the project does not use.
NAMED: Mapping[str, str] = types.MappingProxyType(
    {
        "django.core.files.base.File": "the name it is stored under: default_storage.save(value.name, value)",
        "django.db.models.base.Model": "its id (value.pk), and read it again in the task",
        "django.db.models.manager.BaseManager": "ids, as in list(value.values_list('pk', flat=True))",
        "django.db.models.query.QuerySet": "ids, as in list(value.values_list('pk', flat=True))",
        "django.http.request.HttpRequest": (
            "what the task needs of it, as request.POST.dict() or request.user.pk"
        ),
        "django.utils.datastructures.MultiValueDict": (
            "value.dict() (the last value of each key) or dict(value.lists()) (all of them)"
        ),
        "django.utils.functional.LazyObject": "what the task needs of it, as request.user.pk",
        "django.utils.functional.Promise": "str(value)",
        "jobify_django.handle.Job": "value.id, and use get_job(id) in the task",
        "jobify_django.push.awaitable.AwaitablePush": "the id of the job that it gives: await it first",
        "jobify_django.task.Task": "value.name",
        "numpy.generic": "value.item()",
        "numpy.ndarray": "value.tolist()",
        "pandas.core.frame.DataFrame": "value.to_dict('records')",
        "pandas.core.series.Series": "value.tolist()",
        "pydantic.main.BaseModel": "value.model_dump(mode='json')",
    }
)
# From here on by class; the first that fits.
KINDS: tuple[tuple[tuple[type, ...], str], ...] = (
    ((enum.Enum,), "value.value"),
    ((datetime.date, datetime.time), "value.isoformat()"),
    ((datetime.timedelta,), "value.total_seconds()"),
    ((datetime.tzinfo, uuid.UUID, pathlib.PurePath, decimal.Decimal, fractions.Fraction), "str(value)"),
    ((ipaddress._IPAddressBase, complex, BaseException), "str(value)"),
    ((bytes, bytearray, memoryview), "base64.b64encode(value).decode(), or store it and pass its name"),
    ((re.Pattern,), "value.pattern"),
    ((type, types.FunctionType, types.BuiltinFunctionType, types.MethodType, types.ModuleType), "its name"),
    ((Mapping,), "dict(value)"),
    ((array.array,), "value.tolist()"),
    ((set, frozenset, tuple, range, collections.deque), "list(value)"),
)
EXACT = frozenset({dict, list, str, int, float, bool, type(None)})


class Fault(NamedTuple):
    """Why a value cannot be stored.

    Attributes:
        path: where it stands, as in ``args[0]['when']``.
        why: what is wrong with it.
        instead: what to pass, or return, instead.
    """

    path: str
    why: str
    instead: str


def first_fault(value: object, root: str, around: int = 0) -> Fault | None:
    """Return where a value first does not survive JSON, or is nested deeper than ``MAX_DEPTH``, if anywhere.

    It reads no attribute of a foreign object: a lazy one would ask the database. The ``around`` outermost
    levels are no part of the values, and do not count.
    """
    opened: list[tuple[str, Any]] = []
    rests: list[Iterator[tuple[str, Any]]] = [iter([(root, value)])]
    while rests:
        for path, item in rests[-1]:
            if any(item is parent for _, parent in opened):
                return Fault(path, "it contains itself", PLAIN)
            if (fault := _own(item, path)) is not None:
                return fault
            if issubclass(type(item), (dict, list)):
                if len(opened) >= MAX_DEPTH + around:
                    return Fault(opened[around][0], f"it is nested deeper than {MAX_DEPTH} levels", FLATTER)
                opened.append((path, item))
                rests.append(_inside(item, path))
                break
        else:
            rests.pop()
            if opened and (fault := _changed(*opened.pop())) is not None:
                return fault
    return None


def is_deep(text: str, value: object, around: int = 0) -> bool:
    """Whether the value that JSON text gave is nested too deeply; ``around`` is as in ``first_fault``."""
    levels = MAX_DEPTH + around
    # Most texts are too short for so many brackets, or have too few: then nothing needs a walk.
    if len(text) <= 2 * levels or text.count("[") + text.count("{") <= levels:
        return False
    level: list[Any] = [value] if type(value) in (list, dict) else []
    for _ in range(levels):
        level = [
            item
            for one in level
            for item in (one.values() if type(one) is dict else one)
            if type(item) is list or type(item) is dict
        ]
        if not level:
            return False
    return bool(level)


def _own(value: Any, path: str) -> Fault | None:
    """Return what is wrong with a value, whatever it contains."""
    kind = type(value)
    if issubclass(kind, dict):
        for key in dict.keys(value):
            if not issubclass(type(key), str):
                return Fault(_at(path, key), f"the key is {_a(key)}, and JSON makes it a string", STRING_KEYS)
        return None
    if issubclass(kind, list):
        return None
    if issubclass(kind, tuple):
        named = hasattr(kind, "_fields")
        what = f"a tuple ({kind.__name__})" if kind is not tuple else "a tuple"
        instead = "list(value) or value._asdict()" if named else "list(value)"
        return Fault(path, f"it is {what}, and JSON makes it a list", instead)
    if issubclass(kind, float) and not math.isfinite(value):
        return Fault(path, f"{float(value)!r} is no JSON number", "None, or str(value)")
    if issubclass(kind, int) and not _has_few_digits(value):
        return Fault(path, "it has more digits than Python reads back", "hex(value)")
    if issubclass(kind, (str, int, float, type(None))):
        return _changed(path, value)
    return Fault(path, f"it is {_a(value)}", _instead(value))


def _changed(path: str, value: Any) -> Fault | None:
    """Return that a value of a subclass reads back as something else; what is inside it is right."""
    if type(value) in EXACT:
        return None
    why = "and JSON makes something else of it"
    try:
        if json.loads(json.dumps(value)) == value:
            return None
    except Exception as error:
        why = f"and to read it raises {type(error).__name__}: {error}"
    plain = next(base for base in (dict, list, str, int, float) if isinstance(value, base))
    instead = _by_name(type(value)) or f"{plain.__name__}(value)"
    return Fault(path, f"it is {_a(value)}, {why}", instead)


def _has_few_digits(value: int) -> bool:
    try:
        int.__repr__(value)
    except ValueError:
        return False
    return True


def _instead(value: object) -> str:
    kind = type(value)
    if (named := _by_name(kind)) is not None:
        return named
    for kinds, instead in KINDS:
        if issubclass(kind, kinds):
            return instead
    if dataclasses.is_dataclass(kind):
        return "dataclasses.asdict(value)"
    if inspect.isawaitable(value):
        return "what it gives: await it first"
    return "list(value)" if issubclass(kind, Iterable) else PLAIN


def _by_name(kind: type) -> str | None:
    names = (NAMED.get(f"{base.__module__}.{base.__qualname__}") for base in kind.__mro__)
    return next(filter(None, names), None)


def _inside(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if issubclass(type(value), list):
        return ((_at(path, index), item) for index, item in enumerate(list.__iter__(value)))
    return ((_at(path, key), item) for key, item in dict.items(value))


def _at(path: str, key: object) -> str:
    """Return the path of an item; of a long one only so much as one can still read."""
    try:
        word = repr(key)
    except Exception:
        word = f"<{type(key).__name__}>"
    if len(word) > LONGEST_KEY:
        word = f"{word[:LONGEST_KEY]}…"
    return path if path.endswith("…") else f"{path}[{word}]" if len(path) < LONGEST_PATH else f"{path}…"


def _a(value: object) -> str:
    """Return what kind of thing a value is, as ``a UUID`` or ``an Order.Status``."""
    kind = type(value)
    if any(base.__qualname__ == "Promise" for base in kind.__mro__):
        return "a lazy text (as gettext_lazy gives)"
    name = kind.__qualname__.rpartition("<locals>.")[2]
    return f"an {name}" if name[0].lower() in "aeio" else f"a {name}"
