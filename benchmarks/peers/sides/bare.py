"""The lower bound: the row that Jobify writes, through a Django cursor, and the least code that takes it.

There is no task, no argument, no bound, no lease and no fence. The worker looks every millisecond; it claims
and settles as many at once as the cell has workers, and runs them in turn.
"""

from __future__ import annotations

import sys
import time
import uuid
from typing import Any

from benchmarks.peers.sides import jobify_django
from benchmarks.peers.sides.base import Unsupported
from benchmarks.peers.tally import mark


class Side(jobify_django.Side):
    """A cursor."""

    def prepare(self) -> None:
        super().prepare()
        from django.db import connection

        super().one_by_one(1)
        self._cursor = connection.cursor()
        self._cursor.execute("SELECT * FROM jobify_job")
        columns = [column[0] for column in self._cursor.description]
        self._row = dict(zip(columns, self._cursor.fetchone(), strict=True))
        self._cursor.execute("DELETE FROM jobify_job")
        marks = ", ".join(["%s"] * len(columns))
        self._insert = f"INSERT INTO jobify_job ({', '.join(map(_quoted, columns))}) VALUES ({marks})"

    def _rows(self, number: int) -> list[tuple[Any, ...]]:
        first = self._row["sequence"] + 1
        self._row["sequence"] += number
        return [
            tuple({**self._row, "id": str(uuid.uuid4()), "sequence": each, "order_key": each}.values())
            for each in range(first, first + number)
        ]

    def one_by_one(self, number: int) -> None:
        for row in self._rows(number):
            self._cursor.execute(self._insert, row)

    def bulk(self, number: int) -> None:
        from django.db import connection, transaction

        rows = self._rows(number)
        with transaction.atomic():
            if connection.vendor == "sqlite":
                self._cursor.executemany(self._insert, rows)
            else:
                self._insert_arrays(rows)

    def _insert_arrays(self, rows: list[tuple[Any, ...]]) -> None:
        """Insert with one statement whose text does not grow with the rows."""
        columns = list(self._row)
        varying = {"id": "u.id", "sequence": "u.number", "order_key": "u.number"}
        constant = [self._row[column] for column in columns if column not in varying]
        values = ", ".join(varying.get(column, "%s") for column in columns)
        self._cursor.execute(
            f"INSERT INTO jobify_job ({', '.join(map(_quoted, columns))}) SELECT {values} "
            "FROM unnest(%s::text[], %s::bigint[]) AS u (id, number)",
            [
                *constant,
                [row[columns.index("id")] for row in rows],
                [row[columns.index("sequence")] for row in rows],
            ],
        )

    def worker(self) -> list[str]:
        if self.kind == "async":
            raise Unsupported("the bare worker calls a function")
        return [sys.executable, "-m", "benchmarks.peers.sides.bare", str(self.workers)]


def _quoted(name: str) -> str:
    return f'"{name}"'


def work(workers: int) -> None:
    """Claim, run and settle until the process is ended."""
    import django

    django.setup()
    from django.db import connection

    locked = "" if connection.vendor == "sqlite" else "FOR UPDATE SKIP LOCKED"
    claim = (
        "UPDATE jobify_job SET status = 'running' WHERE id IN (SELECT id FROM jobify_job "
        "WHERE queue = 'default' AND status = 'waiting' ORDER BY priority DESC, order_key "
        f"LIMIT {workers} {locked}) RETURNING id"
    )
    with connection.cursor() as cursor:
        while True:
            cursor.execute(claim)
            ids = [row[0] for row in cursor.fetchall()]
            if not ids:
                time.sleep(0.001)
                continue
            for _ in ids:
                mark()
            marks = ", ".join(["%s"] * len(ids))
            cursor.execute(f"UPDATE jobify_job SET status = 'successful' WHERE id IN ({marks})", ids)


if __name__ == "__main__":
    work(int(sys.argv[1]))
