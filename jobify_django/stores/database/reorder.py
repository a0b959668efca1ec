"""Re-ordering: jobs that an order from before has placed go where the order in force wants them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from jobify_django.conf import QueueSettings
from jobify_django.exceptions import StoreError
from jobify_django.log import get_log, quoted
from jobify_django.stores.database.connection import Connection, chunks, marks
from jobify_django.stores.database.reading import order_from
from jobify_django.stores.database.settle import KEYS
from jobify_django.stores.database.transaction import Transactions

REORDER_PART = 5_000
"""Jobs that are re-ordered in one transaction."""

logger = get_log("jobify.store")


class Reordering(Transactions):
    """The verb ``reorder``."""

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
        moved = self.write(partial(self._reorder, queue, self.in_transaction()))
        if moved:
            self._tell_work([queue.name])
        return moved

    def _reorder(self, queue: QueueSettings, inside: bool, db: Connection) -> int:
        # Whoever has the row locked re-orders now, or changes the order once more.
        live = f'SELECT "order", reordering FROM jobify_queue WHERE name = ? {self.unlocked}'
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
            lock = f"SELECT id FROM jobify_job WHERE id IN {marks(part)} ORDER BY id {self.unlocked}"
            free = [id for (id,) in db.execute(lock, part).fetchall()]
            if free:
                db.execute(f"UPDATE jobify_job SET order_key = {key} WHERE id IN {marks(free)}", free)
            moved += len(free)
        return moved

    @staticmethod
    def _misplaced(db: Connection, queue: str, key: str) -> list[str]:
        """Return the ids of some jobs that do not stand where a key wants them."""
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
