"""The demo's page, as a person sees it. Nobody shops unless the test sends them."""

from __future__ import annotations

import re
import signal
from typing import TYPE_CHECKING

import pytest

from tests.browser.reading import cut_off, faint, nameless
from tests.browser.site import PHONE, Site, Visitor, expect, post

if TYPE_CHECKING:
    from playwright.sync_api import Page, Route

WATCH_THE_DEPTH = """() => {
  window.deepest = 0;
  const depth = document.getElementById("depth");
  const look = () => { window.deepest = Math.max(window.deepest, Number(depth.textContent)); };
  new MutationObserver(look).observe(depth, { childList: true, characterData: true, subtree: true });
}"""


def choose(page: Page, label: str, value: int) -> None:
    """Type a value, as a person does, and leave the field."""
    page.get_by_label(label, exact=False).fill(str(value))
    page.keyboard.press("Tab")


def look_again(page: Page, times: int = 3) -> None:
    """Wait until the page has read the queue so many times more."""
    for _ in range(times):
        with page.expect_response("**/state/"):
            pass


def test_an_idle_queue_is_shown_as_one(visitor: Visitor) -> None:
    page = visitor.open("/")

    expect(page).to_have_title("Jobify for Django: a queue that pushes back")
    expect(page.locator("#pill")).to_have_text("running")
    expect(page.locator("#sentence")).to_have_text("Nothing waits: the workers keep up.")
    expect(page.locator("#depth")).to_have_text("0")
    expect(page.locator("#slots i")).to_have_text(["idle"] * 4)
    assert nameless(page) == []


def test_a_crowd_fills_the_queue_to_its_bound_and_producers_wait(visitor: Visitor) -> None:
    page = visitor.open("/")
    choose(page, "Workers in each process", 1)
    expect(page.locator("#slots i")).to_have_count(1)
    page.evaluate(WATCH_THE_DEPTH)

    page.get_by_role("button", name="50 checkouts").click()
    expect(page.locator("#pill")).to_have_text("full")
    expect(page.locator("#sentence")).to_contain_text(re.compile(r"Full: \d+ checkouts? waits? for room"))
    expect(page.locator("#pushing")).not_to_have_text("0")
    told = re.compile(r"critical jobs overtake: .*, while a background one has waited \d")
    expect(page.locator("#overtaking")).to_have_text(told)

    choose(page, "Workers in each process", 32)
    expect(page.locator("#outcome")).to_have_text(re.compile(r"Of 50 customers \d+ got through"))
    expect(page.locator("#depth")).to_have_text("0")
    assert 90 <= page.evaluate("window.deepest") <= 100


def test_critical_jobs_overtake_those_that_came_before(visitor: Visitor) -> None:
    page = visitor.open("/")
    page.get_by_role("button", name="Pause").click()
    expect(page.locator("#pill")).to_have_text("paused")
    choose(page, "Workers in each process", 1)
    expect(page.locator("#slots i")).to_have_count(1)
    for number in range(4):
        post(page, "/visit/", page=f"/{number}/")
    post(page, "/checkout/", order="A1")
    expect(page.locator("#depth")).to_have_text("7")

    page.get_by_role("button", name="Resume").click()
    started = page.locator("#strip i")
    expect(started).to_have_count(7)

    tasks = [bar.get_attribute("title").partition(",")[0] for bar in started.all()]  # type: ignore[union-attr]
    assert tasks == ["charge_payment", "send_receipt", *["track_visit"] * 5]

    page.get_by_text("fifo", exact=True).click()
    expect(page.locator("#overtaking")).to_contain_text("In fifo order nobody overtakes")


def test_more_workers_work_within_seconds(visitor: Visitor) -> None:
    page = visitor.open("/")
    page.get_by_role("button", name="200 checkouts").click()
    expect(page.locator("#busy")).to_have_text("4")

    for _ in range(3):
        page.get_by_role("button", name="More workers").click()

    expect(page.locator("#size")).to_have_text("7")
    expect(page.locator("#processes")).to_have_text("1 process × 7 workers")
    page.get_by_role("button", name="200 checkouts").click()  # a slow machine may have done the first
    expect(page.locator("#busy")).to_have_text(re.compile("[567]"))  # a look may fall between two jobs
    expect(page.locator("#tuned")).to_contain_text("The settings say 4 workers")


def test_quick_clicks_reach_the_server_in_their_order(visitor: Visitor) -> None:
    page = visitor.open("/")
    held: list[Route] = []
    page.route("**/tune/", lambda route: held.append(route))
    for _ in range(3):
        page.get_by_role("button", name="More workers").click()

    for number in (1, 2, 3):
        look_again(page)
        assert len(held) == number  # the next one goes when the one before it has been answered
        with page.expect_response("**/tune/"):
            held[-1].continue_()
    expect(page.locator("#size")).to_have_text("7")


