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

from holynb.translation import brief
from holynb.ui.output.glosses import tip

__all__ = ["COLOURS", "Series", "chart", "picture"]

#: Jupyter's variable, and the fallback (nbconvert, GitHub).
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
#: Mark → its index in COLOURS.
MARK_COLOURS = {"429": 1, "OOM": 3, "recovered": 2}
MAX_POINTS = 90
#: Pixels, as the margins below.
WIDTH, HEIGHT = 280, 118
LEFT, RIGHT, TOP, BOTTOM = 6, 52, 22, 16
MAX_NAME_CHARS = 9

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Series:
    """A line: its name and its (x, y) points in order of x."""

    name: str
    points: Sequence[Point]


def chart(
    title: str,
    series: Sequence[Series],
    format_y: Callable[[float], str],
    format_x: Callable[[float], str],
    marks: Mapping[str, Sequence[float]] | None = None,
) -> str:
    """An SVG of lines from 0 up. `marks` are xs by name. `""` where there is nothing to draw."""
    lines = [Series(s.name, thin(s.points)) for s in series if s.points]
    if not lines:
        return ""
    xs = [x for s in lines for x, _ in s.points]
    top = max(0.0, *(y for s in lines for _, y in s.points)) or 1.0
    low, high = min(xs), max(xs)

    def place(point: Point) -> str:
        x, y = point
        across = (x - low) / (high - low) if high > low else 0.5
        return f"{LEFT + across * (WIDTH - LEFT - RIGHT):.1f},{HEIGHT - BOTTOM - max(y, 0.0) / top * (HEIGHT - TOP - BOTTOM):.1f}"

    last = ", ".join(f"{s.name} {format_y(s.points[-1][1])}" for s in lines)
    parts = [_open_svg(title, last), _axes(title, format_y(top), format_x(low), format_x(high))]
    label_ys = _spread([float(place(s.points[-1]).split(",")[1]) for s in lines])
    labels = _short([s.name for s in lines])
    for i, (line, label, label_y) in enumerate(zip(lines, labels, label_ys, strict=True)):
        parts += _line(label, [place(p) for p in line.points], COLOURS[i % len(COLOURS)], label_y)
    parts += [
        _marks(name, {round(float(place((x, top)).split(",")[0])) for x in at if low <= x <= high}) for name, at in (marks or {}).items()
    ]
    return "".join([*parts, _mark_legend(marks or {}), "</svg>"])


def picture(svg: str) -> str:
    """An SVG as `<img>` with a data URL: GitHub, nbviewer and a notebook that JupyterLab does not trust drop inline SVG."""
    if not svg:
        return ""
    label, width, height = (svg.partition(f' {name}="')[2].partition('"')[0] for name in ("aria-label", "width", "height"))
    # An image does not see the page's variables; plain colours are in other attributes.
    plain = re.sub(r' style="(?:fill|stroke):var[^"]*"', "", svg)
    data = base64.b64encode(plain.encode()).decode("ascii")
    size = f'width="{width}" height="{height}"'
    title = "&#10;".join(filter(None, [label, html.escape(tip(label)).replace("\n", "&#10;")]))
    return f'<img class="holynb-chart" alt="{label}" title="{title}" {size} src="data:image/svg+xml;base64,{data}">'


def thin(points: Sequence[Point], max_points: int = MAX_POINTS) -> list[Point]:
    """At most `max_points` of the points: the first, the last, and the highest of each stretch between them."""
    if len(points) <= max_points:
        return list(points)
    size = (len(points) - 2) / (max_points - 2)
    inner = points[1:-1]
    stretches = [inner[int(i * size) : max(int(i * size) + 1, int((i + 1) * size))] for i in range(max_points - 2)]
    return [points[0], *(max(s, key=lambda p: p[1]) for s in stretches if s), points[-1]]


def _open_svg(title: str, last: str) -> str:
    label = html.escape(f"{title}: {last}")
    return (
        f'<svg class="holynb-chart" role="img" aria-label="{label}" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        f'xmlns="http://www.w3.org/2000/svg" font-family="system-ui,sans-serif" font-size="10"><title>{label}</title>'
    )


