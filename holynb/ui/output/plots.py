"""The charts of a run as plotly figures: for `run.plot()`, and for the final output. Only `figures` imports plotly.

The final output is plotly's JSON, written by hand, because importing plotly costs seconds at the end of a cell; with it go the same charts
as SVG, for GitHub, nbconvert and everything else that draws no plotly.
"""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from holynb.events import Failed, Noted
from holynb.results import is_simulated
from holynb.translation import brief
from holynb.ui.output import report, series, static, svg
from holynb.ui.output.html import OPEN_TAG

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from holynb.run import SessionRun
    from holynb.ui.output.page import Page

__all__ = ["MIME", "Figures", "bundle", "bundles", "figures", "literal", "show", "spec"]

MIME = "application/vnd.plotly.v1+json"
#: Pixels: a row of charts, the title and the key above each, the ticks below. Where two stand side by side a key may take two lines.
ROW_HEIGHT, TITLE_HEIGHT, LOW_KEY_HEIGHT, TICKS_HEIGHT = 250, 44, 22, 30
TALL_TITLE_HEIGHT, TALL_KEY_HEIGHT = 64, 42
MAX_POINTS = 160
#: On a page that is narrower, in CSS pixels, charts stand in rows of two, as in live.css, also where nobody knows
#: its width; below each other on a very narrow one.
NARROW_WIDTH, VERY_NARROW_WIDTH = 760, 460
#: Lines of so few points get markers, as do those within a twentieth of the x axis: without, they would be hard to see.
MAX_MARKED_POINTS = 12
#: Begins the ids of charts that stand side by side: in the page they are classes, by which `static.STYLE` and our extension of JupyterLab
#: know what must stay this wide, and scroll, in a window that is narrower.
WIDE_ID = "holynb-wide"
#: Legible on white and on near black.
INK, RULE = "#808080", "rgba(128,128,128,.25)"
#: A responsive chart takes a share of its container, which has no height of its own: it vanishes when the window changes size. JupyterLab
#: widens it.
CONFIG: dict[str, Any] = {"displayModeBar": False, "responsive": False}
COLOURS = ("#2a7fd4", "#d9822b", "#3d9a50", "#d6493e", "#1499a8", "#8e63ce")
#: Mark → its symbol and its index in COLOURS.
MARKS = {"429": ("triangle-down", 1), "OOM": ("x", 3), "recovered": ("triangle-up", 2)}


@dataclass(frozen=True, slots=True)
class Chart:
    """One chart: lines by name, each a list of (x, y); marks by name, each a list of x."""

    title: str
    lines: Mapping[str, Sequence[tuple[float, float]]]
    marks: Mapping[str, Sequence[float]]
    prefix: str = ""
    suffix: str = ""


def charts(run_report: report.Report, least_s: float = static.LEAST_CHARTED_S) -> dict[str, Chart]:
    """Charts by name: cost, latency, tokens, server, memory. Those without a line are left out; all are, with fewer than two rows.

    least_s: seconds that the run took at least.
    """
    ended = series.ends(run_report.events, run_report.rows, run_report.started)
    if len(ended) < 2 or run_report.summary.elapsed < least_s:
        return {}
    simulated = " (simulated)" if any(is_simulated(o.route) for _, o in ended) else ""
    lines = series.by_route(run_report.events, run_report.rows, run_report.started, run_report.compared)
    charts_by_name = {
        "cost": Chart(f"Cost{simulated}", lines["cost"], {}, prefix="$"),
        "latency": Chart("Latency, p50" if run_report.compared else "Latency", lines["latency"], {}, suffix=" s"),
        "tokens": Chart(
            "Tokens/s",
            lines["tokens"],
            series.marks(run_report.events, run_report.started, Failed),
        ),
        "server": Chart("Server", series.load(run_report.events, run_report.started), {}),
        "memory": _memory(run_report),
    }
    return {name: chart for name, chart in charts_by_name.items() if any(len(points) > 1 for points in chart.lines.values())}


