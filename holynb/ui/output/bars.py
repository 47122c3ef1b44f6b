"""Horizontal bars as inline SVG, readable on light and dark pages without a script. Pure; knows names and figures."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from holynb.ui.output.svg import COLOURS, INK
from holynb.ui.output.text import clip

__all__ = ["Bar", "chart"]

#: Pixels: the whole, room for labels and for values, a bar with its gap, room for the title.
WIDTH, LABEL_WIDTH, VALUE_WIDTH, BAR_HEIGHT, TOP = 380, 170, 56, 16, 20
MAX_LABEL_CHARS = 28


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar: its name, its value (None where unknown) and its place in COLOURS."""

    name: str
    value: float | None
    colour: int = 0


def chart(title: str, bars: Sequence[Bar], format_value: Callable[[float], str]) -> str:
    """An SVG of bars from 0, `?` for unknown values. `""` where all are."""
    values = [b.value for b in bars if b.value is not None]
    if not values:
        return ""
    top = max(values) or 1.0
    height = TOP + BAR_HEIGHT * len(bars) + 4
    label = html.escape(f"{title}: " + ", ".join(f"{b.name} {'?' if b.value is None else format_value(b.value)}" for b in bars))
    parts = [
        (
            f'<svg class="holynb-chart" role="img" aria-label="{label}" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
            f'xmlns="http://www.w3.org/2000/svg" font-family="system-ui,sans-serif" font-size="11"><title>{label}</title>'
            f'<text x="2" y="13" font-weight="600" style="fill:{INK}" fill="#808080">{html.escape(title)}</text>'
        )
    ]
    for i, bar in enumerate(bars):
        y = TOP + BAR_HEIGHT * i
        colour = COLOURS[bar.colour % len(COLOURS)]
        length = 0.0 if bar.value is None else max(bar.value, 0.0) / top * (WIDTH - LABEL_WIDTH - VALUE_WIDTH)
        value = "?" if bar.value is None else html.escape(format_value(bar.value))
        ink = f'style="fill:{INK}" fill="#808080"'
        parts.append(
            f'<text x="2" y="{y + 11}" {ink}>{html.escape(clip(bar.name, MAX_LABEL_CHARS))}</text>'
            f'<rect x="{LABEL_WIDTH}" y="{y + 2}" width="{length:.1f}" height="{BAR_HEIGHT - 5}" style="fill:{colour}" '
            f'fill="{colour.partition(",")[2].rstrip(")")}"/>'
            f'<text x="{LABEL_WIDTH + length + 4:.1f}" y="{y + 11}" {ink}>{value}</text>'
        )
    return "".join([*parts, "</svg>"])
