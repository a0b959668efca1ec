"""The samples as a table for people: before the snapshot, while it is held, and after it."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

Sample = dict[str, Any]

HEADER = (
    "| | phase | jobs/s | p50 ms | p99 ms, median / worst | table MB | index MB | dead rows | HOT % "
    "| WAL bytes a job | commits a job |",
    "|---|---|---|---|---|---|---|---|---|---|---|",
)


def markdown(document: dict[str, Any]) -> str:
    """Return the table; sizes are those at each phase's end, all else the median of its samples."""
    plan = document["plan"]
    pace = f"{plan['depth']} jobs wait" if plan["depth"] else f"{plan['rate']:g} jobs/s"
    pace += f" of {plan['work_ms']:g} ms" if plan["work_ms"] else ""
    snapshot = (
        f"a snapshot held for {plan['held']:g} s from second {plan['snapshot_from']:g}"
        if plan["held"]
        else "no snapshot held"
    )
    lines = [
        f"{pace} for {plan['seconds']:g} s, {plan['workers']} workers, {plan['batch']} jobs a push; "
        f"{snapshot}. {document['machine']}, {document['date']}.",
        "",
        *HEADER,
    ]
    for name, course in document["contestants"].items():
        if "failed" in course:
            lines.append(f"| {name} | {course['failed'].splitlines()[0]} |" + " |" * 9)
            continue
        for phase, samples in phases(course["samples"]).items():
            lines.append(row(name, phase, samples))
    return "\n".join([*lines, ""])


def phases(samples: Sequence[Sample]) -> dict[str, list[Sample]]:
    """Return the samples of each phase; the first one is left out, in which all begin."""
    held = [number for number, one in enumerate(samples) if one["snapshot"]]
    if not held:
        return {"whole run": list(samples[1:])}
    parts = {
        "before": samples[1 : held[0]],
        "snapshot held": samples[held[0] : held[-1] + 1],
        "after": samples[held[-1] + 1 :],
    }
    return {phase: list(some) for phase, some in parts.items() if some}


def row(name: str, phase: str, samples: Sequence[Sample]) -> str:
    """Return one line of the table."""

    def middle(key: str, factor: float = 1.0) -> str:
        known = [one[key] * factor for one in samples if one[key] is not None]
        return f"{median(known):,.4g}" if known else "-"

    last = samples[-1]
    worst = max((one["p99_ms"] for one in samples if one["p99_ms"] is not None), default=float("nan"))
    cells = (
        name,
        phase,
        middle("jobs_per_s"),
        middle("p50_ms"),
        f"{middle('p99_ms')} / {worst:,.4g}",
        f"{last['table_bytes'] / 1e6:,.1f}",
        f"{last['index_bytes'] / 1e6:,.1f}",
        f"{last['dead_rows']:,.0f}",
        middle("hot_share", 100),
        middle("wal_bytes_a_job"),
        middle("commits_a_job"),
    )
    return f"| {' | '.join(cells)} |"