def spec(charts_by_name: Mapping[str, Chart], *, x_unit: str = "seconds", columns: int = 0) -> dict[str, Any]:
    """Charts side by side as one figure in plotly's JSON. x_unit: seconds or rows. columns: charts in a row, 0 for all of them."""
    columns = min(columns or len(charts_by_name), len(charts_by_name)) or 1
    rows = -(-len(charts_by_name) // columns) or 1
    title_height, key_height = (TALL_TITLE_HEIGHT, TALL_KEY_HEIGHT) if columns == 2 else (TITLE_HEIGHT, LOW_KEY_HEIGHT)
    layout: dict[str, Any] = {
        "height": rows * ROW_HEIGHT,
        "margin": {"l": 48, "r": 8, "t": title_height, "b": TICKS_HEIGHT},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"size": 11, "color": INK},
        "hovermode": "x",
        "annotations": [],
        "showlegend": True,
    }
    end = max((p[-1][0] for chart in charts_by_name.values() for p in chart.lines.values() if p), default=1.0) or 1.0
    data: list[dict[str, Any]] = []
    for i, chart in enumerate(charts_by_name.values()):
        suffix = "" if i == 0 else str(i + 1)
        data += _traces(chart, suffix, end)
        axis = {"gridcolor": RULE, "zeroline": False, "linecolor": RULE, "fixedrange": False}
        (left, right), (low, high) = _x_domain(i % columns, columns), _y_domain(i // columns, rows, title_height)
        ticks = " s" if x_unit == "seconds" else ""
        layout[f"xaxis{suffix}"] = {
            **axis,
            "domain": [left, right],
            "anchor": f"y{suffix}",
            "showgrid": False,
            "range": [0, _round(1.01 * end)],
            "ticksuffix": ticks,
        }
        layout[f"yaxis{suffix}"] = {
            **axis,
            "domain": [low, high],
            "anchor": f"x{suffix}",
            "range": [0, _round(1.08 * _max_y(chart))],
            "exponentformat": "none",
            "tickprefix": chart.prefix,
            "ticksuffix": chart.suffix,
            "nticks": 5,
        }
        layout[f"legend{suffix}"] = {"orientation": "h", "x": left, "y": high, "xanchor": "left", "yanchor": "bottom", "font": {"size": 10}}
        layout["annotations"].append(
            {
                "text": f"<b>{literal(brief(chart.title))}</b>",
                "x": left,
                "y": high,
                "yshift": key_height,
                "xref": "paper",
                "yref": "paper",
                "xanchor": "left",
                "yanchor": "bottom",
                "showarrow": False,
            }
        )
    if columns > 2:
        data = [{**trace, "uid": f"{WIDE_ID}-{i}"} for i, trace in enumerate(data)]
    return {"data": data, "layout": layout, "config": CONFIG}


def literal(text: str) -> str:
    """A name for plotly, which reads tags in names and titles, links among them."""
    return html.escape(text, quote=False)


def _x_domain(column: int, columns: int) -> tuple[float, float]:
    """A chart's share of the width. Its ticks are left of it, in the gap."""
    gap = 0.045 if columns > 2 else 0.11
    return column / columns + (gap if column else 0), (column + 1) / columns - 0.01


def _y_domain(row: int, rows: int, title_height: int) -> tuple[float, float]:
    """A row's share of the height, from below. Titles and ticks have the same room in each row."""
    plots_height = rows * ROW_HEIGHT - title_height - TICKS_HEIGHT
    top = 1 - row * ROW_HEIGHT / plots_height
    return max(0.0, top - (ROW_HEIGHT - title_height - TICKS_HEIGHT) / plots_height), top


def bundle(run_report: report.Report, *, width: int | None = None, least_s: float = static.LEAST_CHARTED_S) -> dict[str, Any]:
    """Mime types → the charts: plotly's, and the same as SVG in HTML. Empty where there are none. width: of the page, CSS pixels."""
    charts_by_name = charts(run_report, least_s)
    svgs = static.charts(run_report, least_s)
    if not charts_by_name or not svgs:
        return {}
    style = "display:flex;flex-wrap:wrap;gap:12px"
    return {
        MIME: spec(charts_by_name, x_unit=_x_unit(run_report), columns=_columns(width)),
        "text/html": f'{OPEN_TAG}<div style="{style}">{"".join(map(svg.picture, svgs.values()))}</div></div>',
        "text/plain": f"Charts: {', '.join(charts_by_name)}. run.plot() gives them as plotly figures.",
    }


def _columns(width: int | None) -> int:
    """Charts in a row; 0 for all."""
    if width is None:
        return 2
    return 1 if width < VERY_NARROW_WIDTH else 2 if width < NARROW_WIDTH else 0


def show(page: Page, run_report: report.Report, parts: str, shell: Any) -> None:
    """Show the final output of a run on its page; where widgets work, the charts are an output of their own below it.

    parts: all, table or charts.
    """
    from kernels_support.jupyter.capabilities import detect

    output, figure = bundles(run_report, parts, width=page.width) if detect(shell).widgets else (static.bundle(run_report, parts), {})
    page.end(output, figure or None)


def bundles(run_report: report.Report, parts: str = "all", *, width: int | None = None) -> tuple[dict[str, str], dict[str, Any]]:
    """The final output where widgets work: its own bundle, and that of the charts below it, empty without any."""
    figure = bundle(run_report, width=width) if parts != "table" else {}
    if not figure:
        return static.bundle(run_report, parts), {}
    return static.bundle(run_report, "table" if parts == "all" else "none"), figure


class Figures(dict[str, Any]):
    """Figures by name, which the value of a cell draws side by side."""

    def __init__(self, figures_by_name: Mapping[str, Any], drawing: Mapping[str, Any]) -> None:
        super().__init__(figures_by_name)
        self._drawing = dict(drawing)

    def __repr__(self) -> str:
        return f"<charts of a holynb run: {', '.join(self) or 'none, as fewer than two rows have ended'}>"

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, Any]:  # noqa: ARG002 - IPython's protocol
        return self._drawing | {"text/plain": repr(self)}


