"""A database without the tables: each door names what would make them, and that is not always ``migrate``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.db import connection

from jobify_django import StoreError, StoreUnmigrated, queue
from jobify_django.job import JobSpec, new_id
from jobify_django.stores.database.connection import unmigrated
from jobify_django.testing.conformance.ground import a_queue
from tests.child import PATIENCE


def test_where_the_app_is_not_installed_the_way_out_is_to_install_it(settings: Any) -> None:
    settings.INSTALLED_APPS = [app for app in settings.INSTALLED_APPS if app != "jobify_django"]

    assert str(unmigrated("default", "no such table")) == (
        "database 'default' lacks this version's tables (no such table): 'jobify_django' is not in "
        "INSTALLED_APPS. Add it there, then run 'manage.py migrate'."
    )


class KeepsAllOnDefault:
    def allow_migrate(self, db: str, app_label: str, **hints: Any) -> bool:
        return db == "default"


def test_where_a_router_keeps_the_tables_off_the_way_out_is_our_router(settings: Any) -> None:
    settings.DATABASE_ROUTERS = [f"{__name__}.KeepsAllOnDefault"]
    settings.JOBIFY = {"DATABASE": "jobs"}

    said = str(unmigrated("jobs", "no such table"))
    assert "DATABASE_ROUTERS keep them off it, so 'migrate' would not make them there." in said
    assert "Put 'jobify_django.router.JobifyRouter' before your own routers" in said

    settings.DATABASE_ROUTERS = ["jobify_django.router.JobifyRouter", *settings.DATABASE_ROUTERS]
    assert "run 'manage.py migrate --database jobs'. If" in str(unmigrated("jobs", "no such table"))


def test_where_migrate_has_nothing_to_do_it_says_what_else_it_may_be() -> None:
    assert "If that finds nothing to do, this process has another database" in str(unmigrated("default", "x"))


DOORS = """
import asyncio, json, logging, sys
import django
from django.conf import settings

settings.INSTALLED_APPS = ["django.contrib.contenttypes"]
django.setup()
logging.disable(logging.ERROR)

from jobify_django import StoreUnmigrated, queue, task
from jobify_django.asgi import lifespan
from jobify_django.pool import serving

@task(name="add")
def add(a, b): return a + b

said = {}

def tried(door, call):
    try:
        call()
    except StoreUnmigrated as error:
        said[door] = str(error)

async def serve():
    async with asyncio.timeout(20), serving():
        pass

async def live():
    messages = []
    async def receive(): return {"type": "lifespan.startup"}
    async def send(message): messages.append(message)
    async def app(*arguments): raise ValueError
    await lifespan(app)({"type": "lifespan"}, receive, send)
    (message,) = messages
    said["lifespan"] = message["message"]

async def apush():
    await add.push(1, 2)

tried("push", lambda: add.push(1, 2))
tried("awaited push", lambda: asyncio.run(apush()))
tried("stats", lambda: queue().stats())
tried("serving", lambda: asyncio.run(serve()))
asyncio.run(live())
print(json.dumps(said))
"""


def test_each_door_without_the_app_says_to_install_it(tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "tests.settings",
        "DATABASE_URL": f"sqlite:///{tmp_path / 'new.sqlite3'}",
    }
    ended = subprocess.run(
        [sys.executable, "-c", DOORS], env=environment, capture_output=True, text=True, timeout=PATIENCE
    )
    said = json.loads(ended.stdout)

    assert set(said) == {"push", "awaited push", "stats", "serving", "lifespan"}
    for door, message in said.items():
        assert "'jobify_django' is not in INSTALLED_APPS. Add it there, then run" in message, door


MEMORY = """
import asyncio
import django
from django.conf import settings

settings.INSTALLED_APPS = ["django.contrib.contenttypes"]
settings.JOBIFY = {"STORE": "memory"}
django.setup()

from jobify_django.pool import serving

async def serve():
    async with serving() as service:
        await service.until_idle()

asyncio.run(serve())
"""


def test_jobs_in_memory_run_without_the_app_and_the_log_says_what_is_missing() -> None:
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings"}
    ended = subprocess.run(
        [sys.executable, "-c", MEMORY], env=environment, capture_output=True, text=True, timeout=PATIENCE
    )

    assert ended.returncode == 0, ended.stderr
    assert "event=not-installed: 'jobify_django' is not in INSTALLED_APPS" in ended.stderr


@pytest.mark.django_db(transaction=True)
def test_a_column_that_migrate_has_yet_to_add_is_told_as_tables_are() -> None:
    rename = "ALTER TABLE jobify_job RENAME COLUMN {} TO {}"
    with connection.cursor() as cursor:
        cursor.execute(rename.format("extra", "later"))
    try:
        with pytest.raises(StoreUnmigrated, match=r"run 'manage\.py migrate'"):
            queue().store.add(a_queue(), [JobSpec(new_id(), "a.task", "[[],{}]")])
    finally:
        with connection.cursor() as cursor:  # of another connection, where the store has closed that one
            cursor.execute(rename.format("later", "extra"))


@pytest.mark.django_db(transaction=True)
def test_rights_that_are_missing_are_no_matter_of_migrations() -> None:
    if connection.vendor != "postgresql":
        pytest.skip("about rights on a server's tables")
    nobody = f"jobify_nobody_{os.getpid()}"  # roles belong to all databases of a server
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE ROLE {nobody} NOLOGIN")
        cursor.execute(f"SET ROLE {nobody}")
        try:
            with pytest.raises(StoreError, match="permission denied") as got:
                queue().stats()
        finally:
            cursor.execute("RESET ROLE")
            cursor.execute(f"DROP ROLE {nobody}")
    assert not isinstance(got.value, StoreUnmigrated)
