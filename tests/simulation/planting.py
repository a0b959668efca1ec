"""Where a known bug is planted: a named place of the package, and what is changed there, as syntax.

Formatting, comments, quotes and line breaks do not matter. What a mutant looks for must be in its place
exactly once; otherwise ``Misfit`` says where it was looked for, and what is nearest.
"""

from __future__ import annotations

import ast
import builtins
import itertools
import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any, NamedTuple

from tests.simulation.syntax import names_set, passing_on, same, spots, words

PACKAGE = "jobify_django"
ALIKE = 0.5
"""How much of a piece of code must be the same for it to be named as the nearest; 1 is all of it."""


class Mutant(NamedTuple):
    """A bug, and how it is planted.

    Attributes:
        name: what is wrong then.
        place: a function, a class or a constant: its module, without the package's name, and its qualified
            name.
        old: an expression, or statements, as they stand in the place. In one call, ``...`` after the
            arguments without names stands for all that is passed besides.
        new: what stands there instead. ``...`` passes on what it stood for.
        sql: whether ``old`` and ``new`` are pieces of the text of a string, where white space does not
            matter.
    """

    name: str
    place: str
    old: str
    new: str
    sql: bool = False


class Misfit(Exception):
    """A mutant that cannot be planted; says why, and what is nearest to what it looks for."""


def plant(mutant: Mutant, house: Path) -> None:
    """Change the copy of the package in ``house``; raises ``Misfit``."""
    file, text = planted(mutant, house)
    file.write_text(text, encoding="utf-8")


def misfits(mutants: Iterable[Mutant], house: Path) -> list[str]:
    """Say of each mutant that cannot be planted why."""
    why: list[str] = []
    for mutant in mutants:
        try:
            planted(mutant, house)
        except Misfit as misfit:
            why.append(str(misfit))
    return why


def planted(mutant: Mutant, house: Path) -> tuple[Path, str]:
    """Return the file that a mutant changes, and its new text; raises ``Misfit``."""
    file, names = _file(mutant, house / PACKAGE)
    tree = ast.parse(file.read_text(encoding="utf-8"))
    places = _named(tree, names)
    if not places:
        raise Misfit(f"{mutant.name}: there is no {mutant.place}{_nearest_place(mutant, house / PACKAGE)}")
    if mutant.sql:
        _change_text(mutant, places)
    else:
        _change_code(mutant, places, tree)
    return file, ast.unparse(tree) + "\n"


# The place


def _file(mutant: Mutant, package: Path) -> tuple[Path, Sequence[str]]:
    parts = mutant.place.split(".")
    for number in range(len(parts) - 1, 0, -1):
        file = package.joinpath(*parts[:number]).with_suffix(".py")
        if file.is_file():
            return file, parts[number:]
    raise Misfit(f"{mutant.name}: no module holds {mutant.place}{_nearest_place(mutant, package)}")


def _named(tree: ast.Module, names: Sequence[str]) -> list[ast.AST]:
    """Return what has a qualified name. A property and what sets it share theirs."""
    found: list[ast.AST] = [tree]
    for name in names:
        found = [one for outer in found for one in _statements(outer) if name in _names(one)]
    return found


def _statements(outer: ast.AST) -> Iterator[ast.stmt]:
    """Return the statements of a module, class or function, also those under an ``if`` or a ``try``."""
    for child in ast.iter_child_nodes(outer):
        if isinstance(child, ast.stmt):
            yield child
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.expr):
            yield from _statements(child)


def _names(statement: ast.stmt) -> list[str]:
    match statement:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return [name]
        case ast.Assign(targets=targets):
            return [target.id for target in targets if isinstance(target, ast.Name)]
        case ast.AnnAssign(target=ast.Name(id=name)):
            return [name]
    return []


def _nearest_place(mutant: Mutant, package: Path) -> str:
    every = [
        ".".join([*file.relative_to(package).with_suffix("").parts, *names])
        for file in sorted(package.rglob("*.py"))
        for names in _qualified(ast.parse(file.read_text(encoding="utf-8")))
    ]
    last = mutant.place.split(".")[-2:]
    moved = [place for place in every if place.split(".")[-2:] == last]
    nearest = moved or _alike(mutant.place, every)
    return f"; nearest: {nearest[0]}" if nearest else ""


def _qualified(outer: ast.AST) -> Iterator[list[str]]:
    for statement in _statements(outer):
        for name in _names(statement):
            yield [name]
            if isinstance(statement, ast.ClassDef):
                yield from ([name, *inner] for inner in _qualified(statement))


# Code


