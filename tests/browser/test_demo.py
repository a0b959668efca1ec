"""``make demo``, from its first line in the terminal to the admin, with its customers in the shop."""

from __future__ import annotations

import re
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from tests.browser.site import Visitor, environment, expect
from tests.child import Child
from tests.port import free_port
from tests.requirement import need_module

if TYPE_CHECKING:
    from playwright.sync_api import Browser


def test_the_demo_makes_its_point_and_lets_its_admin_in(chromium: Browser, tmp_path: Path) -> None:
    need_module("uvicorn")
    with Child(["-m", "project.demo"], environment(tmp_path) | {"DEMO_PORT": str(free_port())}) as demo:
        try:
            password = demo.wait_for("login   admin").split()[-1]
            visitor = Visitor(chromium, demo.wait_for("site ").split()[-1].rstrip("/"), {})
            demo.wait_for("Customers come until Ctrl+C.")
            look_around(visitor, password)
            visitor.close()
        finally:
            # Its server stands in a session of its own, and must not outlive it.
            code = demo.end(signal.SIGINT)

    assert visitor.faults == []
    assert code == 0, demo.output


def look_around(visitor: Visitor, password: str) -> None:
    page = visitor.open("/")
    expect(page.locator("#overtaking")).to_contain_text("critical jobs overtake: 19 of 20 started")
    page.get_by_role("button", name="200 checkouts").click()
    expect(page.locator("#pill")).to_have_text("full")
    expect(page.locator("#sentence")).to_contain_text("for room")

    page.get_by_role("link", name="Admin").click()
    page.get_by_label("Username").fill("admin")
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Log in").click()
    page.get_by_role("main").get_by_role("link", name="Overview").click()
    row = page.locator('[data-jobify-region="queues"]').get_by_role("row").filter(has_text="default")
    expect(row).to_contain_text(re.compile(r"\d+ of 100"))
    expect(row).to_contain_text("of 4 busy")

    seen = page.locator('[data-jobify-region="moment"]')
    before = seen.inner_text()
    expect(seen).not_to_have_text(before)  # it looks again after five seconds, by itself