def test_a_lower_bound_holds_from_then_on(visitor: Visitor) -> None:
    page = visitor.open("/")
    choose(page, "Maxsize", 20)
    expect(page.locator("#maxsize")).to_have_text("20")
    choose(page, "Workers in each process", 1)  # four nearly keep up with such a crowd
    expect(page.locator("#slots i")).to_have_count(1)
    page.evaluate(WATCH_THE_DEPTH)

    page.get_by_role("button", name="50 checkouts").click()
    expect(page.locator("#pill")).to_have_text("full")
    choose(page, "Workers in each process", 32)
    expect(page.locator("#outcome")).to_contain_text("Of 50 customers")
    assert 15 <= page.evaluate("window.deepest") <= 20

    page.get_by_role("button", name="Reset").click()
    expect(page.locator("#maxsize")).to_have_text("100")
    expect(page.locator("#tuned")).to_have_text("As the settings say.")


def test_a_value_out_of_range_is_refused_and_said(visitor: Visitor) -> None:
    page = visitor.open("/")
    page.locator("#workers").evaluate("(input) => input.removeAttribute('max')")
    choose(page, "Workers in each process", 65)

    expect(page.locator("#outcome")).to_contain_text("less than or equal to 64")
    expect(page.locator("#size")).to_have_text("4")
    visitor.faults = [fault for fault in visitor.faults if "400" not in fault]  # Chromium tells each refusal


def test_pause_starts_nothing_and_resume_goes_on(visitor: Visitor) -> None:
    page = visitor.open("/")
    page.get_by_role("button", name="Pause").click()
    expect(page.locator("#pill")).to_have_text("paused")

    post(page, "/checkout/")
    expect(page.locator("#depth")).to_have_text("3")
    look_again(page)
    expect(page.locator("#depth")).to_have_text("3")
    expect(page.locator("#busy")).to_have_text("0")
    expect(page.locator("#sentence")).to_contain_text("Paused: nothing starts.")
    expect(page.locator("#overtaking")).to_have_text("Paused: no job starts, whatever its band.")

    page.get_by_role("button", name="Resume").click()
    expect(page.locator("#depth")).to_have_text("0")
    expect(page.locator("#strip i")).to_have_count(3)


def test_the_keyboard_reaches_every_control_in_order_and_is_not_thrown_back(visitor: Visitor) -> None:
    page = visitor.open("/")
    expect(page.locator("#pill")).to_have_text("running")
    reached = []
    for _ in range(13):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.ariaLabel ?? document.activeElement.innerText"))
        if reached[-1] == "Pause":
            break
    assert [" ".join(name.split()) for name in reached] == [
        "Admin",
        *["50 checkouts", "200 checkouts", "1000 checkouts"],
        *["Fewer workers", "", "More workers", "Lower the bound", "", "Raise the bound"],
        "",  # the order that is chosen
        "Pause",
    ]

    page.keyboard.press("Enter")
    resume = page.get_by_role("button", name="Resume")
    expect(resume).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Pause")).to_be_focused()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_is_readable(visitor: Visitor, scheme: str) -> None:
    page = visitor.open("/", color_scheme=scheme)
    page.get_by_role("button", name="200 checkouts").click()
    expect(page.locator("#pill")).to_have_text("full")
    assert faint(page) == []

    page.get_by_role("button", name="Pause").click()
    expect(page.locator("#pill")).to_have_text("paused")
    assert faint(page) == []


def test_a_phone_shows_all_of_it_without_scrolling_sideways(visitor: Visitor) -> None:
    page = visitor.open("/", viewport=PHONE)
    choose(page, "Workers in each process", 64)
    expect(page.locator("#slots i")).to_have_count(64)
    page.get_by_role("button", name="1000 checkouts").click()
    expect(page.locator("#busy")).not_to_have_text("0")

    assert cut_off(page) == 0
    for control in page.locator("main button:visible").all():
        box = control.bounding_box()
        assert box is not None
        assert 0 <= box["x"] <= box["x"] + box["width"] <= PHONE["width"]


def test_a_server_that_went_away_is_said(site: Site, visitor: Visitor) -> None:
    page = visitor.open("/")
    expect(page.locator("#pill")).to_have_text("running")

    site.end(signal.SIGTERM)

    expect(page.locator("#pill")).to_have_text("no connection")
    visitor.faults.clear()  # Chromium tells each failed request


def test_without_a_script_the_controls_work_and_the_numbers_are_those_of_the_moment(visitor: Visitor) -> None:
    page = visitor.open("/", java_script_enabled=False)
    expect(page.locator("noscript .notice")).to_be_visible()

    page.get_by_role("button", name="Pause").click()
    post(page, "/checkout/")
    page.get_by_label("Workers in each process").fill("9")
    page.get_by_role("button", name="Apply").click()

    expect(page.locator("#depth")).to_have_text("3")
    expect(page.get_by_label("Workers in each process")).to_have_value("9")
    expect(page.locator("#sentence")).to_have_text("Paused: nothing starts.")
    expect(page.locator("#pill")).to_have_text("paused")
    expect(page.get_by_text("busy")).to_be_hidden()  # only the script could count them
