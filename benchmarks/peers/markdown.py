"""The tables, as Markdown, from the document that a run wrote."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any

from benchmarks.peers.roster import CONTESTANTS, ROWS, Contestant, Row

DASH = "—"


def tables(document: dict[str, Any]) -> str:
    """Return the whole: how it was run, the tables, what each set-up is, what each does not do."""
    played = {result["row"] for result in document["results"] if result["runs"]}
    rows = [row for row in ROWS[document["store"]] if row.name in played]
    contestants = [each for each in CONTESTANTS[document["store"]] if each.name in document["versions"]]
    rates = [row for row in rows if row.columns[0][0] == "rate"]
    other = [row for row in rows if row.columns[0][0] != "rate"]
    parts = [_how(document)]
    if rates:
        parts.append(_table(document, contestants, [(row, *row.columns[0]) for row in rates]))
    beside = [(row, *column) for row in rates for column in row.columns[1:]]
    beside += [(row, *column) for row in other for column in row.columns]
    beside = [each for each in beside if _anybody_has(document, each[0], each[1])]
    if beside:
        parts.append(_table(document, contestants, beside))
    parts.append(_notes(document, contestants))
    return "\n\n".join(part for part in parts if part) + "\n"


def replaced(page: str, store: str, text: str) -> str:
    """Return a page with the tables of a store put between its two marks. Raises ValueError without them."""
    begin, end = f"<!-- figures: {store} -->", f"<!-- end of figures: {store} -->"
    before, _, rest = page.partition(begin)
    _, found, after = rest.partition(end)
    if not found:
        raise ValueError(f"the page has no place between {begin} and {end}")
    return f"{before}{begin}\n\n{text}\n{end}{after}"


def _how(document: dict[str, Any]) -> str:
    rounds = "one round" if document["rounds"] == 1 else f"medians of {document['rounds']} interleaved rounds"
    lines = [
        f"Run on {document['date']}: {rounds}, lowest to highest in brackets, at a scale of "
        f"{document['scale']:g}; {document['machine']}."
    ]
    server = document.get("server")
    if server:
        settings = ", ".join(
            f"`{name}` {value}" for name, value in server.items() if name != "server_version"
        )
        lines.append(f"PostgreSQL {server['server_version']} ({settings}).")
    if document.get("note"):
        lines.append(document["note"])
    return "\n".join(lines)


def _table(
    document: dict[str, Any], contestants: Sequence[Contestant], columns: Sequence[tuple[Row, str, str]]
) -> str:
    header = ["", *(f"{row.title}, {unit}" for row, _, unit in columns)]
    body = []
    for contestant in contestants:
        for setup in contestant.setups:
            name = contestant.title if len(contestant.setups) == 1 else f"{contestant.title}, {setup}"
            runs = [(_runs(document, row, contestant.name, setup), figure) for row, figure, _ in columns]
            body.append([name, *(_cell(*each) for each in runs)])
    return _markdown([header, *body])


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


def _cell(runs: Sequence[dict[str, float]], figure: str) -> str:
    values = [run[figure] for run in runs if figure in run]
    if not values:
        return DASH
    middle = _number(median(values))
    return middle if len(values) == 1 else f"{middle} ({_number(min(values))}-{_number(max(values))})"


def _number(value: float) -> str:
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _runs(document: dict[str, Any], row: Row, contestant: str, setup: str) -> list[dict[str, float]]:
    return [run for result in _results(document, row.name, contestant, setup) for run in result["runs"]]


def _results(
    document: dict[str, Any], row: str, contestant: str, setup: str | None = None
) -> Iterable[dict[str, Any]]:
    for result in document["results"]:
        if (result["row"], result["contestant"]) == (row, contestant) and setup in (None, result["setup"]):
            yield result


def _anybody_has(document: dict[str, Any], row: Row, figure: str) -> bool:
    return any(
        figure in run for result in document["results"] if result["row"] == row.name for run in result["runs"]
    )


def _notes(document: dict[str, Any], contestants: Sequence[Contestant]) -> str:
    rows = [["", "version", "set-ups", "what it does not do, and Jobify does"]]
    for contestant in contestants:
        setups = "; ".join(
            what if len(contestant.setups) == 1 else f"*{setup}*: {what}"
            for setup, what in contestant.setups.items()
        )
        lacks = contestant.lacks
        if contestant.name == "jobify-django":
            lacks = f"not here: {lacks}"
        rows.append([contestant.title, _versions(document, contestant), setups, lacks])
    lines = [_markdown(rows)]
    reasons = _reasons(document, contestants)
    if reasons:
        lines.append(f"What a {DASH} means, and which rounds failed:\n\n" + "\n".join(reasons))
    return "\n\n".join(lines)


def _reasons(document: dict[str, Any], contestants: Sequence[Contestant]) -> list[str]:
    """Return a line for each reason, with the rows where it holds."""
    where: dict[tuple[str, str], list[str]] = {}
    for contestant in contestants:
        for row in document["rows"]:
            for result in _results(document, row, contestant.name):
                who = f"{contestant.title}{_of(contestant, result['setup'])}"
                said = [result["unsupported"]] if result["unsupported"] else []
                for reason in said + [f"failed: {failure}" for failure in result["failures"]]:
                    where.setdefault((who, reason), []).append(row)
    lines = [
        f"- {who}, {', '.join(dict.fromkeys(rows))}: {reason.rstrip('.')}."
        for (who, reason), rows in where.items()
    ]
    return lines + [f"- {name} was left out: {reason}" for name, reason in document["missing"].items()]


def _of(contestant: Contestant, setup: str) -> str:
    return "" if len(contestant.setups) == 1 else f" ({setup})"


def _versions(document: dict[str, Any], contestant: Contestant) -> str:
    found = document["versions"][contestant.name]
    own = document["tree"] if contestant.package == "this tree" else found.get(contestant.package, "?")
    beside = [
        f"{name} {found[name]}"
        for name in ("Django", "psycopg", "asyncpg", "Node", "Python")
        if name in found
    ]
    if contestant.node:
        beside = [each for each in beside if each.startswith("Node")]
    return ", ".join([own, *beside])
