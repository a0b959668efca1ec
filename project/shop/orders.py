"""Placing an order: the shop's producer."""

from __future__ import annotations

import asyncio
import random
import secrets

from jobify_django import QueueFull
from project.shop.tasks import charge_payment, send_receipt, track_visit
from project.shop.till import till


def new_order() -> str:
    """Return a fresh order number."""
    return secrets.token_hex(4).upper()


async def place(order: str) -> None:
    """Push an order's three jobs.

    The payment is the door: while the queue is full it waits, up to ``PUSH_TIMEOUT``, and if that was not
    enough the customer is turned away with nothing done. Once it is in, the order stands, and its receipt
    waits for as long as it must. A page view is worth no waiting.

    Raises ``QueueFull``.
    """
    with till.checkout():
        await charge_payment.push(order)
        await send_receipt.using(timeout=None).push(order)
        await count_visit("/thank-you/")


async def count_visit(page: str) -> bool:
    """Push a page view if there is room for it, and return whether there was."""
    try:
        await track_visit.using(timeout=0).push(page)
    except QueueFull:
        till.skipped_visits += 1
        return False
    return True


async def burst(checkouts: int, seconds: float) -> tuple[int, int]:
    """Let many customers check out within a few seconds; return how many got through, and how many not."""

    async def customer() -> bool:
        await asyncio.sleep(random.uniform(0, seconds))
        await count_visit("/basket/")
        try:
            await place(new_order())
        except QueueFull:
            return False
        return True

    through = sum(await asyncio.gather(*(customer() for _ in range(checkouts))))
    return through, checkouts - through
