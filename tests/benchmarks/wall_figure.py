"""The figure of the README about wall.py's figures: an SVG of three small charts, readable on light and on dark."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["draw"]

STYLE = """
text{font:11px system-ui,sans-serif;fill:#57606a}.t{font-weight:600;fill:#24292f}.g{stroke:#d0d7de;stroke-width:1}
.a{stroke:#0969da;fill:#0969da}.b{stroke:#bc4c00;fill:#bc4c00}.c{stroke:#1a7f37;fill:#1a7f37}.d{stroke:#8250df;fill:#8250df}
polyline{fill:none!important;stroke-width:2}text.a,text.b,text.c,text.d{stroke:none}
@media(prefers-color-scheme:dark){text{fill:#9198a1}.t{fill:#f0f6fc}.g{stroke:#3d444d}
.a{stroke:#58a6ff;fill:#58a6ff}.b{stroke:#f0883e;fill:#f0883e}.c{stroke:#3fb950;fill:#3fb950}.d{stroke:#bc8cff;fill:#bc8cff}}
"""
WIDTH, HEIGHT, LEFT, TOP, WIDE, HIGH = 900, 250, 40, 44, 225, 150
SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Line:
    """One line of a chart: its points by x, in order, and what it is."""

    name: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Chart:
    """A chart over powers of ten. `top`: its highest value; `unit`: behind the values of the axis."""

    title: str
    below: str
    lines: Sequence[Line]
    top: float
    unit: str = ""


def draw(measured: Path, to: Path) -> None:
    """Read wall.py's lines and write the figure."""
    cells = [json.loads(line) for line in measured.read_text("utf-8").splitlines()]
    runs, pools = [c for c in cells if c["what"] == "run"], [c for c in cells if c["what"] == "replicas"]
    by_providers = {p: [c for c in runs if c["providers"] == p] for p in sorted({c["providers"] for c in runs})}

    def lines(field: str) -> list[Line]:
        return [Line(_providers(p), _points(cs, "rows", field)) for p, cs in by_providers.items()]

    shares = Line("", [(x, 100 * y) for x, y in _points(pools, "replicas", "share_of_a_core")])
    charts = (
        Chart("Processor time a row, ms", "rows", lines("cpu_ms_a_row"), 0.6),
        Chart("Memory above the input, MB", "rows", lines("peak_mb"), _round_up(c["peak_mb"] for c in runs)),
        Chart("Dispatch at 1,000 rows/s, % of a core", "replicas", [shares], 6.0, " %"),
    )
    body = "".join(_chart(chart, LEFT + i * (WIDTH // 3)) for i, chart in enumerate(charts))
    title = "What a row costs as runs and pools grow: processor time, memory, dispatch"
    to.parent.mkdir(parents=True, exist_ok=True)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title}">'
    to.write_text(f"{head}<title>{title}</title><style>{STYLE}</style>{body}</svg>\n", "utf-8")


def _points(cells: Iterable[dict[str, Any]], x: str, y: str) -> list[tuple[float, float]]:
    """The least of each cell's rounds: what others do on the machine only adds."""
    least: dict[float, float] = {}
    for cell in cells:
        least[cell[x]] = min(cell[y], least.get(cell[x], math.inf))
    return sorted(least.items())


def _providers(count: int) -> str:
    return "1 provider" if count == 1 else f"{count} providers"


def _round_up(values: Iterable[float]) -> float:
    return math.ceil(max(values) / 40) * 40.0


def _chart(chart: Chart, left: int) -> str:
    xs = [x for line in chart.lines for x, _ in line.points]
    low, high = math.log10(min(xs)), math.log10(max(xs))

    def at(x: float, y: float) -> tuple[float, float]:
        return left + WIDE * (math.log10(x) - low) / (high - low), TOP + HIGH * (1 - y / chart.top)

    out = [f'<text class="t" x="{left}" y="16">{chart.title}</text>']
    for step in range(5):
        value = chart.top * step / 4
        y = at(10**low, value)[1]
        out.append(f'<line class="g" x1="{left}" x2="{left + WIDE}" y1="{y:.1f}" y2="{y:.1f}"/>')
        out.append(f'<text text-anchor="end" x="{left - 5}" y="{y + 4:.1f}">{value:g}{chart.unit if step == 4 else ""}</text>')
    for power in range(math.ceil(low), math.floor(high) + 1):
        x = at(10**power, 0)[0]
        label = {0: "1", 1: "10"}.get(power, f"10{str(power).translate(SUPERSCRIPTS)}")
        out.append(f'<text text-anchor="middle" x="{x:.1f}" y="{TOP + HIGH + 16}">{label}</text>')
    out.append(f'<text text-anchor="middle" x="{left + WIDE / 2}" y="{TOP + HIGH + 34}">{chart.below}</text>')
    for kind, (number, line) in zip("abcd", enumerate(chart.lines), strict=False):
        places = [at(x, y) for x, y in line.points]
        out.append(f'<polyline class="{kind}" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in places)}"/>')
        out += [f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in places]
        if line.name:
            out.append(f'<text class="{kind}" x="{left + 76 * number}" y="32">{line.name}</text>')
    return "".join(out)
