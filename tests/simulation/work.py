"""What simulated jobs do: tiny scripts, on a stage that the simulation sets."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from jobify_django.current import current
from jobify_django.job import Claim
from jobify_django.registry import Registry
from jobify_django.stores import StoreHandler
from jobify_django.task import AsyncTask, Task

KINDS = ("ok",) * 8 + ("fail", "base", "exit", "push")

stages: list[Any] = []
"""The last one is where jobs play (see ``Pools``)."""


class Bad(BaseException):
    """Not even an ``Exception``."""


def act(tag: int, kind: str, seconds: float) -> int:
    """Do what the script says, on a thread."""
    stage, claim = stages[-1], _claim()
    stage.began(claim)
    try:
        if seconds:
            stage.sleep(seconds)
        if kind == "push":
            stage.task(act).using(queue="mail", timeout=0).push(*stage.child())
        stage.act(kind)
    finally:
        stage.ended(claim)
    return tag


async def aact(tag: int, kind: str, seconds: float) -> int:
    """Do what the script says, on the event loop."""
    stage, claim = stages[-1], _claim()
    stage.began(claim)
    try:
        if seconds:
            await asyncio.sleep(seconds)
        if kind == "push":
            await stage.task(aact).using(queue="mail", timeout=0.5).apush(*stage.child())
        stage.act(kind)
    finally:
        stage.ended(claim)
    return tag


async def fresh(tag: int, kind: str, seconds: float) -> int:
    """Do what ``aact`` does; processes of an old release do not know it."""
    return await aact(tag, kind, seconds)


def name_of(function: Callable[..., Any]) -> str:
    """Return the name of the task that a function is."""
    return f"{__name__}.{function.__name__}"


def declared(stores: StoreHandler, *, old: bool) -> Registry:
    """Return the tasks of a process, which push into its stores; an old release lacks the newest."""
    tasks = Registry()
    tasks.register(Task(act, name_of(act), stores=stores))
    tasks.register(AsyncTask(aact, name_of(aact), stores=stores))
    if not old:
        tasks.register(AsyncTask(fresh, name_of(fresh), stores=stores))
    return tasks


def _claim() -> Claim:
    running: Any = current.get()
    return running.claim  # type: ignore[no-any-return]
