"""Ways to keep a bound on PostgreSQL, compared: what eight producers push while one consumer takes.

Run it with a server: ``DATABASE_URL=postgres://... python -m benchmarks admission``. It works in a schema of
its own and drops it at the end.
"""

from __future__ import annotations

import json
import os
import time
import uuid
from contextlib import ExitStack
from statistics import median
from typing import Any

from benchmarks import harness

PRODUCERS = 8
CAP = 1_000
NEAR = 100
"""Free places below which "lock near the bound" locks. Above, it trusts that no more transactions than that
are open at once, which nothing holds it to: it is not exact."""
START_UP_SECONDS = 6.0
HELD = 0.02
"""Seconds a caller's transaction goes on after its push, in the second part."""

WAYS = ("unbounded", "counter row", "advisory lock", "lock near the bound", "announcements")
SCHEMA = "jobify_bench_admission"

SET_UP = f"""
    DROP SCHEMA IF EXISTS {SCHEMA} CASCADE; CREATE SCHEMA {SCHEMA};
    CREATE TABLE {SCHEMA}.job (id text PRIMARY KEY, status text NOT NULL, number bigserial);
    CREATE INDEX ON {SCHEMA}.job (number) WHERE status = 'waiting';
    CREATE TABLE {SCHEMA}.counter (waiting int NOT NULL);
    INSERT INTO {SCHEMA}.counter VALUES (0)"""
INSERT = f"INSERT INTO {SCHEMA}.job (id, status) VALUES (%s, 'waiting')"
COUNT = f"SELECT count(*) FROM {SCHEMA}.job WHERE status = 'waiting'"
TAKE_ONE = f"UPDATE {SCHEMA}.counter SET waiting = waiting + 1 WHERE waiting < {CAP}"
GIVE_BACK = f"UPDATE {SCHEMA}.counter SET waiting = waiting - %s"
LOCK = "SELECT pg_advisory_xact_lock(77, 1)"
ANNOUNCE = "SELECT pg_advisory_xact_lock_shared(78, %s)"
OTHERS = """
    SELECT coalesce(sum(objid::bigint & 4095), 0) FROM pg_locks
    WHERE locktype = 'advisory' AND classid::bigint = 78 AND granted AND pid <> pg_backend_pid()"""
CONSUME = f"""
    DELETE FROM {SCHEMA}.job WHERE id IN (
        SELECT id FROM {SCHEMA}.job WHERE status = 'waiting'
        ORDER BY number LIMIT 200 FOR UPDATE SKIP LOCKED)"""


def measure(options: harness.Options) -> list[harness.Target]:
    """Compare the ways with each other: pushes/s of short transactions, and of ones that go on for 20 ms."""
    if not os.environ.get("DATABASE_URL", "").startswith("postgres"):
        harness.say("  skipped: set DATABASE_URL to a PostgreSQL database")
        return []
    targets = []
    for held, kind in ((0.0, "short transactions"), (HELD, f"transactions of {HELD * 1e3:.0f} ms")):
        rates: dict[str, list[float]] = {way: [] for way in WAYS}
        for round_number in range(options.repeats):
            for way in WAYS:
                rates[way].append(_crowd(way, held, min(options.seconds, 5.0)))
                harness.say(f"  {kind}, {way}, round {round_number + 1}: {rates[way][-1]:,.0f} pushes/s")
        targets += [
            harness.compare(
                f"P {kind}: {way}",
                rates[way],
                rates[against],
                against=against,
                unit="pushes/s",
                at_least=at_least,
            )
            for way, against, at_least in (
                *((way, "unbounded", 0.0) for way in WAYS[1:]),
                ("announcements", "counter row", 1.0),  # the faster of the two others that are exact
            )
        ]
        harness.say(f"  {kind}: " + ", ".join(f"{way} {median(rates[way]):,.0f}/s" for way in WAYS))
    return targets


def _crowd(way: str, held: float, seconds: float) -> float:
    with _connect() as database:
        database.execute(SET_UP)
    begin = time.time() + START_UP_SECONDS
    arguments = {"way": way, "held": held, "begin": begin, "end": begin + seconds}
    with ExitStack() as stack:
        names = ["consumer", *["producer"] * PRODUCERS]
        processes = [stack.enter_context(harness.start("admission", name, os.getcwd())) for name in names]
        outputs = []
        for process in processes:
            process.stdin.write(json.dumps(arguments))
            process.stdin.close()
            process.stdin = None  # communicate() would flush the closed pipe otherwise
        for name, process in zip(names, processes, strict=True):
            output = process.communicate(timeout=seconds + 60)
            outputs.append(harness.figures(name, process.returncode, *output))
    with _connect() as database:
        database.execute(f"DROP SCHEMA {SCHEMA} CASCADE")
    return sum(figures["pushed"] for figures in outputs[1:]) / seconds


def producer(way: str, held: float, begin: float, end: float) -> dict[str, Any]:
    """Push one job a transaction for as long as the run lasts."""
    pushed = 0
    number = os.getpid() & 0x7FFFF
    with _connect() as database:
        _wait_until(begin)
        while time.time() < end:
            with database.transaction():
                if not _has_room(database, way, number):
                    continue
                database.execute(INSERT, (str(uuid.uuid4()),))
                if held:
                    time.sleep(held)
            pushed += 1
    return {"pushed": pushed}


def _has_room(database: Any, way: str, number: int) -> bool:
    if way == "counter row":
        return database.execute(TAKE_ONE).rowcount == 1
    if way == "advisory lock":
        database.execute(LOCK)
        return database.execute(COUNT).fetchone()[0] < CAP
    if way == "lock near the bound":
        if database.execute(COUNT).fetchone()[0] < CAP - NEAR:
            return True
        database.execute(LOCK)
        return database.execute(COUNT).fetchone()[0] < CAP
    if way == "announcements":
        database.execute(ANNOUNCE, (number << 12 | 1,))
        (others,) = database.execute(OTHERS).fetchone()
        return database.execute(COUNT).fetchone()[0] + others < CAP
    return True


def consumer(way: str, held: float, begin: float, end: float) -> dict[str, Any]:
    """Take what waits, so that the queue is never full."""
    taken = 0
    with _connect() as database:
        _wait_until(begin)
        while time.time() < end:
            with database.transaction():
                count = database.execute(CONSUME).rowcount
                if way == "counter row" and count:
                    database.execute(GIVE_BACK, (count,))
            taken += count
            time.sleep(0.005)
    return {"taken": taken}


def _connect() -> Any:
    import psycopg

    url = os.environ["DATABASE_URL"].replace("postgres://", "postgresql://")
    return psycopg.connect(url, autocommit=True)


def _wait_until(begin: float) -> None:
    time.sleep(max(0.0, begin - time.time()))


CONTESTANTS = {"producer": producer, "consumer": consumer}
