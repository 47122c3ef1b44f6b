"""Small line charts as SVG, readable on light and dark pages without a script. Pure; knows points, not runs.

Colours are Jupyter's CSS variables with fallbacks that are legible on white and on near black.
"""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

__all__ = ["COLOURS", "Series", "chart", "picture"]

#: Jupyter's variable, then what is used where there is none (nbconvert, GitHub).
COLOURS = (
    "var(--jp-brand-color1,#2a7fd4)",
    "var(--jp-warn-color1,#d9822b)",
    "var(--jp-success-color1,#3d9a50)",
    "var(--jp-error-color1,#d6493e)",
    "var(--jp-info-color1,#1499a8)",
    "var(--jp-accent-color1,#8e63ce)",
)
INK = "var(--jp-ui-font-color2,#808080)"
RULE = "var(--jp-border-color2,#9e9e9e80)"
#: Colours of marks, by place in COLOURS.
MARKED = {"429": 1, "OOM": 3, "recovered": 2}
MOST_POINTS = 90
WIDTH, HEIGHT = 280, 118
LEFT, RIGHT, TOP, BOTTOM = 6, 52, 22, 16

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Series:
    """A line: its name and its (x, y) points in order of x."""

    name: str
    points: Sequence[Point]


def chart(
    title: str,
    series: Sequence[Series],
    says: Callable[[float], str],
    x_says: Callable[[float], str],
    marks: Mapping[str, Sequence[float]] | None = None,
) -> str:
    """An SVG of lines from 0 up. `says` and `x_says` write a value of y and x; `marks` are xs by name. `""` where there is nothing to draw."""
    drawn = [Series(s.name, thin(s.points)) for s in series if s.points]
    if not drawn:
        return ""
    xs = [x for s in drawn for x, _ in s.points]
    top = max(0.0, *(y for s in drawn for _, y in s.points)) or 1.0
    low, high = min(xs), max(xs)

    def place(point: Point) -> str:
        x, y = point
        across = (x - low) / (high - low) if high > low else 0.5
        return f"{LEFT + across * (WIDTH - LEFT - RIGHT):.1f},{HEIGHT - BOTTOM - max(y, 0.0) / top * (HEIGHT - TOP - BOTTOM):.1f}"

    last = ", ".join(f"{s.name} {says(s.points[-1][1])}" for s in drawn)
    parts = [_open(title, last), _frame(title, says(top), x_says(low), x_says(high))]
    ends = _spread([float(place(s.points[-1]).split(",")[1]) for s in drawn])
    for i, (line, end) in enumerate(zip(drawn, ends, strict=True)):
        parts += _line(line, [place(p) for p in line.points], COLOURS[i % len(COLOURS)], end)
    parts += [
        _marks(name, {round(float(place((x, top)).split(",")[0])) for x in at if low <= x <= high}) for name, at in (marks or {}).items()
    ]
    return "".join([*parts, _named(marks or {}), "</svg>"])


def picture(drawing: str) -> str:
    """A drawing as `<img>` with its data: what GitHub, nbviewer and a notebook that JupyterLab does not trust show, which all drop inline SVG."""
    if not drawing:
        return ""
    said, width, height = (drawing.partition(f' {name}="')[2].partition('"')[0] for name in ("aria-label", "width", "height"))
    plain = re.sub(
        r' style="(?:fill|stroke):var[^"]*"', "", drawing
    )  # a picture knows no variables of the page; plain colours stand beside
    data = base64.b64encode(plain.encode()).decode("ascii")
    size = f'width="{width}" height="{height}"'
    return f'<img class="holynb-chart" alt="{said}" title="{said}" {size} src="data:image/svg+xml;base64,{data}">'


def thin(points: Sequence[Point], most: int = MOST_POINTS) -> list[Point]:
    """At most `most` of the points, the first, the last and the highest of each stretch."""
    if len(points) <= most:
        return list(points)
    size = (len(points) - 2) / (most - 2)
    inner = points[1:-1]
    stretches = [inner[int(i * size) : max(int(i * size) + 1, int((i + 1) * size))] for i in range(most - 2)]
    return [points[0], *(max(s, key=lambda p: p[1]) for s in stretches if s), points[-1]]


