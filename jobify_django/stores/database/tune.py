"""Tuning: changing a queue's live values, and telling who changed them.

Where that changes the order, jobs that the order before has placed go where the order in force wants them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from jobify_django.conf import QueueSettings
from jobify_django.exceptions import StoreError
from jobify_django.log import get_log, quoted
from jobify_django.stores.database.columns import CHANGE, NEW_CHANGE, STATE, column_list, to_change, to_state
from jobify_django.stores.database.connection import Connection, chunks, placeholders
from jobify_django.stores.database.pools import PoolRegistry
from jobify_django.stores.database.reading import order_from
from jobify_django.stores.database.settle import KEYS
from jobify_django.stores.value import QueueChange, QueueState

logger = get_log("jobify.store")

REORDER_PART = 5_000
"""Jobs that are re-ordered in one transaction."""

TUNE = """
    UPDATE jobify_queue SET version = ?, workers = ?, maxsize = ?, "order" = ?, paused = ? WHERE name = ?"""
NEWEST = f"SELECT {column_list(CHANGE)} FROM jobify_queuechange WHERE queue = ? ORDER BY id DESC LIMIT ?"


class Tuning(PoolRegistry):
    """The verbs ``tune``, ``reorder`` and ``changes``."""

    keeps_changes = True

    def tune(
        self,
        queue: QueueSettings,
        changes: Mapping[str, Any],
        *,
        actor: str,
        source: str,
        expected: int | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> QueueState:
        audit = (actor[:150], source[:16], self.clock())
        state = self._write(partial(self._tune, queue, changes, audit, expected))
        self._notify_work([queue.name])
        self._notify_room([queue.name])
        if state.reordering:
            self._reorder_all(queue, progress)
            # Of the rest it is what this change made: somebody may have made another one meanwhile.
            now = self.sync("", [queue.name]).states[queue.name]
            state = replace(state, reordering=now.reordering)
        return state

    def _tune(
        self,
        queue: QueueSettings,
        changes: Mapping[str, Any],
        audit: tuple[str, str, float],
        expected: int | None,
        db: Connection,
    ) -> QueueState:
        self._ensure_queue(db, queue.name)
        # Read by the statement that locks it: a transaction that began earlier would read an older version.
        live = f"SELECT {STATE} FROM jobify_queue WHERE name = ? {self._for_update}"
        before = to_state(queue.name, *db.execute(live, (queue.name,)).fetchone())
        before.must_be(expected)
        after = replace(before, version=before.version + 1, **changes)
        tuned = (after.version, after.workers, after.maxsize, after.order or "", after.paused)
        db.execute(TUNE, (*tuned, queue.name))
        if (after.order or queue.order) != (before.order or queue.order):
            # 0: the mark is made after the commit, or somebody could still read the old order after it.
            db.execute("UPDATE jobify_queue SET reordering = 0 WHERE name = ?", (queue.name,))
            after = replace(after, reordering=True)
        db.execute(NEW_CHANGE, (queue.name, after.version, *audit, _values(before), _values(after)))
        return after

    def changes(self, queue: str, limit: int = 10) -> Sequence[QueueChange]:
        rows = self._read(lambda db: db.execute(NEWEST, (queue, limit)).fetchall())
        return [to_change(row) for row in rows]

    def _reorder_all(self, queue: QueueSettings, progress: Callable[[int], None] | None) -> None:
        """Re-order what can be now. What fails, or comes late, is left to the pools: the change is made."""
        total = rounds = 0
        try:
            # Twice without a find: the transaction that makes the mark cannot tell that nobody comes late.
            while rounds < 2:
                moved = self.reorder(queue)
                rounds = 0 if moved else rounds + 1
                total += moved
                if moved and progress is not None:
                    progress(total)
        except StoreError as error:
            if self.in_transaction():
                raise  # it cannot go on
            logger.warning(
                "event=reorder-failed queue=%s moved=%d error=%r", quoted(queue.name), total, str(error)
            )

    def reorder(self, queue: QueueSettings) -> int:
        moved = self._write(partial(self._reorder, queue, self.in_transaction()))
        if moved:
            self._notify_work([queue.name])
        return moved

    def _reorder(self, queue: QueueSettings, inside: bool, db: Connection) -> int:
        # Whoever has the row locked re-orders now, or changes the order once more.
        live = f'SELECT "order", reordering FROM jobify_queue WHERE name = ? {self._skip_locked}'
        order, mark = db.execute(live, (queue.name,)).fetchone() or (None, None)
        if mark is None:
            return 0
        if mark == 0 and not inside:
            mark = self._mark(db)
            db.execute("UPDATE jobify_queue SET reordering = ? WHERE name = ?", (mark, queue.name))
        # Before the look, or somebody could end between the two.
        late = mark == 0 or self._may_come_late(db, mark)
        key = KEYS[order_from(order) or queue.order]
        found = self._misplaced(db, queue.name, key)
        if not found and not late:
            db.execute("UPDATE jobify_queue SET reordering = NULL WHERE name = ?", (queue.name,))
        moved = 0
        for part in chunks(sorted(found)):
            lock = (
                f"SELECT id FROM jobify_job WHERE id IN {placeholders(part)} ORDER BY id {self._skip_locked}"
            )
            free = [id for (id,) in db.execute(lock, part).fetchall()]
            if free:
                db.execute(f"UPDATE jobify_job SET order_key = {key} WHERE id IN {placeholders(free)}", free)
            moved += len(free)
        return moved

    @staticmethod
    def _misplaced(db: Connection, queue: str, key: str) -> list[str]:
        old = " UNION ALL ".join(
            f"SELECT id FROM jobify_job WHERE queue = :queue AND status = '{status}' AND order_key <> {key}"
            for status in ("waiting", "delayed", "running")
        )
        # One statement, so one snapshot: a job that changes its status meanwhile is in it all the same.
        return [id for (id,) in db.execute(f"{old} LIMIT {REORDER_PART}", {"queue": queue}).fetchall()]

    # What databases do in their own ways

    def _mark(self, db: Connection) -> int:
        """Return what tells transactions that have written before this one began from later ones; not 0."""
        return 1

    def _may_come_late(self, db: Connection, mark: int) -> bool:
        """Whether somebody may still commit jobs that an order from before the ``mark`` has placed, this
        transaction too where it made the mark."""
        return False


def _values(state: QueueState) -> str:
    keys = ("workers", "maxsize", "order", "paused")
    return json.dumps({key: getattr(state, key) for key in keys})
