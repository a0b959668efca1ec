"""Pushing sync jobs one by one to SQLite while no worker runs, beside a bare INSERT of the same row."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from typing import Any

from benchmarks import harness, project


def measure(options: harness.Options) -> list[harness.Target]:
    """Compare our pushes with autocommitted INSERTs of the row they write, into the same indexes."""
    jobs = options.jobs(5_000)
    ours_rates, bare_rates = [], []
    for round_number in range(options.repeats):
        pushed = harness.run("push", "ours", jobs=jobs)
        bare = harness.run("push", "bare", **{key: pushed[key] for key in ("ids", "schema", "sample")})
        ours_rates.append(pushed["jobs_per_s"])
        bare_rates.append(bare["jobs_per_s"])
        harness.say(f"  push round {round_number + 1}/{options.repeats}: ours {harness.describe(pushed)}")
        harness.say(f"  push round {round_number + 1}/{options.repeats}: bare {harness.describe(bare)}")
    return [
        harness.compare(
            "B1 push", ours_rates, bare_rates, against="bare INSERT", unit="jobs/s", at_least=0.25
        )
    ]


def ours(jobs: int) -> dict[str, Any]:
    """Push one by one; return the rate, the table's schema, the rows' ids in order, and the last row."""
    project.set_up(STORE="database", MAXSIZE=10 * jobs)
    from benchmarks.tasks.tasks import noop

    noop.push()
    began = time.perf_counter()
    pushed = [noop.push() for _ in range(jobs)]
    seconds = time.perf_counter() - began
    with closing(sqlite3.connect(f"file:{project.DATABASE}?mode=ro", uri=True)) as database:
        database.row_factory = sqlite3.Row
        schema = database.execute(
            "SELECT sql FROM sqlite_master WHERE tbl_name = 'jobify_job' AND sql IS NOT NULL"
        )
        sample = database.execute("SELECT * FROM jobify_job ORDER BY rowid DESC LIMIT 1")
        return {
            **_rate(jobs, seconds),
            "schema": [sql for (sql,) in schema],
            "sample": dict(sample.fetchone()),
            "ids": [job.id for job in pushed],
        }


def bare(ids: list[Any], schema: list[str], sample: dict[str, Any]) -> dict[str, Any]:
    """Insert copies of ``sample`` under the ids our own pushes drew, so that the indexes grow alike."""
    copies = [tuple({**sample, "id": id_}.values()) for id_ in ids]
    columns, marks = ", ".join(f'"{column}"' for column in sample), ", ".join("?" * len(sample))
    insert = f"INSERT INTO jobify_job ({columns}) VALUES ({marks})"
    with closing(sqlite3.connect(project.DATABASE, isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=NORMAL")
        for sql in schema:
            database.execute(sql)
        began = time.perf_counter()
        for copy in copies:
            database.execute(insert, copy)
        seconds = time.perf_counter() - began
    return _rate(len(ids), seconds)


def _rate(jobs: int, seconds: float) -> dict[str, Any]:
    return {"jobs_per_s": jobs / seconds, "us_per_job": seconds / jobs * 1e6}


CONTESTANTS = {"ours": ours, "bare": bare}
