"""What simulated jobs do: tiny scripts, on a stage that the simulation sets."""

from __future__ import annotations

import asyncio
from typing import Any

from jobify_django import task
from jobify_django.current import inside
from jobify_django.job import Claim

KINDS = ("ok",) * 8 + ("fail", "base", "exit", "push")

stages: list[Any] = []
"""The last one is where jobs play (see ``Pools``)."""


class Bad(BaseException):
    """Not even an ``Exception``."""


@task
def act(tag: int, kind: str, seconds: float) -> int:
    """Do what the script says, on a thread."""
    stage, claim = stages[-1], _claim()
    stage.began(claim)
    try:
        if seconds:
            stage.sleep(seconds)
        if kind == "push":
            act.using(queue="mail", timeout=0).push(*stage.child())
        stage.act(kind)
    finally:
        stage.ended(claim)
    return tag


@task
async def aact(tag: int, kind: str, seconds: float) -> int:
    """Do what the script says, on the event loop."""
    stage, claim = stages[-1], _claim()
    stage.began(claim)
    try:
        if seconds:
            await asyncio.sleep(seconds)
        if kind == "push":
            await aact.using(queue="mail", timeout=0.5).apush(*stage.child())
        stage.act(kind)
    finally:
        stage.ended(claim)
    return tag


@task
async def fresh(tag: int, kind: str, seconds: float) -> int:
    """Do what ``aact`` does; processes of an old release do not know it."""
    return await aact.function(tag, kind, seconds)  # type: ignore[no-any-return]


def _claim() -> Claim:
    running: Any = inside.get()
    return running.claim  # type: ignore[no-any-return]
