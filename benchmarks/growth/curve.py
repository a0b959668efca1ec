"""A curve's values: what it is about, and its series."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Chart:
    """One picture.

    Attributes:
        name: of its file.
        title: what it says above.
        x: what grows, with its unit.
        y: what is measured, with its unit.
        series: the figures of a point that it shows, and what each is called.
        log_y: whether its y axis is logarithmic.
    """

    name: str
    title: str
    x: str
    y: str
    series: Mapping[str, str]
    log_y: bool = False


@dataclass(frozen=True)
class Curve:
    """A module's curve.

    Attributes:
        point: ``point(x, server=..., scale=...)`` measures in a process of its own, and returns figures.
        xs: where it is measured.
        charts: the pictures of it.
    """

    point: Callable[..., dict[str, Any]]
    xs: Sequence[int]
    charts: Sequence[Chart]