def _axes(title: str, top: str, first: str, last: str) -> str:
    right, floor = WIDTH - RIGHT, HEIGHT - BOTTOM
    return (
        f'<g style="fill:{INK}" fill="#808080"><text x="{LEFT}" y="12" font-weight="600">{html.escape(title)}</text>'
        f'<text x="{right}" y="12" text-anchor="end">{html.escape(brief(f"max {top}"))}</text>'
        f'<text x="{LEFT}" y="{HEIGHT - 4}">{html.escape(first)}</text>'
        f'<text x="{right}" y="{HEIGHT - 4}" text-anchor="end">{html.escape(last)}</text></g>'
        f'<path d="M{LEFT} {TOP}H{right}M{LEFT} {floor}H{right}" style="stroke:{RULE}" stroke="#9e9e9e" stroke-width=".6" fill="none"/>'
    )


def _line(label: str, places: Sequence[str], colour: str, label_y: float) -> list[str]:
    plain = colour.partition(",")[2].rstrip(")")
    if len(places) == 1:
        x, y = places[0].split(",")
        mark = f'<circle cx="{x}" cy="{y}" r="2" style="fill:{colour}" fill="{plain}"/>'
    else:
        mark = (
            f'<polyline points="{" ".join(places)}" fill="none" style="stroke:{colour}" stroke="{plain}" stroke-width="1.6" '
            'stroke-linejoin="round"/>'
        )
    name = f'<text x="{WIDTH - RIGHT + 4}" y="{label_y + 3:.1f}" style="fill:{colour}" fill="{plain}">{html.escape(label)}</text>'
    return [mark, name]


def _short(names: Sequence[str]) -> list[str]:
    """Names with room beside the chart: of routes the model, where that tells them apart. The picture's label has the whole ones."""
    models = [name.rpartition("/")[2] for name in names]
    shown = models if len(set(models)) == len(names) else names
    return [name if len(name) <= MAX_NAME_CHARS else f"{name[: MAX_NAME_CHARS - 1]}…" for name in shown]


def _marks(name: str, xs: set[int]) -> str:
    """A triangle on a vertical line at each x."""
    colour = COLOURS[MARK_COLOURS.get(name, 0)]
    shape = "".join(f"M{x - 3.5} {TOP - 4}h7l-3.5 6.5zM{x} {TOP}V{HEIGHT - BOTTOM}" for x in sorted(xs))
    plain = colour.partition(",")[2].rstrip(")")
    return (
        f'<path d="{shape}" style="fill:{colour};stroke:{colour}" fill="{plain}" stroke="{plain}" stroke-width=".6" stroke-opacity=".5"/>'
    )


def _mark_legend(marks: Mapping[str, Sequence[float]]) -> str:
    """The names of the marks, in their colours, centred below the x axis."""
    if not any(marks.values()):
        return ""
    words = []
    for name, at in marks.items():
        colour = COLOURS[MARK_COLOURS.get(name, 0)]
        label = html.escape(f"▾ {name}" + (f" ×{len(at)}" if len(at) > 1 else ""))
        words.append(f'<tspan dx="4" style="fill:{colour}" fill="{colour.partition(",")[2].rstrip(")")}">{label}</tspan>')
    return f'<text x="{(LEFT + WIDTH - RIGHT) / 2:.0f}" y="{HEIGHT - 4}" text-anchor="middle">{"".join(words)}</text>'


def _spread(ends: Sequence[float], gap: float = 11.0) -> list[float]:
    """Heights of the labels, moved apart so that none overlap, kept inside the chart."""
    order = sorted(range(len(ends)), key=lambda i: ends[i])
    out = list(ends)
    for before, here in pairwise(order):
        out[here] = max(out[here], out[before] + gap)
    over = max(0.0, max(out) - (HEIGHT - BOTTOM + 2))
    return [y - over for y in out]
