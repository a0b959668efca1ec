"""A line chart as SVG, without a library: readable in light and dark, and with its figures in words.

matplotlib would bring 40 MB of packages for lines and two axes, and its pictures have one ground.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT = 760, 400
LEFT, RIGHT, TOP, BOTTOM = 76, 190, 56, 62
COLOURS = 5

STYLE = """
    .ground { fill: #ffffff; }
    .words { fill: #1f2328; font: 13px system-ui, sans-serif; }
    .title { font-size: 16px; font-weight: 600; }
    .tick { fill: #59636e; font-size: 12px; }
    .grid { stroke: #d8dee4; stroke-width: 1; }
    .axis { fill: none; stroke: #59636e; stroke-width: 1; }
    .line { fill: none; stroke-width: 2; }
    .s0 { stroke: #0969da; } .s1 { stroke: #bc4c00; } .s2 { stroke: #1a7f37; } .s3 { stroke: #8250df; }
    .s4 { stroke: #bf3989; }
    .f0 { fill: #0969da; } .f1 { fill: #bc4c00; } .f2 { fill: #1a7f37; } .f3 { fill: #8250df; }
    .f4 { fill: #bf3989; }
    @media (prefers-color-scheme: dark) {
      .ground { fill: #0d1117; }
      .words { fill: #e6edf3; }
      .tick { fill: #9198a1; }
      .grid { stroke: #30363d; }
      .axis { stroke: #9198a1; }
      .s0 { stroke: #4493f8; } .s1 { stroke: #f0883e; } .s2 { stroke: #3fb950; } .s3 { stroke: #ab7df8; }
      .s4 { stroke: #f778ba; }
      .f0 { fill: #4493f8; } .f1 { fill: #f0883e; } .f2 { fill: #3fb950; } .f3 { fill: #ab7df8; }
      .f4 { fill: #f778ba; }
    }"""

Lines = Mapping[str, Sequence[tuple[float, float]]]


def chart(title: str, x: str, y: str, lines: Lines, *, log_y: bool = False, note: str = "") -> str:
    """Return a chart of at most five lines; x is logarithmic, y from 0 or logarithmic.

    Args:
        title: above it.
        x: what the axis below shows, with its unit.
        y: what the axis on the left shows, with its unit.
        lines: the points of each, by the name that stands at its end.
        log_y: whether y is logarithmic.
        note: where and when it was measured.
    """
    assert 0 < len(lines) <= COLOURS
    places = sorted({place for points in lines.values() for place, _ in points})
    across = _Scale(places[0], places[-1], LEFT, WIDTH - RIGHT, log=True)
    values = [value for points in lines.values() for _, value in points]
    up = _y_scale(values, log_y)
    parts = [f'<rect class="ground" width="{WIDTH}" height="{HEIGHT}" rx="6"/>']
    for value in up.ticks():
        height = up(value)
        parts.append(f'<path class="grid" d="M{LEFT} {height:.1f}H{WIDTH - RIGHT}"/>')
        parts.append(_text(LEFT - 8, height + 4, number(value), "tick", "end"))
    for place in places:
        parts.append(f'<path class="axis" d="M{across(place):.1f} {HEIGHT - BOTTOM}v5"/>')
        parts.append(_text(across(place), HEIGHT - BOTTOM + 20, number(place), "tick", "middle"))
    parts.append(f'<path class="axis" d="M{LEFT} {TOP}V{HEIGHT - BOTTOM}H{WIDTH - RIGHT}"/>')
    for index, points in enumerate(lines.values()):
        parts += _line(index, [(across(place), up(value)) for place, value in points])
    ends = _apart([up(points[-1][1]) + 4 for points in lines.values()])
    for index, ((name, points), height) in enumerate(zip(lines.items(), ends, strict=True)):
        label = f"{name}: {number(points[-1][1])}"
        parts.append(_text(WIDTH - RIGHT + 10, height, label, f"f{index}", "start"))
    parts.append(_text(LEFT, 26, title, "title", "start"))
    parts.append(_text(LEFT, 45, y, "tick", "start"))
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 22, x, "", "middle"))
    if note:
        parts.append(_text(LEFT, HEIGHT - 6, note, "tick", "start"))
    body = "\n  ".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-labelledby="title description">\n'
        f'  <title id="title">{escape(title)}</title>\n'
        f'  <desc id="description">{escape(words(x, y, lines))}</desc>\n'
        f"  <style>{STYLE}\n  </style>\n  {body}\n</svg>\n"
    )


def words(x: str, y: str, lines: Lines) -> str:
    """Return the figures as sentences, for who cannot see the lines."""
    told = (
        f"{name}: " + ", ".join(f"{number(value)} at {number(place)}" for place, value in points) + "."
        for name, points in lines.items()
    )
    return f"{y} by {x}. {' '.join(told)}"


def number(value: float) -> str:
    """Return a number as an axis says it: three figures, and commas."""
    if value == 0:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    text = f"{round(value, digits):,.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


class _Scale:
    """Where a value stands in the picture."""

    def __init__(self, low: float, high: float, start: float, end: float, *, log: bool) -> None:
        self.log = log
        self.low, self.high = low, high
        self._start, self._length = start, end - start

    def __call__(self, value: float) -> float:
        low, high, at = self.low, self.high, value
        if self.log:
            low, high, at = (math.log10(max(one, 1e-9)) for one in (low, high, value))
        return self._start + self._length * ((at - low) / (high - low) if high > low else 0.5)

    def ticks(self) -> list[float]:
        """Return the values that are worth a line: tens, or steps of 1, 2 or 5."""
        if self.log:
            powers = range(round(math.log10(self.low)), round(math.log10(self.high)) + 1)
            return [10.0**power for power in powers]
        step = _step(self.high - self.low)
        return [self.low + step * count for count in range(int((self.high - self.low) / step + 1e-9) + 1)]


def _y_scale(values: Sequence[float], log: bool) -> _Scale:
    if log:
        least = min(value for value in values if value > 0)
        low, high = 10.0 ** math.floor(math.log10(least)), 10.0 ** math.ceil(math.log10(max(values)))
        return _Scale(low, max(high, 10 * low), HEIGHT - BOTTOM, TOP, log=True)
    step = _step(max(values) or 1.0)
    return _Scale(0.0, step * math.ceil((max(values) or 1.0) / step), HEIGHT - BOTTOM, TOP, log=False)


def _step(length: float) -> float:
    rough = length / 5
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)


def _line(index: int, points: Sequence[tuple[float, float]]) -> list[str]:
    way = "L".join(f"{across:.1f} {up:.1f}" for across, up in points)
    dots = [f'<circle class="f{index}" cx="{across:.1f}" cy="{up:.1f}" r="3.5"/>' for across, up in points]
    return [f'<path class="line s{index}" d="M{way}"/>', *dots]


def _apart(heights: Sequence[float], least: float = 17.0) -> list[float]:
    """Return the heights of labels, moved so that none covers another."""
    placed: dict[int, float] = {}
    last = -math.inf
    for index in sorted(range(len(heights)), key=heights.__getitem__):
        last = placed[index] = max(heights[index], last + least)
    over = max(0.0, last - (HEIGHT - BOTTOM + 4))
    return [placed[index] - over for index in range(len(heights))]


def _text(across: float, up: float, text: str, kind: str, anchor: str) -> str:
    kinds = f"words {kind}".strip()
    return f'<text class="{kinds}" x="{across:.1f}" y="{up:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
