"""Horizontal bars in HTML, whose text takes the page's colours and whose lengths take its width. Pure; knows names and figures."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from holynb.ui.output.svg import COLOURS
from holynb.ui.output.text import clean, clip

__all__ = ["Bar", "Stack", "chart", "side_by_side", "stacked"]

MAX_LABEL_CHARS = 40
LINE = (
    '<div style="display:grid;grid-template-columns:minmax(min(9em,40%),11em) minmax(3em,1fr) minmax(4.5em,max-content);gap:0 8px;align-items:center">'
    '<span style="overflow-wrap:anywhere" dir="auto">{label}</span>'
    '<span style="display:flex;height:10px" aria-hidden="true">{segments}</span>'
    '<span style="text-align:end;font-variant-numeric:tabular-nums">{value}</span></div>'
)


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar: its name, its value (None where unknown) and its place in COLOURS."""

    name: str
    value: float | None
    colour: int = 0


@dataclass(frozen=True, slots=True)
class Stack:
    """One bar of several values, in the order of the key."""

    name: str
    values: Sequence[float]


def chart(title: str, bars: Sequence[Bar], format_value: Callable[[float], str]) -> str:
    """Bars from 0 under a title, `?` for unknown values. `""` where all are."""
    values = [b.value for b in bars if b.value is not None]
    if not values:
        return ""
    top = max(values) or 1.0
    lines = [_line(b.name, [(b.colour, max(b.value or 0.0, 0.0) / top)], "?" if b.value is None else format_value(b.value)) for b in bars]
    return _block(title, "", lines)


def stacked(title: str, key: Sequence[str], stacks: Sequence[Stack], format_value: Callable[[float], str]) -> str:
    """Bars of several values each, the sum at their ends. `key` names the values. `""` where there is nothing above 0."""
    top = max((sum(s.values) for s in stacks), default=0.0)
    if top <= 0:
        return ""
    lines = [_line(s.name, [(i, v / top) for i, v in enumerate(s.values) if v > 0], format_value(sum(s.values))) for s in stacks]
    return _block(title, _key(key), lines)


def side_by_side(charts: Sequence[str]) -> str:
    """Charts beside each other, and below each other where the page is narrow."""
    shown = "".join(f'<div style="flex:1 1 260px;min-width:0">{c}</div>' for c in charts if c)
    return f'<div style="display:flex;flex-wrap:wrap;gap:12px 24px;font-size:12px;margin:8px 0">{shown}</div>' if shown else ""


def _block(title: str, key: str, lines: Sequence[str]) -> str:
    head = f'<div style="font-weight:600;margin-bottom:2px">{html.escape(clean(title))}</div>' if title else ""
    return f'<div class="holynb-bars" style="line-height:1.45">{head}{key}{"".join(lines)}</div>'


def _key(names: Sequence[str]) -> str:
    marks = "".join(
        f'<span style="white-space:nowrap">{_swatch(i)} <span dir="auto">{html.escape(clean(n))}</span></span>' for i, n in enumerate(names)
    )
    return f'<div style="display:flex;flex-wrap:wrap;gap:0 14px">{marks}</div>'


def _swatch(i: int) -> str:
    return f'<span aria-hidden="true" style="display:inline-block;width:10px;height:10px;border-radius:2px;background:{_colour(i)}"></span>'


def _colour(i: int) -> str:
    return COLOURS[i % len(COLOURS)]


def _line(name: str, segments: Sequence[tuple[int, float]], value: str) -> str:
    spans = "".join(f'<span style="width:{100 * share:.2f}%;min-width:1px;background:{_colour(i)}"></span>' for i, share in segments)
    return LINE.format(label=html.escape(clip(clean(name), MAX_LABEL_CHARS)), segments=spans, value=html.escape(clean(value)))
