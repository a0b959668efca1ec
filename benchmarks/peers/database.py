"""Makes and drops the databases of the cells: ``python -m benchmarks.peers.database create|drop NAME``."""

from __future__ import annotations

import json
import os
import sys

import psycopg
from psycopg import sql

PREFIX = "jobify_peers_"


def main() -> None:
    """Do it on the server that ``PEERS_SERVER`` names; ``describe`` prints its version and settings."""
    verb, *names = sys.argv[1:]
    with psycopg.connect(os.environ["PEERS_SERVER"], autocommit=True) as connection:
        if verb == "describe":
            print(json.dumps(_describe(connection)))
        for name in names:
            if not name.startswith(PREFIX):
                raise SystemExit(f"{name} is no database of this benchmark's")
            text = "CREATE DATABASE {}" if verb == "create" else "DROP DATABASE IF EXISTS {} WITH (FORCE)"
            connection.execute(sql.SQL(text).format(sql.Identifier(name)))


def _describe(connection: psycopg.Connection) -> dict[str, str]:
    names = ("server_version", "fsync", "synchronous_commit", "shared_buffers", "autovacuum")
    answers = {}
    for name in names:
        row = connection.execute("SELECT current_setting(%s)", (name,)).fetchone()
        answers[name] = row[0] if row else "?"
    return answers


if __name__ == "__main__":
    main()
