"""Where a job stands in its queue, as one number. The smaller key is claimed first.

Stores sort by ``(order_key, sequence)``. The sequence is the job's number in its queue, handed out by
the store in commit order, so equal keys are first in, first out, whatever any clock does.
"""

from __future__ import annotations

from typing import Literal, get_args

Order = Literal["priority", "fifo", "lifo"]
ORDERS: tuple[Order, ...] = get_args(Order)

LOWEST_PRIORITY = -100
HIGHEST_PRIORITY = 100


def order_key(order: Order, priority: int, sequence: int) -> int:
    """Return the sort key of a job pushed with this priority as number ``sequence`` of its queue.

    Args:
        order: how the queue is ordered.
        priority: from -100 to 100; the higher runs first (only under ``"priority"``).
        sequence: the job's number in its queue; it only grows.
    """
    if order == "priority":
        return -priority
    if order == "lifo":
        return -sequence
    return 0
