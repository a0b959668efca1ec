"""The pictures of growth: whole, and with their figures in words."""

from __future__ import annotations

from itertools import pairwise
from xml.etree import ElementTree

import pytest

from benchmarks.growth import svg

SVG = "{http://www.w3.org/2000/svg}"
LINES = {"a push": [(1, 0.25), (1000, 0.5)], "a claim & more": [(1, 2.0), (1000, 40.0)]}


@pytest.mark.parametrize("log_y", [False, True])
def test_a_picture_has_its_title_its_axes_and_its_figures_in_words(log_y: bool) -> None:
    root = ElementTree.fromstring(svg.chart("Growth", "rows", "milliseconds", LINES, log_y=log_y))

    assert root.findtext(f"{SVG}title") == "Growth"
    described = root.findtext(f"{SVG}desc")
    assert described == (
        "milliseconds by rows. a push: 0.25 at 1, 0.5 at 1,000. a claim & more: 2 at 1, 40 at 1,000."
    )
    shown = {text.text for text in root.iter(f"{SVG}text")}
    assert {"Growth", "rows", "milliseconds", "a push: 0.5", "a claim & more: 40", "1,000"} <= shown


def test_nothing_stands_outside_the_picture_and_no_label_covers_another() -> None:
    lines = {f"line {number}": [(1, 1.0), (10, 1.0 + number / 1000)] for number in range(5)}
    root = ElementTree.fromstring(svg.chart("Close", "x", "y", lines))

    places = [(float(t.get("x", "")), float(t.get("y", ""))) for t in root.iter(f"{SVG}text")]
    assert all(0 <= x <= svg.WIDTH and 0 <= y <= svg.HEIGHT for x, y in places)
    labels = sorted(y for x, y in places if x > svg.WIDTH - svg.RIGHT + 5)
    assert len(labels) == 5
    assert all(below - above >= 16.9 for above, below in pairwise(labels))


@pytest.mark.parametrize(
    ("value", "said"), [(0, "0"), (0.0123, "0.0123"), (1.5, "1.5"), (999.4, "999"), (1_000_000, "1,000,000")]
)
def test_a_number_has_three_figures(value: float, said: str) -> None:
    assert svg.number(value) == said
