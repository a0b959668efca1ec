"""How the trace tells a call and its answer: short, and the same in every run."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from jobify_django.conf import QueueSettings
from jobify_django.job import Claim, JobSpec, JobStatus
from jobify_django.outcome import Outcome
from jobify_django.stores.value import Added, Claimed, Demand, QueueState, Renewed, Rescued

LONGEST = 220
ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
EVENTS = ("dies", "freezes", "drains", "drained", "VIOLATION", "from here on")


def told(value: Any) -> str:
    """Return a value in few words."""
    text = _told(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def answered(verb: str, result: Any) -> str:
    """Return what a call answered, or nothing where that was nothing."""
    if isinstance(result, Claimed) and not result.claims and not result.refused:
        return ""
    if isinstance(result, Renewed) and not result.lost and not result.cancel_requested:
        return "ok"
    if verb in ("rescue", "reconcile", "prune", "retire") and not result:
        return ""
    return told(result)


def shortened(text: str) -> str:
    """Return a text with the last four digits of every id in it."""
    return ID.sub(lambda found: found.group()[-4:], text)


def about(trace: list[str], what: str, last: int = 40) -> list[str]:
    """Return the lines of a trace that bear on a violation, the newest ``last`` of them."""
    ids = {f"{id}" for id in re.findall(r"\b[0-9a-f]{4}\b", shortened(what))}
    lines = [
        line
        for place, line in enumerate(trace)
        if place >= len(trace) - 8 or any(id in line for id in ids) or any(event in line for event in EVENTS)
    ]
    return lines[-last:]


def _told(value: Any) -> str:
    match value:
        case JobStatus():
            return value.value
        case JobSpec():
            later = f" in {value.delay:.2f} s" if value.delay else ""
            return f"{value.id[-4:]} {value.arguments[:-4]}] p{value.priority}{later}"
        case Claim():
            return f"{value.id[-4:]}#{value.attempt}"
        case Outcome():
            return f"{value.id[-4:]}#{value.attempt} {value.happened}"
        case Demand():
            wants = {queue: lane.want for queue, lane in value.lanes.items()}
            return f"{_told(wants)} {value.quarantine}"
        case Rescued():
            return f"{value.id[-4:]}#{value.attempt} is {value.status}"
        case Added():
            return f"took {value.taken}, {value.depth} of {value.maxsize} wait"
        case Claimed():
            refused = f", refused {_told(list(value.refused))}" if value.refused else ""
            return f"{_told(list(value.claims))}{refused}"
        case Renewed():
            return f"lost {_told(list(value.lost))}, to cancel {_told(list(value.cancel_requested))}"
        case QueueSettings():
            return value.name
        case QueueState():
            return f"version {value.version}"
        case str():
            return shortened(value)
        case Mapping():
            return "{" + ", ".join(f"{_told(key)}: {_told(one)}" for key, one in value.items()) + "}"
        case tuple() if not hasattr(value, "_fields"):
            return "(" + ", ".join(map(_told, value)) + ")"
        case list() | set() | frozenset():
            return "[" + ", ".join(map(_told, value)) + "]"
        case _:
            return shortened(repr(value))
