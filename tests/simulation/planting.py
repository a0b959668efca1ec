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
from typing import Any, NamedTuple, TypeGuard

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


class Spot(NamedTuple):
    """Where in the tree a piece of code stands: a field of a node, or a part of the list in that field."""

    owner: ast.AST
    field: str
    part: slice | None

    @property
    def nodes(self) -> Sequence[ast.AST]:
        """What stands there."""
        value = getattr(self.owner, self.field)
        return [value] if self.part is None else list(value[self.part])

    def put(self, nodes: Sequence[ast.AST]) -> None:
        """Put something else there."""
        if self.part is None:
            setattr(self.owner, self.field, nodes[0])
        else:
            getattr(self.owner, self.field)[self.part] = nodes


class Rest(NamedTuple):
    """What ``...`` stood for: arguments of a call."""

    args: Sequence[ast.expr]
    keywords: Sequence[ast.keyword]


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
    if strange := sorted(_words(new) - _words([tree]) - _set(new) - set(dir(builtins))):
        raise Misfit(f"{mutant.name}: nothing in the module of {mutant.place} is called {strange[0]}")
    if _is_expression(old) and _is_expression(new):
        old, new = [old[0].value], [new[0].value]
    spots = list(
        _spots(places, type_=ast.expr if isinstance(old[0], ast.expr) else ast.stmt, number=len(old))
    )
    found: list[tuple[Spot, list[Rest]]] = []
    for spot in spots:
        rest: list[Rest] = []
        if _same(old, spot.nodes, rest):
            found.append((spot, rest))
    if len(found) != 1:
        pieces = ((_line(spot.nodes[0]), "\n".join(map(ast.unparse, spot.nodes))) for spot in spots)
        raise _misfit(mutant, [_line(spot.nodes[0]) for spot, _ in found], pieces)
    spot, rest = found[0]
    spot.put([_PassOn(rest).visit(node) for node in new])


def _parse(mutant: Mutant, piece: str) -> list[Any]:
    try:
        return ast.parse(textwrap.dedent(piece)).body
    except SyntaxError as error:
        raise Misfit(f"{mutant.name}: `{_short(piece)}` is no Python: {error.msg}") from error


def _words(nodes: Iterable[ast.AST]) -> set[str]:
    """Return what is called by a name in some code."""
    words: set[str] = set()
    for node in itertools.chain.from_iterable(map(ast.walk, nodes)):
        words.update(
            value
            for name in ("id", "attr", "arg", "name", "asname")
            if isinstance(value := getattr(node, name, None), str)
        )
    return words


def _set(nodes: Iterable[ast.AST]) -> set[str]:
    """Return the names that some code gives values to."""
    every = itertools.chain.from_iterable(map(ast.walk, nodes))
    return {node.id for node in every if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}


def _is_expression(nodes: Sequence[ast.AST]) -> bool:
    return len(nodes) == 1 and isinstance(nodes[0], ast.Expr)


def _spots(places: Iterable[ast.AST], type_: type[ast.AST], number: int) -> Iterator[Spot]:
    """Return where so many nodes of a type stand, one after the other."""
    for owner in itertools.chain.from_iterable(map(ast.walk, places)):
        for field, value in ast.iter_fields(owner):
            if isinstance(value, type_) and number == 1:
                yield Spot(owner, field, None)
            elif isinstance(value, list):
                for first in range(len(value) - number + 1):
                    part = slice(first, first + number)
                    if all(isinstance(node, type_) for node in value[part]):
                        yield Spot(owner, field, part)


def _same(piece: Any, found: Any, rest: list[Rest]) -> bool:
    """Whether a piece of code is the same as the one that was found, but for how it is written."""
    if isinstance(piece, list):
        pairs = zip(piece, found, strict=False)
        return len(piece) == len(found) and all(_same(one, other, rest) for one, other in pairs)
    if type(piece) is not type(found):
        return False
    if _leaves_rest(piece):
        args, named = piece.args[:-1], {keyword.arg for keyword in piece.keywords}
        rest.append(Rest(found.args[len(args) :], [one for one in found.keywords if one.arg not in named]))
        return (
            _same(piece.func, found.func, rest)
            and _same(args, found.args[: len(args)], rest)
            and _same(piece.keywords, [one for one in found.keywords if one.arg in named], rest)
        )
    if isinstance(piece, ast.AST):
        return all(
            _same(getattr(piece, name, None), getattr(found, name, None), rest) for name in piece._fields
        )
    return bool(piece == found)


def _leaves_rest(node: Any) -> TypeGuard[ast.Call]:
    if not isinstance(node, ast.Call) or not node.args:
        return False
    last = node.args[-1]
    return isinstance(last, ast.Constant) and last.value is ...


class _PassOn(ast.NodeTransformer):
    """Puts what ``...`` stood for back in its place."""

    def __init__(self, rest: Sequence[Rest]) -> None:
        self._rest = rest

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        if _leaves_rest(node):
            (rest,) = self._rest
            node.args[-1:] = rest.args
            node.keywords += rest.keywords
        return node


# Text


def _change_text(mutant: Mutant, places: Sequence[ast.AST]) -> None:
    texts = _texts(places)
    piece = _pattern(mutant.old)
    found = [(node, match) for node in texts for match in piece.finditer(node.value)]
    if len(found) != 1:
        number = len(mutant.old.split())
        words = ((_line(node), node.value.split()) for node in texts)
        pieces = (
            (line, " ".join(some[first : first + number]))
            for line, some in words
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
    words = re.findall(r"\w+|[^\w\s]", piece)
    pattern = "".join(
        re.escape(word) + (r"\s+" if _is_word(word) and _is_word(after) else r"\s*")
        for word, after in itertools.pairwise(words)
    )
    first, last = (r"\b" if _is_word(word) else "" for word in (words[0], words[-1]))
    return re.compile(first + pattern + re.escape(words[-1]) + last)


def _is_word(piece: str) -> bool:
    return re.match(r"\w", piece) is not None


# What is told


def _misfit(mutant: Mutant, lines: Sequence[int], pieces: Iterable[tuple[int, str]]) -> Misfit:
    looked_for = f"{mutant.name}: {mutant.place} has `{_short(mutant.old)}`"
    if lines:
        return Misfit(f"{looked_for} {len(lines)} times, in lines {', '.join(map(str, lines))}")
    where = {piece: line for line, piece in pieces}
    nearest = _alike(mutant.old, where)
    told = f"; nearest, in line {where[nearest[0]]}: `{_short(nearest[0])}`" if nearest else ""
    return Misfit(f"{looked_for.replace(' has `', ' has no `', 1)}{told}")


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
