"""Changing many jobs by hand, in parts that each have a transaction of their own."""

from __future__ import annotations

from collections.abc import Callable, Collection

from jobify_django.exceptions import StoreError
from jobify_django.job import JobRecord
from jobify_django.stores.database.settle import Settling

PART = 1_000
"""Jobs that one transaction of our own cancels or retries: each has a time limit, however many there are."""


class InParts(Settling):
    """What ``cancel`` and ``retry`` stand on."""

    def _in_parts(
        self, ids: Collection[str], act: Callable[[Collection[str]], list[JobRecord]], done: str
    ) -> list[JobRecord]:
        """Act on jobs in transactions of ``PART`` jobs each; inside the caller's transaction, all in that.

        The error of a part that fails tells what became of those before it.
        """
        # Sorted as they are locked, so that two calls go through the parts in one order, too.
        wanted = sorted(set(ids))
        if len(wanted) <= PART or self.in_transaction():
            return act(wanted)
        records: list[JobRecord] = []
        for start in range(0, len(wanted), PART):
            try:
                records += act(wanted[start : start + PART])
            except StoreError as error:
                raise type(error)(
                    f"of {len(wanted)} jobs the first {start} were looked at, and those of them that could "
                    f"be were {done}; the rest were not: {error} Do it again with the same jobs: those that "
                    "were changed are left alone."
                ) from error
        return records
