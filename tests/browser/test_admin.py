"""The admin's pages, as staff sees them. The demo's site stands behind them, without its customers."""

from __future__ import annotations

import re
import zlib
from itertools import count
from typing import TYPE_CHECKING

import pytest

from tests.browser.reading import cut_off, faint, nameless
from tests.browser.site import PHONE, Visitor, expect, post

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

JOBS = "/admin/jobify_django/job/"
OVERVIEW = "/admin/jobify_django/overview/"
QUEUE = f"{OVERVIEW}queue/default/"
EVIL = """<img src=x onerror="window.hit = 1"><script>window.hit = 1</script>'"&{{ 7 }}"""


def declined(start: str) -> str:
    """Return an order that begins so, and whose card the demo's bank declines."""
    return next(order for n in count() if zlib.crc32((order := f"{start}{n}").encode()) % 50 == 0)


def region(page: Page, name: str) -> Locator:
    return page.locator(f'[data-jobify-region="{name}"]')


def refresh(page: Page) -> None:
    """Let the time pass after which the page looks again; its clock is the test's."""
    page.clock.run_for(5_000)


@pytest.fixture
def shop(visitor: Visitor) -> Page:
    """The demo's own page, to send customers from."""
    return visitor.open("/")


@pytest.fixture
def paused(shop: Page) -> Page:
    """The same, with a queue that is paused."""
    post(shop, "/pause/")
    return shop


@pytest.fixture
def failed(shop: Page) -> str:
    """An order whose payment has failed; its name is an attack."""
    order = declined(EVIL)
    post(shop, "/checkout/", order=order)
    expect(shop.locator("#strip i")).to_have_count(3)
    expect(shop.locator("#busy")).to_have_text("0")
    return order


def test_the_overview_shows_each_queue_against_its_bound(paused: Page, visitor: Visitor) -> None:
    post(paused, "/checkout/")
    page = visitor.open("/admin/", user="admin")
    page.get_by_role("main").get_by_role("link", name="Background jobs").click()
    page.get_by_role("main").get_by_role("link", name="Overview").click()

    row = region(page, "queues").get_by_role("row").filter(has_text="default")
    expect(row.get_by_role("meter", name="Depth of queue default")).to_have_attribute("value", "3")
    expect(row).to_contain_text("3 of 100")
    expect(row).to_contain_text("0 of 4 busy")
    expect(row).to_contain_text("4 per process × 1 pool")
    expect(row).to_contain_text("paused")
    expect(row.get_by_role("cell").nth(4)).to_have_text(re.compile(r"\d m?s"))
    expect(region(page, "pools")).to_contain_text("lifespan")
    assert nameless(page, "#content") == []


def test_the_numbers_change_without_a_reload(paused: Page, visitor: Visitor) -> None:
    page = visitor.open("about:blank", user="admin")
    page.clock.install()
    page.goto(OVERVIEW)
    page.evaluate("window.still_here = true")
    expect(region(page, "queues")).to_contain_text("0 of 100")

    post(paused, "/checkout/")
    refresh(page)

    expect(region(page, "queues")).to_contain_text("3 of 100")
    assert page.evaluate("window.still_here")
    live = "[aria-live], [role=status], [role=alert], [role=log]"
    assert page.locator(f"[data-jobify-region] table:is({live}), :is({live}) table").count() == 0


def test_a_refresh_keeps_the_focus_and_holds_no_number_back(paused: Page, visitor: Visitor) -> None:
    page = visitor.open("about:blank", user="admin")
    page.clock.install()
    page.goto(QUEUE)
    page.get_by_role("button", name="Resume").focus()

    post(paused, "/checkout/")
    refresh(page)

    expect(region(page, "numbers")).to_contain_text("3 of 100")
    expect(page.get_by_role("button", name="Resume")).to_be_focused()


def test_a_full_queue_is_told_once_however_its_depth_moves(paused: Page, visitor: Visitor) -> None:
    post(paused, "/tune/", maxsize="3")
    post(paused, "/checkout/")
    page = visitor.open("about:blank", user="admin")
    page.clock.install()
    page.goto(OVERVIEW)
    banner = page.get_by_role("status").filter(has_text="Queue default is full")
    expect(banner).to_be_visible()
    banner.locator("li").evaluate("(line) => { window.told = line; }")

    post(paused, "/tune/", maxsize="2")
    refresh(page)

    expect(region(page, "queues")).to_contain_text("3 of 2")
    assert page.evaluate("window.told.isConnected")


