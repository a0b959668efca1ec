"""Calls into an event loop from other threads and from signal handlers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVarTuple

Arguments = TypeVarTuple("Arguments")


def tell_loop(
    loop: asyncio.AbstractEventLoop, call: Callable[[*Arguments], object], *arguments: *Arguments
) -> bool:
    """Have a loop make a call soon; return whether it can. A closed loop runs nothing any more."""
    try:
        loop.call_soon_threadsafe(call, *arguments)
    except RuntimeError:
        if not loop.is_closed():
            raise
        return False
    return True
