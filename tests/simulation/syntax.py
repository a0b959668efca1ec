"""Pieces of code as syntax: where a piece stands in a tree, and what else is put there."""

from __future__ import annotations

import ast
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeGuard


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


def words(nodes: Iterable[ast.AST]) -> set[str]:
    """Return what is called by a name in some code."""
    return {
        word
        for node in _walk(nodes)
        for field in ("id", "attr", "arg", "name", "asname")
        if isinstance(word := getattr(node, field, None), str)
    }


def names_set(nodes: Iterable[ast.AST]) -> set[str]:
    """Return the names that some code gives values to."""
    return {
        node.id for node in _walk(nodes) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }


def spots(places: Iterable[ast.AST], kind: type[ast.AST], number: int) -> Iterator[Spot]:
    """Return where so many nodes of a kind stand, one after the other."""
    for owner in _walk(places):
        for field, value in ast.iter_fields(owner):
            if isinstance(value, kind) and number == 1:
                yield Spot(owner, field, None)
            elif isinstance(value, list):
                for first in range(len(value) - number + 1):
                    part = slice(first, first + number)
                    if all(isinstance(node, kind) for node in value[part]):
                        yield Spot(owner, field, part)


def same(piece: Any, found: Any, rest: list[Rest]) -> bool:
    """Whether a piece of code is the same as the one that was found, but for how it is written.

    ``rest`` takes up what ``...`` stands for.
    """
    if isinstance(piece, list):
        pairs = zip(piece, found, strict=False)
        return len(piece) == len(found) and all(same(one, other, rest) for one, other in pairs)
    if type(piece) is not type(found):
        return False
    if _leaves_rest(piece):
        args, named = piece.args[:-1], {keyword.arg for keyword in piece.keywords}
        rest.append(Rest(found.args[len(args) :], [one for one in found.keywords if one.arg not in named]))
        return (
            same(piece.func, found.func, rest)
            and same(args, found.args[: len(args)], rest)
            and same(piece.keywords, [one for one in found.keywords if one.arg in named], rest)
        )
    if isinstance(piece, ast.AST):
        return all(
            same(getattr(piece, name, None), getattr(found, name, None), rest) for name in piece._fields
        )
    return bool(piece == found)


def passing_on(node: ast.AST, rest: Sequence[Rest]) -> ast.AST:
    """Return a piece of code with what ``...`` stood for in its place."""
    whole: ast.AST = _PassOn(rest).visit(node)
    return whole


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


def _walk(nodes: Iterable[ast.AST]) -> Iterator[ast.AST]:
    return itertools.chain.from_iterable(map(ast.walk, nodes))


def _leaves_rest(node: Any) -> TypeGuard[ast.Call]:
    if not isinstance(node, ast.Call) or not node.args:
        return False
    last = node.args[-1]
    return isinstance(last, ast.Constant) and last.value is ...
