"""The charts of a run as plotly figures: for `run.plot()`, and for what stays in a notebook. Imports plotly only where a figure is asked for.

What stays is written in plotly's JSON by hand, because importing plotly costs seconds at the end of a cell; beside it stand the same charts
as SVG, for GitHub, nbconvert and everything else that draws no plotly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from holynb.types import Failed, Noted
from holynb.ui.output import report, series, static, svg

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from holynb.run import SessionRun
    from holynb.ui.output.page import Page

__all__ = ["MIME", "bundle", "figures", "leave", "spec"]

MIME = "application/vnd.plotly.v1+json"
HEIGHT, ABOVE, MOST_POINTS = 250, 44, 160
#: On a page that is narrower than this, in CSS pixels, two charts stand side by side, and not four. As in live.css.
NARROW = 760
#: So few points are marked each, and those that all lie at one place: a line through them would be hard to see.
FEW = 12
#: Legible on white and on near black.
INK, RULE = "#808080", "rgba(128,128,128,.25)"
#: A responsive chart takes a share of its place, which has no height of its own: the first change of the window would take it away. JupyterLab widens it.
CONFIG: dict[str, Any] = {"displayModeBar": False, "responsive": False}
COLOURS = ("#2a7fd4", "#d9822b", "#3d9a50", "#d6493e", "#1499a8", "#8e63ce")
#: A mark's symbol, and its place in COLOURS.
MARKS = {"429": ("triangle-down", 1), "OOM": ("x", 3), "recovered": ("triangle-up", 2)}


@dataclass(frozen=True, slots=True)
class Chart:
    """One chart: lines by name, each a list of (x, y); marks by name, each a list of x."""

    title: str
    lines: Mapping[str, Sequence[tuple[float, float]]]
    marks: Mapping[str, Sequence[float]]
    prefix: str = ""
    suffix: str = ""


def charts(record: report.Report) -> dict[str, Chart]:
    """What can be drawn of a run: cost, latency, tokens, memory. Fewer than two answers say nothing a chart could show."""
    done = series.ends(record.events, record.rows, record.started)
    if len(done) < 2:
        return {}
    simulated = " (simulated)" if any((o.route or "").startswith("sim/") for _, o in done) else ""
    made = {
        "cost": Chart(f"Cost{simulated}", {"cost": series.cost(done)}, {}, prefix="$"),
        "latency": Chart("Latency", series.latency(done), {}, suffix=" s"),
        "tokens": Chart(
            "Tokens/s", {"tokens/s": series.tokens(record.events, record.started)}, series.marks(record.events, record.started, Failed)
        ),
        "server": Chart("Server", series.load(record.events, record.started), {}),
        "memory": _memory(record),
    }
    return {name: chart for name, chart in made.items() if any(chart.lines.values())}


def spec(made: Mapping[str, Chart], *, by: str = "seconds", across: int = 0) -> dict[str, Any]:
    """Charts side by side as one figure in plotly's JSON. by: what x counts, seconds or rows. across: charts in a row, 0 for all of them."""
    across = min(across or len(made), len(made)) or 1
    rows = -(-len(made) // across) or 1
    layout: dict[str, Any] = {
        "height": rows * HEIGHT,
        "margin": {"l": 48, "r": 8, "t": ABOVE, "b": 30},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"size": 11, "color": INK},
        "hovermode": "x",
        "annotations": [],
        "showlegend": True,
    }
    end = max((p[-1][0] for chart in made.values() for p in chart.lines.values() if p), default=1.0) or 1.0
    data: list[dict[str, Any]] = []
    for i, chart in enumerate(made.values()):
        at = "" if i == 0 else str(i + 1)
        data += _traces(chart, at, end)
        axis = {"gridcolor": RULE, "zeroline": False, "linecolor": RULE, "fixedrange": False}
        (left, right), (low, high) = _across(i % across, across), _down(i // across, rows)
        ticks = " s" if by == "seconds" else ""
        layout[f"xaxis{at}"] = {
            **axis,
            "domain": [left, right],
            "anchor": f"y{at}",
            "showgrid": False,
            "range": [0, _short(1.01 * end)],
            "ticksuffix": ticks,
        }
        layout[f"yaxis{at}"] = {
            **axis,
            "domain": [low, high],
            "anchor": f"x{at}",
            "range": [0, _short(1.08 * _top(chart))],
            "exponentformat": "none",
            "tickprefix": chart.prefix,
            "ticksuffix": chart.suffix,
            "nticks": 5,
        }
        layout[f"legend{at}"] = {"orientation": "h", "x": left, "y": high, "xanchor": "left", "yanchor": "bottom", "font": {"size": 10}}
        layout["annotations"].append(
            {
                "text": f"<b>{chart.title}</b>",
                "x": left,
                "y": high,
                "yshift": 22,
                "xref": "paper",
                "yref": "paper",
                "xanchor": "left",
                "yanchor": "bottom",
                "showarrow": False,
            }
        )
    return {"data": data, "layout": layout, "config": CONFIG}


def _across(place: int, n: int) -> tuple[float, float]:
    """From where to where the chart in this place of a row reaches. Its figures stand left of it, in the gap."""
    gap = 0.045 if n > 2 else 0.11
    return place / n + (gap if place else 0), (place + 1) / n - 0.01


def _down(row: int, rows: int) -> tuple[float, float]:
    """From where to where a row of charts reaches, from below. What stands above a chart and under it has the same room in each row."""
    whole = rows * HEIGHT - ABOVE - 30
    top = 1 - row * HEIGHT / whole
    return max(0.0, top - (HEIGHT - ABOVE - 30) / whole), top


def bundle(record: report.Report, *, width: int | None = None) -> dict[str, Any]:
    """Mime types → the charts: plotly's, and the same as SVG in HTML. Empty where there is nothing to draw. width: of the page, where it is known."""
    made = charts(record)
    drawn = static.charts(record)
    if not made or not drawn:
        return {}
    style = "display:flex;flex-wrap:wrap;gap:12px"
    return {
        MIME: spec(made, by=_by(record), across=2 if width and width < NARROW else 0),
        "text/html": f'{static.OPEN}<div style="{style}">{"".join(map(svg.picture, drawn.values()))}</div></div>',
        "text/plain": f"Charts: {', '.join(made)}. run.plot() gives them as plotly figures.",
    }


def leave(page: Page, record: report.Report, show: str, shell: Any) -> None:
    """Put the final output of a run on its page; where widgets work, the charts are a figure of their own below the table."""
    from kernels_support.jupyter.capabilities import detect

    apart = bundle(record, width=page.width) if show != "table" and detect(shell).widgets else {}
    if not apart:
        page.end(static.bundle(record, show))
        return
    from IPython.display import display

    page.end(static.bundle(record, "table" if show == "all" else "none"))
    display(apart, raw=True)  # type: ignore[no-untyped-call]


def figures(run: SessionRun) -> dict[str, Any]:
    """The charts of a run by name (cost, latency, tokens, memory) as `plotly.graph_objects.Figure`; those that can be drawn now."""
    import plotly.graph_objects as go

    record = report.of(run)
    out = {}
    for name, chart in charts(record).items():
        said = spec({name: chart}, by=_by(record))
        figure = go.Figure(data=said["data"], layout=said["layout"])
        figure.update_layout(height=360, margin={"t": 60}, xaxis_domain=[0, 1])
        out[name] = figure
    return out


def _memory(record: report.Report) -> Chart:
    """What each device holds, in the unit that fits the largest."""
    held = {n: p for n, p in series.memory(record.events, record.started).items() if len(p) > 1}
    unit, name = (2**30, " GiB") if max((y for p in held.values() for _, y in p), default=0) >= 2**30 else (2**20, " MiB")
    title = "Memory" if len(held) != 1 else f"Memory: {next(iter(held))}"
    marks = series.marks(record.events, record.started, Noted)
    return Chart(title, {n: [(x, y / unit) for x, y in p] for n, p in held.items()}, marks, suffix=name)


def _by(record: report.Report) -> str:
    return "seconds" if record.events else "rows"


def _traces(chart: Chart, at: str, end: float) -> list[dict[str, Any]]:
    axes = {"xaxis": f"x{at}", "yaxis": f"y{at}", "legend": f"legend{at}"}
    lines = {n: svg.thin(p, MOST_POINTS) for n, p in chart.lines.items() if p}
    top = _top(chart)
    out: list[dict[str, Any]] = [
        {
            "type": "scatter",
            "mode": "lines" if len(points) > FEW and points[-1][0] - points[0][0] > end / 20 else "lines+markers",
            "name": name,
            "x": [_short(x) for x, _ in points],
            "y": [_short(y) for _, y in points],
            "line": _pen(chart, name, i),
            "marker": {"color": COLOURS[i % len(COLOURS)]},
            "showlegend": len(lines) > 1 or bool(chart.marks),
            **axes,
        }
        for i, (name, points) in enumerate(lines.items())
    ]
    for name, xs in chart.marks.items():
        symbol, colour = MARKS[name]
        marker = {"symbol": symbol, "size": 8, "color": COLOURS[colour]}
        at_top = {"x": [_short(x) for x in xs], "y": [_short(top)] * len(xs)}
        out.append({"type": "scatter", "mode": "markers", "name": name, **at_top, "marker": marker, **axes})
    return out


def _pen(chart: Chart, name: str, i: int) -> dict[str, Any]:
    shape = {"shape": "hv" if chart.prefix == "$" else "linear"}
    return {"color": COLOURS[i % len(COLOURS)], "width": 1.8, **shape, **({"dash": "dot"} if name.endswith(" all") else {})}


def _top(chart: Chart) -> float:
    return max((y for p in chart.lines.values() for _, y in p), default=1.0) or 1.0


def _short(value: float) -> float:
    """Four figures: what a line on a screen can show."""
    return float(f"{value:.4g}")
