"""Rows under headings, no wider than the terminal."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from django.core.management.base import OutputWrapper

GAP = "  "
MORE = "\N{HORIZONTAL ELLIPSIS}"

Cells = dict[str, str]


def width_of(out: OutputWrapper) -> int | None:
    """Return how many columns a terminal has; ``None`` for a file or a pipe, which take any line."""
    return shutil.get_terminal_size().columns if out.isatty() else None


def table(
    columns: Sequence[str],
    rows: Iterable[Mapping[str, Any]],
    *,
    width: int | None = None,
    spare: Sequence[str] = (),
    dotted: str = "",
) -> str:
    """Return rows under headings, in columns as wide as they need.

    Args:
        columns: what to show of each row.
        rows: the values.
        width: characters that a line may have; ``None`` for any number.
        spare: columns that are left out, in this order, until a line fits.
        dotted: a column of dotted names. They keep two parts before a column is left out, and one before the
            last of the spare ones is.
    """
    cells = [{column: _text(row.get(column)) for column in columns} for row in rows]
    shown = list(columns) if width is None else _narrowed(list(columns), cells, width, spare, dotted)
    widths = _widths(shown, cells)
    lines = [{column: column for column in shown}, *cells]
    return "\n".join(
        GAP.join(line[column].ljust(widths[column]) for column in shown).rstrip() for line in lines
    )


def _narrowed(
    columns: list[str], cells: list[Cells], width: int, spare: Sequence[str], dotted: str
) -> list[str]:
    def excess() -> int:
        return sum(_widths(columns, cells).values()) + len(GAP) * (len(columns) - 1) - width

    if excess() > 0 and dotted:
        _keep_last_parts(cells, dotted, 2)
    for column in spare:
        if excess() > 0 and dotted and column == spare[-1]:
            _keep_last_parts(cells, dotted, 1)
        if excess() > 0:
            columns.remove(column)
    if (over := excess()) > 0 and dotted:
        _cut(cells, dotted, max(len(dotted), _widths([dotted], cells)[dotted] - over))
    return columns


def _keep_last_parts(cells: list[Cells], column: str, parts: int) -> None:
    for cell in cells:
        cell[column] = ".".join(cell[column].split(".")[-parts:])


def _cut(cells: list[Cells], column: str, most: int) -> None:
    for cell in cells:
        if len(cell[column]) > most:
            cell[column] = MORE + cell[column][-most + 1 :]


def _widths(columns: Sequence[str], cells: Sequence[Cells]) -> dict[str, int]:
    return {column: max([len(column), *(len(cell[column]) for cell in cells)]) for column in columns}


def _text(value: object) -> str:
    return ("yes" if value else "no") if isinstance(value, bool) else plain(value)


def plain(value: object) -> str:
    """Return a value on one line, with nothing in it that a terminal would obey."""
    text = "" if value is None else str(value)
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


def plain_lines(text: str) -> str:
    """Return a text of several lines as ``plain`` does, line by line."""
    return "\n".join(plain(line) for line in text.splitlines())


def words(seconds: float) -> str:
    """Return a duration in a word: ``27ms``, ``12s``, ``3m``, ``5h`` or ``2d``."""
    if 0 < seconds < 1:
        return f"{seconds * 1000:.0f}ms"
    for unit, length in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= length:
            return f"{int(seconds // length)}{unit}"
    return f"{max(0, int(seconds))}s"
