import gc
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import pytest_django
from asgiref.sync import SyncToAsync
from django.db import connection, connections
from django.test import TransactionTestCase
from hypothesis import settings as hypothesis_settings

from tests import workshop
from tests.blocks.project import Readers, make
from tests.child import PATIENCE, until

HERE = Path(__file__).parent

# A shell that starts a test run in the background lets it ignore SIGINT, and all that it starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

pytest.register_assert_rewrite("jobify_django.testing.conformance")
# A busy machine is slow, and that is no failure.
hypothesis_settings.register_profile("jobify", deadline=None)
hypothesis_settings.load_profile("jobify")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--database-only",
        action="store_true",
        help="leave out what no database takes part in: for a second run, on another database",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A test is a `servers` or a `browser` test by the directory it lives in."""
    for item in items:
        for name in ("servers", "browser"):
            if item.path.is_relative_to(HERE / name):
                item.add_marker(name)
    if config.getoption("database_only"):
        config.hook.pytest_deselected(items=[item for item in items if not needs_database(item)])
        items[:] = filter(needs_database, items)


def needs_database(item: pytest.Item) -> bool:
    """Whether a test may reach a database: pytest-django lets no other one."""
    kind = getattr(item, "cls", None)
    return (
        item.get_closest_marker("django_db") is not None
        or not {"db", "transactional_db", "django_db_setup"}.isdisjoint(getattr(item, "fixturenames", ()))
        or (isinstance(kind, type) and issubclass(kind, TransactionTestCase))
    )


@pytest.fixture(scope="session")
def django_db_setup(
    django_db_setup: None, django_db_blocker: pytest_django.DjangoDbBlocker
) -> Iterator[None]:
    """The test databases; they are dropped once no thread and no process of ours uses them any more."""
    yield
    for thread in threading.enumerate():
        if thread.name.startswith(("jobify-watch-", "jobify-pool", "jobify-upkeep", "jobify-worker-")):
            thread.join(PATIENCE)
    # The one on which asgiref runs sync code of coroutines ends with the process.
    SyncToAsync.single_thread_executor.submit(connections.close_all).result(PATIENCE)
    with django_db_blocker.unblock():
        until(lambda: others() == [], "the end of all other sessions")


def others() -> list[str]:
    """Return what other sessions did last in the test database, where they keep it from being dropped."""
    gc.collect()  # the connections of threads that have ended
    if connection.vendor != "postgresql":
        return []
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT query FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        return [query for (query,) in cursor.fetchall()]


@pytest.fixture(scope="session")
def readers() -> Iterator[Readers]:
    """Those who do what the documentation says."""
    with Readers() as some:
        yield some


@pytest.fixture(scope="session")
def projects(readers: Readers, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Projects that they begin with."""
    directory = tmp_path_factory.mktemp("projects")
    make(directory, readers)
    return directory


@pytest.fixture
def child_environment(transactional_db: None) -> dict[str, str]:
    """The environment for a process that must see this test's database."""
    name = connection.settings_dict["NAME"]
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings"}
    if connection.vendor == "sqlite":
        environment["DATABASE_URL"] = f"sqlite:///{name}"
    else:
        environment["DATABASE_URL"] = urlsplit(os.environ["DATABASE_URL"])._replace(path=f"/{name}").geturl()
    return environment


@pytest.fixture
def jobify(request: pytest.FixtureRequest, settings: Any) -> Iterator[workshop.Configure]:
    """The settings, with the store a test is parametrized with (memory without); call it to change them."""
    configure = workshop.Configure(settings, getattr(request, "param", "memory"))
    configure()
    yield configure
    workshop.clear()
