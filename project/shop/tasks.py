"""The shop's tasks. Each waits as long as the service it stands for would take to answer."""

from __future__ import annotations

import asyncio
import time
import zlib

from jobify_django import task


class CardDeclined(Exception):
    """The bank said no."""


@task(priority="critical")
async def charge_payment(order: str) -> str:
    """Charge the card. One card in fifty is declined, so that there are failed jobs to look at."""
    await asyncio.sleep(0.080)
    if zlib.crc32(order.encode()) % 50 == 0:
        raise CardDeclined(f"the bank declined the card of order {order}")
    return f"charged {order}"


@task(priority="user_flow")
def send_receipt(order: str) -> None:
    """Send the receipt. A plain function: it runs on a thread, beside the async ones."""
    time.sleep(0.040)


@task(priority="background")
async def track_visit(page: str) -> None:
    """Tell the analytics service."""
    await asyncio.sleep(0.050)