def _change_code(mutant: Mutant, places: Sequence[ast.AST], tree: ast.Module) -> None:
    old, new = _parse(mutant, mutant.old), _parse(mutant, mutant.new)
    if strange := sorted(words(new) - words([tree]) - names_set(new) - set(dir(builtins))):
        raise Misfit(f"{mutant.name}: nothing in the module of {mutant.place} is called {strange[0]}")
    kind: type[ast.AST] = ast.stmt
    if _is_expression(old) and _is_expression(new):
        old, new, kind = [old[0].value], [new[0].value], ast.expr
    looked_at = list(spots(places, kind, len(old)))
    found = [(spot, rest) for spot in looked_at if same(old, spot.nodes, rest := [])]
    if len(found) != 1:
        pieces = ((_line(spot.nodes[0]), "\n".join(map(ast.unparse, spot.nodes))) for spot in looked_at)
        raise _misfit(mutant, [_line(spot.nodes[0]) for spot, _ in found], pieces)
    spot, rest = found[0]
    spot.put([passing_on(node, rest) for node in new])


def _parse(mutant: Mutant, piece: str) -> list[Any]:
    try:
        return ast.parse(textwrap.dedent(piece)).body
    except SyntaxError as error:
        raise Misfit(f"{mutant.name}: `{_short(piece)}` is no Python: {error.msg}") from error


def _is_expression(nodes: Sequence[ast.AST]) -> bool:
    return len(nodes) == 1 and isinstance(nodes[0], ast.Expr)


# Text


def _change_text(mutant: Mutant, places: Sequence[ast.AST]) -> None:
    texts = _texts(places)
    piece = _pattern(mutant.old)
    found = [(node, match) for node in texts for match in piece.finditer(node.value)]
    if len(found) != 1:
        number = len(mutant.old.split())
        pieces = (
            (_line(node), " ".join(some[first : first + number]))
            for node in texts
            for some in [node.value.split()]
            for first in range(max(1, len(some) - number + 1))
        )
        raise _misfit(mutant, [_line(node) for node, _ in found], pieces)
    node, match = found[0]
    node.value = node.value[: match.start()] + mutant.new + node.value[match.end() :]


def _texts(places: Iterable[ast.AST]) -> list[Any]:
    """Return the strings in some places, but for docstrings."""
    nodes = list(itertools.chain.from_iterable(map(ast.walk, places)))
    docstrings = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    return [
        node
        for node in nodes
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings
    ]


def _pattern(piece: str) -> re.Pattern[str]:
    """Return what finds a piece of SQL whatever the white space in it, and nothing that goes on in a word."""
    parts = re.findall(r"\w+|[^\w\s]", piece)
    pattern = "".join(
        re.escape(part) + (r"\s+" if _is_word(part) and _is_word(after) else r"\s*")
        for part, after in itertools.pairwise(parts)
    )
    first, last = (r"\b" if _is_word(part) else "" for part in (parts[0], parts[-1]))
    return re.compile(first + pattern + re.escape(parts[-1]) + last)


def _is_word(piece: str) -> bool:
    return re.match(r"\w", piece) is not None


# What is told


def _misfit(mutant: Mutant, lines: Sequence[int], pieces: Iterable[tuple[int, str]]) -> Misfit:
    """Say that what a mutant looks for is in several lines, or in none of these pieces."""
    name, place, old = mutant.name, mutant.place, _short(mutant.old)
    if lines:
        where = ", ".join(map(str, lines))
        return Misfit(f"{name}: {place} has `{old}` {len(lines)} times, in lines {where}")
    line_of = {piece: line for line, piece in pieces}
    nearest = _alike(mutant.old, line_of)
    told = f"; nearest, in line {line_of[nearest[0]]}: `{_short(nearest[0])}`" if nearest else ""
    return Misfit(f"{name}: {place} has no `{old}`{told}")


def _alike(piece: str, among: Iterable[str]) -> list[str]:
    """Return the ones that are more or less the same as a piece, the most alike first."""
    matcher = SequenceMatcher(b=piece, autojunk=False)
    rated: list[tuple[float, str]] = []
    for other in among:
        matcher.set_seq1(other)
        if matcher.real_quick_ratio() >= ALIKE and matcher.quick_ratio() >= ALIKE:
            rated.append((matcher.ratio(), other))
    return [other for rate, other in sorted(rated, reverse=True) if rate >= ALIKE]


def _line(node: ast.AST) -> int:
    return int(getattr(node, "lineno", 0))


def _short(piece: str) -> str:
    return textwrap.shorten(piece, 100, placeholder=" ...")