def test_the_page_says_when_the_session_is_over(visitor: Visitor) -> None:
    page = visitor.open("about:blank", user="admin")
    page.clock.install()
    page.goto(OVERVIEW)
    page.context.clear_cookies()

    refresh(page)

    expect(page.get_by_text("No longer updated: reload the page.")).to_be_visible()


def test_pause_and_resume(visitor: Visitor) -> None:
    page = visitor.open(QUEUE, user="admin")
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_text("Queue default is paused: running jobs finish")).to_be_visible()
    expect(page.locator(".jobify-badges").get_by_text("paused")).to_be_visible()

    page.get_by_role("button", name="Resume").click()
    expect(page.get_by_text("Queue default is resumed.")).to_be_visible()
    expect(page.get_by_role("button", name="Pause")).to_be_visible()
    expect(region(page, "changes").get_by_role("row")).to_have_text(
        [re.compile("When"), re.compile(r"admin\s+paused: yes → no"), re.compile(r"admin\s+paused: no → yes")]
    )


def test_tuning_applies_within_seconds_and_is_reported_back(visitor: Visitor) -> None:
    page = visitor.open("about:blank", user="admin")
    page.clock.install()
    page.goto(QUEUE)
    page.get_by_label("Workers per process").fill("7")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("Queue default is tuned.")).to_be_visible()

    applied = region(page, "numbers").get_by_text("version 1, applied by 1 of 1")
    for _ in range(20):
        if applied.is_visible():
            break
        with page.expect_response(f"**{QUEUE}"):
            refresh(page)
    expect(applied).to_be_visible()
    expect(region(page, "numbers")).to_contain_text("0 of 7 busy")

    page.get_by_role("button", name="Reset").click()
    expect(region(page, "numbers")).to_contain_text("4 per process")


def test_a_value_out_of_range_is_told_beside_its_field_and_kept(visitor: Visitor) -> None:
    page = visitor.open(QUEUE, user="admin")
    page.get_by_label("Workers per process").fill("5000")
    page.get_by_label("Maxsize").fill("77")
    page.get_by_role("button", name="Save").click()

    expect(page.get_by_text("Nothing was changed.")).to_be_visible()
    workers = page.get_by_label("Workers per process")
    expect(workers).to_have_value("5000")
    expect(workers).to_have_attribute("aria-invalid", "true")
    expect(workers).to_have_accessible_description(re.compile("It must be a whole number from 1 to 1000"))
    expect(page.get_by_label("Maxsize")).to_have_value("77")
    expect(region(page, "numbers")).to_contain_text("0 of 100")


def test_what_a_person_types_outlives_a_refresh(paused: Page, visitor: Visitor) -> None:
    page = visitor.open("about:blank", user="admin")
    page.clock.install()
    page.goto(QUEUE)
    page.get_by_label("Maxsize").fill("77")

    post(paused, "/checkout/")
    refresh(page)

    expect(region(page, "numbers")).to_contain_text("3 of 100")
    expect(page.get_by_label("Maxsize")).to_have_value("77")
    expect(page.get_by_label("Maxsize")).to_be_focused()


def test_the_list_is_filtered_by_status_queue_and_task(failed: str, visitor: Visitor) -> None:
    page = visitor.open(JOBS, user="admin")
    rows = page.locator("#result_list tbody tr")
    expect(rows).to_have_count(3)
    filters = page.locator("#changelist-filter")

    filters.get_by_role("link", name="failed").click()
    expect(rows).to_have_count(1)
    expect(rows).to_contain_text("charge_payment")

    filters.get_by_role("link", name="successful").click()
    expect(rows).to_have_count(2)
    filters.get_by_role("link", name="project.shop.tasks.send_receipt").click()
    expect(rows).to_have_count(1)
    filters.get_by_role("link", name="default").click()
    expect(rows).to_have_count(1)


def test_the_list_fits_its_place_but_for_the_last_columns(failed: str, visitor: Visitor) -> None:
    page = visitor.open(JOBS, user="admin")
    place = page.locator(".results").bounding_box()
    last = page.locator("td.field-duration").first.bounding_box()
    assert place is not None
    assert last is not None
    assert last["x"] + last["width"] <= place["x"] + place["width"]


