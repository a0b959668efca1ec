"""Looks at one contestant every few seconds, and holds a snapshot for a part of the time.

``python -m benchmarks.long_run.sampler SECONDS EVERY FROM HELD`` prints a JSON object a look: it runs in an
environment that has psycopg, beside the contestant's processes.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import psycopg

from benchmarks.harness import percentile
from benchmarks.long_run.started import Started

TABLES = """
    SELECT coalesce(sum(pg_table_size(relid)), 0)::float8, coalesce(sum(pg_indexes_size(relid)), 0)::float8,
           coalesce(sum(n_dead_tup), 0)::float8, coalesce(sum(n_live_tup), 0)::float8,
           coalesce(sum(n_tup_upd), 0)::float8, coalesce(sum(n_tup_hot_upd), 0)::float8,
           coalesce(sum(autovacuum_count), 0)::float8
    FROM pg_stat_user_tables"""
WAL = "SELECT (pg_current_wal_insert_lsn() - '0/0')::float8"
COMMITS = "SELECT xact_commit::float8 FROM pg_stat_database WHERE datname = current_database()"


def main() -> None:
    """Look until the time is over."""
    seconds, every, snapshot_from, held = map(float, sys.argv[1:])
    connection = psycopg.connect(
        os.environ["LONG_RUN_DATABASE"], autocommit=True, application_name="long-run"
    )
    started = Started(Path(os.environ["LONG_RUN_STARTED"]))
    snapshot: psycopg.Connection[Any] | None = None
    began = time.monotonic()
    before, ran, last = _counters(connection), 0, began
    for look in range(1, round(seconds / every) + 1):
        while (left := began + look * every - time.monotonic()) > 0:
            time.sleep(min(left, 0.5))
            now = time.monotonic() - began
            if snapshot is None and held and snapshot_from <= now < snapshot_from + held:
                snapshot = _hold()
            if snapshot is not None and now >= snapshot_from + held:
                snapshot.close()
                snapshot = None
        waits = [wait * 1000 for _, wait in started.new()]
        at, after = time.monotonic(), _counters(connection)
        ran += len(waits)
        print(
            json.dumps(
                {
                    "at_s": round(at - began, 1),
                    "snapshot": snapshot is not None,
                    "jobs_per_s": len(waits) / (at - last),
                    **_latency(waits),
                    "table_bytes": after["table"],
                    "index_bytes": after["index"],
                    "dead_rows": after["dead"],
                    "live_rows": after["live"],
                    "hot_share": _ratio(after["hot"] - before["hot"], after["updates"] - before["updates"]),
                    "autovacuums": after["vacuums"],
                    "wal_bytes_a_job": _ratio(after["wal"] - before["wal"], len(waits)),
                    "commits_a_job": _ratio(after["commits"] - before["commits"], len(waits)),
                    "ran": ran,
                }
            ),
            flush=True,
        )
        before, last = after, at


def _hold() -> psycopg.Connection[Any]:
    """Return a session that holds a snapshot, as a long report or a backup does."""
    connection = psycopg.connect(os.environ["LONG_RUN_DATABASE"], application_name="long-run snapshot")
    connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    connection.execute("SELECT 1")
    return connection


def _counters(connection: psycopg.Connection[Any]) -> dict[str, float]:
    names = ("table", "index", "dead", "live", "updates", "hot", "vacuums")
    found = dict(zip(names, connection.execute(TABLES).fetchone() or (), strict=True))
    for name, statement in (("wal", WAL), ("commits", COMMITS)):
        (found[name],) = connection.execute(statement).fetchone() or (0.0,)
    return found


def _latency(waits: list[float]) -> dict[str, float | None]:
    if not waits:
        return {"p50_ms": None, "p99_ms": None, "max_ms": None}
    return {"p50_ms": percentile(waits, 50), "p99_ms": percentile(waits, 99), "max_ms": max(waits)}


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None


if __name__ == "__main__":
    main()
