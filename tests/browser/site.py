"""The demo's site as a process of its own, and a visitor who looks at it with Chromium."""

from __future__ import annotations

import os
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.child import Child

if TYPE_CHECKING:  # plain `pytest` collects these files where there is no Playwright, too
    from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page

ROOT = Path(__file__).parent.parent.parent
HOST = "127.0.0.1"
PATIENCE = 30_000
"""Milliseconds until what a page should show counts as never shown; machines may be slow."""

DESK = {"width": 1280, "height": 800}
PHONE = {"width": 375, "height": 800}


class Site(Child):
    """A uvicorn process that serves the demo, with its workers inside and without its customers."""

    def __init__(self, port: int, directory: Path) -> None:
        self.url = f"http://{HOST}:{port}"
        arguments = ["-m", "uvicorn", "project.asgi:application", "--lifespan", "on", "--host", HOST]
        arguments += ["--port", str(port), "--no-access-log", "--timeout-graceful-shutdown", "1"]
        strict = {"DJANGO_SETTINGS_MODULE": "tests.browser.settings"}
        super().__init__(arguments, environment(directory) | strict)

    def serves(self) -> bool:
        if self.process.poll() is not None:
            raise AssertionError(f"{self} has ended:\n{self.output}")
        try:
            with urllib.request.urlopen(f"{self.url}/static/shop/favicon.svg", timeout=30):
                return True
        except OSError:
            return False


class Visitor:
    """Opens pages of one site, each with a profile of its own, and remembers what their consoles said."""

    def __init__(self, browser: Browser, url: str, sessions: Mapping[str, str]) -> None:
        self.url = url
        self.faults: list[str] = []
        self._browser = browser
        self._sessions = sessions
        self._contexts: list[BrowserContext] = []

    def open(self, path: str, *, user: str = "", **options: Any) -> Page:
        """Return the page at ``path``.

        Args:
            user: who is logged in: ``"admin"``, ``"viewer"`` or ``"nobody"``.
            options: of the browser's context: ``viewport``, ``color_scheme``, ``java_script_enabled``.
        """
        context = self._browser.new_context(**{"viewport": DESK, "base_url": self.url, **options})
        self._contexts.append(context)
        context.set_default_timeout(PATIENCE)
        if user:
            context.add_cookies([{"name": "sessionid", "value": self._sessions[user], "url": self.url}])
        page = context.new_page()
        page.on("console", self._listen)
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.goto(path)
        return page

    def close(self) -> None:
        for context in self._contexts:
            context.close()

    def _listen(self, message: ConsoleMessage) -> None:
        # The machine's network is no fault of the page, which looks again by itself.
        if message.type in ("error", "warning") and "ERR_NETWORK_CHANGED" not in message.text:
            self.faults.append(f"{message.type}: {message.text}")


def environment(directory: Path) -> dict[str, str]:
    """Return the environment of a process of the demo that keeps its files in ``directory``."""
    inherited = {k: v for k, v in os.environ.items() if k not in ("DATABASE_URL", "DJANGO_SETTINGS_MODULE")}
    return {**inherited, "DEMO_DIRECTORY": str(directory), "SECRET_KEY": "for-the-browser-tests-only"}


def expect(target: Any) -> Any:
    """Return Playwright's assertions about a page or a part of it; they wait until they hold."""
    from playwright import sync_api

    return sync_api.expect(target)


def post(page: Page, path: str, /, **values: str) -> None:
    """Post to the site as the page's own script would."""
    (token,) = [cookie["value"] for cookie in page.context.cookies() if cookie["name"] == "csrftoken"]
    headers = {"X-CSRFToken": token, "Accept": "application/json"}
    answer = page.request.post(path, form=values, headers=headers)
    assert answer.ok, answer.text()
