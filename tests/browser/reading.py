"""What a person could not read or reach on a page, as JavaScript that a page evaluates."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Page

FAINT = """(place) => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const channels = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    const [red, green, blue, alpha] = canvas.getImageData(0, 0, 1, 1).data;
    return [red, green, blue, alpha / 255];
  };
  const over = ([r, g, b, alpha], below) => [r, g, b].map((c, i) => c * alpha + below[i] * (1 - alpha));
  const ground = (element) => {
    if (!element) return [255, 255, 255];
    const colour = channels(getComputedStyle(element).backgroundColor);
    return colour[3] === 1 ? colour.slice(0, 3) : over(colour, ground(element.parentElement));
  };
  const light = (colour) => {
    const linear = (c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    const [r, g, b] = colour.map((c) => linear(c / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const faint = new Set();
  const texts = document.createTreeWalker(document.querySelector(place), NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const text = texts.currentNode;
    const element = text.parentElement;
    const style = getComputedStyle(element);
    if (!text.data.trim() || !element.checkVisibility() || style.fontSize === "0px") continue;
    const below = ground(element);
    const [one, other] = [light(over(channels(style.color), below)), light(below)];
    const contrast = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
    if (contrast < (large ? 3 : 4.5)) faint.add(`${contrast.toFixed(2)} ${text.data.trim()}`);
  }
  return [...faint];
}"""

NAMELESS = """(place) => [...document.querySelector(place).querySelectorAll("input, select, button, meter")]
  .filter((control) => control.type !== "hidden" && control.checkVisibility())
  .filter((control) => !(control.labels?.length || control.textContent.trim() || control.ariaLabel
    || (control.type === "submit" && control.value)))
  .map((control) => control.outerHTML)"""

CUT_OFF = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


def faint(page: Page, place: str = "body") -> list[str]:
    """Return the texts whose contrast is below WCAG's AA: 4.5, or 3 for large ones."""
    return page.evaluate(FAINT, place)  # type: ignore[no-any-return]


def nameless(page: Page, place: str = "body") -> list[str]:
    """Return the controls and meters that a screen reader could not name."""
    return page.evaluate(NAMELESS, place)  # type: ignore[no-any-return]


def cut_off(page: Page) -> int:
    """Return how many pixels of the page lie outside the window, to the right."""
    return page.evaluate(CUT_OFF)  # type: ignore[no-any-return]
