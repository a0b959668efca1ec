"""Tickets: how a number that a push takes anyway admits it, without a look at anybody else's.

Every job has a number, and whoever makes one announces it before the number is taken (``announcement``). So
what was counted once, and the numbers given out since, is a ceiling: a push whose own number is low enough
fits, whatever else has happened meanwhile.
"""

from __future__ import annotations

from typing import NamedTuple

from jobify_django.conf import MAX_MAXSIZE
from jobify_django.ordering import Order
from jobify_django.stores.database.reading import order_from, within

GOOD_FOR = 5.0
"""Seconds a book is used at least. It heals what the proof leaves out: rows that somebody writes by hand, and
a server that goes on from a copy that is behind."""

SHARE_OF_COUNTING = 0.01
"""The part of its time that a process counts at most while there is room. A count takes longer the more jobs
wait, and the more dead rows a held snapshot keeps; its book is used the longer."""

LONGEST_GOOD = 60.0
"""Seconds a book is used at most: a count that took long may only have waited for a lock."""


class Book(NamedTuple):
    """What a process knows of a queue from its last real count.

    Attributes:
        table: the number of the table of jobs, as the connection found it.
        first: the number before the one that the counting push had taken.
        counted: jobs that waited or were delayed, and those that others had announced.
        maxsize: the queue's tuned bound, as it is stored.
        order: the queue's tuned order, as it is stored.
        until: when, on the process's monotonic clock, it is to be counted again.
    """

    table: int
    first: int
    counted: int
    maxsize: int | None
    order: str
    until: float = 0.0

    def limit(self, maxsize: int) -> int:
        """Return the highest number that admits a push.

        Args:
            maxsize: the bound by the settings.
        """
        return self.first + self.bound(maxsize) - self.counted

    def bound(self, maxsize: int) -> int:
        """Return the bound in force, where the settings have this one."""
        return within(self.maxsize, MAX_MAXSIZE) or maxsize

    def order_in_force(self, order: Order) -> Order:
        """Return the order in force, where the settings have this one."""
        return order_from(self.order) or order

    @property
    def live(self) -> str:
        """The queue's live values as ``LIVE`` spells them."""
        return f"{'' if self.maxsize is None else self.maxsize} {self.order}"


LIVE = """coalesce((SELECT concat(maxsize, ' ', "order") FROM jobify_queue WHERE name = %s), ' ')"""
"""The live values that a push goes by, as one text."""


def good_for(took: float) -> float:
    """Return how many seconds a book may be used whose count took so many."""
    return min(LONGEST_GOOD, max(GOOD_FOR, took / SHARE_OF_COUNTING))
