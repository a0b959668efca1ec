"""A process whose pushes all wait, half of them in vain: ``python -m chaos.waiter NAME COUNT SEED``."""

from __future__ import annotations

import asyncio
import random
import sys
import time

from chaos.ledger import Ledger

SHORTEST, LONGEST = 4.0, 12.0


def main() -> None:
    """Start all pushes at once, cancel half of them at random moments, and say how each ended."""
    import django

    django.setup()
    name, count, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    asyncio.run(_wait(name, count, random.Random(seed)))


async def _wait(name: str, count: int, chance: random.Random) -> None:
    waits = [
        _push(
            f"w{name}.{number}", chance.uniform(SHORTEST, LONGEST), cancelled=number % 2 == 0, chance=chance
        )
        for number in range(count)
    ]
    await asyncio.gather(*waits)


async def _push(key: str, timeout: float, *, cancelled: bool, chance: random.Random) -> None:
    from chaos.app.tasks import awork
    from jobify_django import QueueFull

    pushes, waits = Ledger("pushes"), Ledger("waits")
    timeout = chance.uniform(SHORTEST, LONGEST)
    pushes.write("T", key)
    began = time.monotonic()
    due = began + timeout
    push = asyncio.create_task(awork.using(timeout=timeout).apush(key, 0.3))
    if cancelled:
        await asyncio.wait([push], timeout=chance.uniform(0.0, timeout))
        due = min(due, time.monotonic())
        push.cancel()
    try:
        job = await push
    except asyncio.CancelledError:
        pushes.write("X", key)
    except QueueFull:
        pushes.write("R", key)
    else:
        pushes.write("A", key, job.id, f"{time.monotonic() - began:.6f}")
    waits.write("W", key, f"{time.monotonic() - due:.6f}")


if __name__ == "__main__":
    main()
