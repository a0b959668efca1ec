from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.browser.site import PATIENCE, Site, Visitor, environment
from tests.child import Child, until
from tests.port import free_port
from tests.requirement import CHROMIUM, need_file, need_module

if TYPE_CHECKING:
    from playwright.sync_api import Browser

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@dataclass(frozen=True)
class Prepared:
    """A migrated database, and the sessions of those who are logged in."""

    directory: Path
    sessions: dict[str, str]


# They live as long as this package's tests, not longer: Playwright keeps an event loop running in this
# thread, and the other tests need that place for theirs.


@pytest.fixture(scope="package")
def chromium() -> Iterator[Browser]:
    playwright = need_module("playwright.sync_api")
    executable = need_file(CHROMIUM)
    with playwright.sync_playwright() as driver:
        playwright.expect.set_options(timeout=PATIENCE)
        with driver.chromium.launch(executable_path=executable, args=ARGUMENTS) as browser:
            yield browser


@pytest.fixture(scope="package")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    directory = tmp_path_factory.mktemp("prepared")
    with Child(["-m", "tests.browser.database"], environment(directory)) as child:
        sessions = json.loads(child.wait_for('"admin"'))
        assert child.end() == 0, child.output
    return Prepared(directory, sessions)


@pytest.fixture
def site(prepared: Prepared, tmp_path: Path) -> Iterator[Site]:
    """The demo's site, fresh, with four workers and nobody in the shop."""
    need_module("uvicorn")
    directory = tmp_path / "site"
    shutil.copytree(prepared.directory, directory)
    with Site(free_port(), directory) as site:
        until(site.serves, f"{site} serving")
        yield site


@pytest.fixture
def visitor(chromium: Browser, prepared: Prepared, site: Site) -> Iterator[Visitor]:
    """Whoever looks at the site. No page may have complained in its console, unless the test forgave it."""
    visitor = Visitor(chromium, site.url, prepared.sessions)
    yield visitor
    visitor.close()
    assert visitor.faults == []