def figures(run: SessionRun) -> Figures:
    """The charts of a run by name (cost, latency, tokens, server, memory) as `plotly.graph_objects.Figure`; those that can be drawn now."""
    import plotly.graph_objects as go

    run_report = report.of(run)
    out = {}
    for name, chart in charts(run_report, least_s=0.0).items():
        plot = spec({name: chart}, x_unit=_x_unit(run_report))
        figure = go.Figure(data=plot["data"], layout=plot["layout"])
        figure.update_layout(height=360, margin={"t": 60}, xaxis_domain=[0, 1])
        out[name] = figure
    return Figures(out, bundle(run_report, least_s=0.0))


def _memory(run_report: report.Report) -> Chart:
    """Memory per device, in GB."""
    devices = {n: p for n, p in series.memory(run_report.events, run_report.started).items() if len(p) > 1}
    title = "Memory" if len(devices) != 1 else f"Memory: {next(iter(devices))}"
    marks = series.marks(run_report.events, run_report.started, Noted)
    return Chart(title, {n: [(x, y / 1e9) for x, y in p] for n, p in devices.items()}, marks, suffix=" GB")


def _x_unit(run_report: report.Report) -> str:
    return "seconds" if run_report.events else "rows"


def _traces(chart: Chart, suffix: str, end: float) -> list[dict[str, Any]]:
    axes = {"xaxis": f"x{suffix}", "yaxis": f"y{suffix}", "legend": f"legend{suffix}"}
    lines = {n: svg.thin(p, MAX_POINTS) for n, p in chart.lines.items() if p}
    top = _max_y(chart)
    out: list[dict[str, Any]] = [
        {
            "type": "scatter",
            "mode": "lines" if len(points) > MAX_MARKED_POINTS and points[-1][0] - points[0][0] > end / 20 else "lines+markers",
            "name": literal(brief(name)),
            "x": [_round(x) for x, _ in points],
            "y": [_round(y) for _, y in points],
            "line": _line_style(chart, name, i),
            "marker": {"color": COLOURS[i % len(COLOURS)]},
            "showlegend": len(lines) > 1 or bool(chart.marks),
            **axes,
        }
        for i, (name, points) in enumerate(lines.items())
    ]
    for name, xs in chart.marks.items():
        symbol, colour = MARKS[name]
        marker = {"symbol": symbol, "size": 8, "color": COLOURS[colour]}
        at_top = {"x": [_round(x) for x in xs], "y": [_round(top)] * len(xs)}
        out.append({"type": "scatter", "mode": "markers", "name": name, **at_top, "marker": marker, **axes})
    return out


def _line_style(chart: Chart, name: str, i: int) -> dict[str, Any]:
    shape = {"shape": "hv" if chart.prefix == "$" else "linear"}
    return {"color": COLOURS[i % len(COLOURS)], "width": 1.8, **shape, **({"dash": "dot"} if name.endswith(" all") else {})}


def _max_y(chart: Chart) -> float:
    return max((y for p in chart.lines.values() for _, y in p), default=1.0) or 1.0


def _round(value: float) -> float:
    """Four significant digits: as much as a screen can show."""
    return float(f"{value:.4g}")