def _open(title: str, last: str) -> str:
    said = html.escape(f"{title}: {last}")
    return (
        f'<svg class="holynb-chart" role="img" aria-label="{said}" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        f'xmlns="http://www.w3.org/2000/svg" font-family="system-ui,sans-serif" font-size="10"><title>{said}</title>'
    )


def _frame(title: str, top: str, first: str, last: str) -> str:
    right, floor = WIDTH - RIGHT, HEIGHT - BOTTOM
    return (
        f'<g style="fill:{INK}" fill="#808080"><text x="{LEFT}" y="12" font-weight="600">{html.escape(title)}</text>'
        f'<text x="{right}" y="12" text-anchor="end">max {html.escape(top)}</text>'
        f'<text x="{LEFT}" y="{HEIGHT - 4}">{html.escape(first)}</text>'
        f'<text x="{right}" y="{HEIGHT - 4}" text-anchor="end">{html.escape(last)}</text></g>'
        f'<path d="M{LEFT} {TOP}H{right}M{LEFT} {floor}H{right}" style="stroke:{RULE}" stroke="#9e9e9e" stroke-width=".6" fill="none"/>'
    )


def _line(line: Series, places: Sequence[str], colour: str, label_y: float) -> list[str]:
    plain = colour.partition(",")[2].rstrip(")")
    if len(places) == 1:
        x, y = places[0].split(",")
        mark = f'<circle cx="{x}" cy="{y}" r="2" style="fill:{colour}" fill="{plain}"/>'
    else:
        mark = (
            f'<polyline points="{" ".join(places)}" fill="none" style="stroke:{colour}" stroke="{plain}" stroke-width="1.6" '
            'stroke-linejoin="round"/>'
        )
    name = f'<text x="{WIDTH - RIGHT + 4}" y="{label_y + 3:.1f}" style="fill:{colour}" fill="{plain}">{html.escape(line.name)}</text>'
    return [mark, name]


def _marks(name: str, at: set[int]) -> str:
    """Small triangles, each on a line of its own from top to bottom. Those in the same place are one."""
    colour = COLOURS[MARKED.get(name, 0)]
    shape = "".join(f"M{x - 3.5} {TOP - 4}h7l-3.5 6.5zM{x} {TOP}V{HEIGHT - BOTTOM}" for x in sorted(at))
    plain = colour.partition(",")[2].rstrip(")")
    return (
        f'<path d="{shape}" style="fill:{colour};stroke:{colour}" fill="{plain}" stroke="{plain}" stroke-width=".6" stroke-opacity=".5"/>'
    )


def _named(marks: Mapping[str, Sequence[float]]) -> str:
    """What the marks are, in their colours, in the middle of the line below."""
    if not any(marks.values()):
        return ""
    words = []
    for name, at in marks.items():
        colour = COLOURS[MARKED.get(name, 0)]
        said = html.escape(f"▾ {name}" + (f" ×{len(at)}" if len(at) > 1 else ""))
        words.append(f'<tspan dx="4" style="fill:{colour}" fill="{colour.partition(",")[2].rstrip(")")}">{said}</tspan>')
    return f'<text x="{(LEFT + WIDTH - RIGHT) / 2:.0f}" y="{HEIGHT - 4}" text-anchor="middle">{"".join(words)}</text>'


def _spread(ends: Sequence[float], gap: float = 11.0) -> list[float]:
    """The heights of the labels, moved apart so that none lies on another, kept inside the chart."""
    order = sorted(range(len(ends)), key=lambda i: ends[i])
    out = list(ends)
    for before, here in pairwise(order):
        out[here] = max(out[here], out[before] + gap)
    over = max(0.0, max(out) - (HEIGHT - BOTTOM + 2))
    return [y - over for y in out]
