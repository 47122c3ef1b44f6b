"""Horizontal bars as inline SVG, readable on light and dark pages without a script. Pure; knows names and figures."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from holynb.ui.output.svg import COLOURS, INK
from holynb.ui.output.text import clip

__all__ = ["Bar", "chart"]

WIDTH, LABEL, FIGURE, ROW, TOP = 380, 170, 56, 16, 20
MOST_LABEL = 28


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar: its name, its figure (None where it is not known), and which of the colours it has."""

    name: str
    value: float | None
    colour: int = 0


def chart(title: str, bars: Sequence[Bar], says: Callable[[float], str]) -> str:
    """An SVG of bars from 0, `?` for what is not known. `""` where nothing is."""
    known = [b.value for b in bars if b.value is not None]
    if not known:
        return ""
    top = max(known) or 1.0
    height = TOP + ROW * len(bars) + 4
    told = html.escape(f"{title}: " + ", ".join(f"{b.name} {'?' if b.value is None else says(b.value)}" for b in bars))
    parts = [
        (
            f'<svg class="holynb-chart" role="img" aria-label="{told}" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
            f'xmlns="http://www.w3.org/2000/svg" font-family="system-ui,sans-serif" font-size="11"><title>{told}</title>'
            f'<text x="2" y="13" font-weight="600" style="fill:{INK}" fill="#808080">{html.escape(title)}</text>'
        )
    ]
    for i, one in enumerate(bars):
        y = TOP + ROW * i
        colour = COLOURS[one.colour % len(COLOURS)]
        length = 0.0 if one.value is None else max(one.value, 0.0) / top * (WIDTH - LABEL - FIGURE)
        ink = f'style="fill:{INK}" fill="#808080"'
        parts.append(
            f'<text x="2" y="{y + 11}" {ink}>{html.escape(clip(one.name, MOST_LABEL))}</text>'
            f'<rect x="{LABEL}" y="{y + 2}" width="{length:.1f}" height="{ROW - 5}" style="fill:{colour}" '
            f'fill="{colour.partition(",")[2].rstrip(")")}"/>'
            f'<text x="{LABEL + length + 4:.1f}" y="{y + 11}" {ink}>{"?" if one.value is None else html.escape(says(one.value))}</text>'
        )
    return "".join([*parts, "</svg>"])
