"""Tuning: changing a queue's live values, and telling who changed them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from jobify_django.conf import QueueSettings
from jobify_django.stores.database.columns import CHANGE, NEW_CHANGE, STATE, spelled, to_change, to_state
from jobify_django.stores.database.connection import Connection
from jobify_django.stores.database.pools import Presence
from jobify_django.stores.database.reorder import Reordering
from jobify_django.stores.value import QueueChange, QueueState

TUNE = """
    UPDATE jobify_queue SET version = ?, workers = ?, maxsize = ?, "order" = ?, paused = ? WHERE name = ?"""
NEWEST = f"SELECT {spelled(CHANGE)} FROM jobify_queuechange WHERE queue = ? ORDER BY id DESC LIMIT ?"


class Tuning(Presence, Reordering):
    """The verbs ``tune`` and ``changes``."""

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
        self._tell_work([queue.name])
        self._tell_room([queue.name])
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
        live = f"SELECT {STATE} FROM jobify_queue WHERE name = ? {self._locked}"
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


def _values(state: QueueState) -> str:
    keys = ("workers", "maxsize", "order", "paused")
    return json.dumps({key: getattr(state, key) for key in keys})
