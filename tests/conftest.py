import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.db import connection
from django.test import TransactionTestCase
from hypothesis import settings as hypothesis_settings

from tests import workshop
from tests.blocks.project import Readers, make
from tests.child import PATIENCE

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
def django_db_setup(django_db_setup: None) -> Iterator[None]:
    """The test databases; they are dropped once none of our threads uses them any more."""
    yield
    for thread in threading.enumerate():
        if thread.name.startswith(("jobify-watch-", "jobify-pool", "jobify-upkeep", "jobify-worker-")):
            thread.join(PATIENCE)


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
def jobify(request: pytest.FixtureRequest, settings: Any) -> Iterator[Callable[..., None]]:
    """The settings, with the store a test is parametrized with (memory without); call it to change them."""
    store = getattr(request, "param", "memory")

    def configure(**values: Any) -> None:
        settings.JOBIFY = {"STORE": store, "PUSH_TIMEOUT": 0, **values}

    configure()
    yield configure
    workshop.clear()