def test_arguments_results_and_errors_are_shown_and_never_run(failed: str, visitor: Visitor) -> None:
    page = visitor.open(OVERVIEW, user="admin")
    expect(region(page, "failures")).to_contain_text(failed)
    assert page.evaluate("window.hit") is None

    region(page, "failures").get_by_role("link").click()
    expect(page.get_by_role("heading", name="Error")).to_be_visible()
    blocks = page.locator("pre")
    expect(blocks.nth(0)).to_contain_text("<img src=x onerror=")
    expect(blocks.nth(1)).to_contain_text("Traceback (most recent call last)")
    expect(blocks.nth(1)).to_contain_text(f"CardDeclined: the bank declined the card of order {failed}")
    expect(page.locator(".jobify-timeline li").last).to_contain_text("failed")
    expect(page.locator("input:visible:not(#nav-filter), textarea, select")).to_have_count(0)
    assert page.evaluate("window.hit") is None
    assert page.locator("#content img").count() == 0


def test_a_failed_job_is_retried_from_its_page(failed: str, visitor: Visitor) -> None:
    page = visitor.open(OVERVIEW, user="admin")
    region(page, "failures").get_by_role("link").click()
    page.get_by_role("button", name="Retry").click()

    expect(page.get_by_text("1 retried.")).to_be_visible()
    expect(page.locator(".jobify-timeline")).to_contain_text("attempt 1")


def test_without_permission_nothing_is_shown(visitor: Visitor) -> None:
    page = visitor.open("/admin/", user="nobody")
    expect(page.locator("body")).to_contain_text("You don’t have permission to view or edit anything.")

    for path in (OVERVIEW, QUEUE, JOBS):
        page.goto(path)
        expect(page.locator("body")).to_contain_text("403 Forbidden")
    visitor.faults = [fault for fault in visitor.faults if "403" not in fault]  # Chromium tells each refusal


def test_who_may_only_look_finds_nothing_to_press_and_no_payload(failed: str, visitor: Visitor) -> None:
    page = visitor.open(QUEUE, user="viewer")
    expect(region(page, "numbers")).to_contain_text("of 4 busy")
    expect(page.locator("#content form")).to_have_count(0)
    refused = page.request.post(f"{QUEUE}pause/", headers={"X-CSRFToken": "none"})
    assert refused.status == 403

    page.goto(OVERVIEW)
    region(page, "failures").get_by_role("link").click()
    expect(page.get_by_text("hidden: needs permission")).to_have_count(2)
    expect(page.locator("#content form")).to_have_count(0)
    assert "onerror" not in page.content()


def test_without_a_script_the_pages_are_complete(paused: Page, visitor: Visitor) -> None:
    page = visitor.open(OVERVIEW, user="admin", java_script_enabled=False)
    expect(region(page, "queues")).to_contain_text("0 of 100")

    post(paused, "/checkout/")
    page.get_by_role("link", name="Refresh").click()
    expect(region(page, "queues")).to_contain_text("3 of 100")

    page.get_by_role("link", name="default").click()
    page.get_by_role("button", name="Resume").click()
    expect(page.get_by_text("Queue default is resumed.")).to_be_visible()
    page.get_by_label("Maxsize").fill("50")
    page.get_by_role("button", name="Save").click()
    expect(region(page, "numbers")).to_contain_text("maxsize 50 (settings: 100)")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_is_readable(failed: str, shop: Page, visitor: Visitor, scheme: str) -> None:
    post(shop, "/pause/")
    post(shop, "/tune/", maxsize="3")
    post(shop, "/checkout/")
    page = visitor.open(OVERVIEW, user="admin", color_scheme=scheme)
    assert faint(page, "#content") == []

    page.get_by_role("link", name="default", exact=True).click()
    page.get_by_label("Maxsize").fill("0")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("Nothing was changed.")).to_be_visible()
    assert faint(page, "#content") == []

    page.goto(OVERVIEW)
    region(page, "failures").get_by_role("link").click()
    expect(page.get_by_role("heading", name="Error")).to_be_visible()
    assert faint(page, "#content") == []


def test_a_phone_shows_every_page_without_scrolling_sideways(failed: str, visitor: Visitor) -> None:
    page = visitor.open(OVERVIEW, user="admin", viewport=PHONE)
    assert cut_off(page) == 0
    address = region(page, "failures").get_by_role("link").get_attribute("href")
    for path in (QUEUE, JOBS, address):
        assert path is not None
        page.goto(path)
        assert cut_off(page) == 0
