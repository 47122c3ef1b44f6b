"""How `%infer bench` shows its results: a table as text or HTML, bars as SVG or as a plotly figure. Runs nothing."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from holynb.ui.output import bars, clean, grid, one_line, seconds, svg
from holynb.words import counted

if TYPE_CHECKING:
    from holynb.run import Measured

__all__ = ["as_html", "as_text", "bars_html", "figure"]

#: CSS class of each column: the route does not wrap, numbers are aligned at the end, set-up steps are text.
CELL_CLASSES = ("k", *["n"] * 9, "")
#: Title of a chart → (column, its name in a chart of several).
CHARTS: Mapping[str, Sequence[tuple[str, str]]] = {
    "Tokens/s": [("tokens_per_s", "")],
    "First token, s": [("ttft_p50_s", "p50"), ("ttft_p95_s", "p95")],
    "Whole answer, s": [("latency_p50_s", "p50"), ("latency_p95_s", "p95")],
    "Dollars per 1,000 rows": [("cost_1000", "")],
}
HEADERS = (
    "route",
    "rows",
    "rows/s",
    "tokens/s",
    "cold start",
    "first token p50 · p95",
    "answer p50 · p95",
    "context",
    "$ per 1,000",
    "$ a month",
    "set-up",
)
#: Share of the figure's width that the routes' names take.
LABEL_SHARE = 0.16


def as_text(results: Sequence[Measured]) -> str:
    """The table for a terminal, with notes below it."""
    lines = [_cells(m) for m in results]
    return clean("\n".join([grid(HEADERS, lines, {10: 60}), *_notes(results)]))


def as_html(results: Sequence[Measured], *, with_bars: bool = True) -> str:
    """The table and the bars as an HTML fragment."""
    from holynb.ui.output.static import OPEN_TAG, STYLE

    head = "".join(f"<th{' class=n' if 0 < i < 10 else ''}>{html.escape(h)}</th>" for i, h in enumerate(HEADERS))
    body = "".join(
        "<tr>" + "".join(f"<td class='{CELL_CLASSES[i]}'>{html.escape(clean(c))}</td>" for i, c in enumerate(_cells(m))) + "</tr>"
        for m in results
    )
    notes = "".join(f'<div class="holynb-head holynb-note" dir="auto">{html.escape(clean(n))}</div>' for n in _notes(results))
    table = f'<div class="holynb-rows"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    return f"{OPEN_TAG}{STYLE}{table}{notes}{bars_html(results) if with_bars else ''}</div>"


def _cells(m: Measured) -> list[str]:
    def number(value: float | None, form: str = ",.1f") -> str:
        return "?" if value is None else f"{value:{form}}"

    steps = f"{counted(m.steps, 'step')}: {m.setup}" if m.steps else "none"
    return [
        m.route,
        f"{m.ok:,} of {m.rows:,}",
        number(m.rows_per_s),
        number(m.tokens_per_s),
        _time(m.cold_s),
        f"{_time(m.ttft_p50_s)} · {_time(m.ttft_p95_s)}",
        f"{_time(m.latency_p50_s)} · {_time(m.latency_p95_s)}",
        "?" if m.context is None else f"{m.context:,}",
        number(m.cost_1000, ",.4f" if (m.cost_1000 or 1) < 0.1 else ",.2f"),
        number(m.cost_month, ",.2f"),
        steps,
    ]


def _time(value: float | None) -> str:
    return f"{value * 1000:.1f} ms" if value is not None and value < 0.1 else seconds(value)


def _notes(results: Sequence[Measured]) -> list[str]:
    notes = [f"{m.route}: {one_line(m.error)}" for m in results if m.error]
    if any(m.simulated and m.cost_month for m in results):
        notes.append("Dollars of sim/ are simulated.")
    if any(m.cost_1000 is None and m.ok and m.route.startswith("pool/") for m in results):
        notes.append(
            'A pool is priced by device time: [price."pool/NAME"] per_device_hour = … in config.toml. %infer roi compares it with an API.'
        )
    return notes


def bars_html(results: Sequence[Measured]) -> str:
    """The bars as SVG, which every page shows without a script; empty if nothing was measured."""
    charts = [
        bars.chart(
            title,
            [bars.Bar(f"{m.route} {name}".strip(), getattr(m, column), k) for m in results for k, (column, name) in enumerate(columns)],
            lambda v: f"{v:,.3g}" if v < 1000 else f"{v:,.0f}",
        )
        for title, columns in CHARTS.items()
    ]
    return f'<div style="display:flex;flex-wrap:wrap;gap:12px">{"".join(map(svg.picture, charts))}</div>' if any(charts) else ""


def figure(results: Sequence[Measured]) -> dict[str, Any]:
    """The bars side by side as one figure, in plotly's JSON."""
    from holynb.ui.output import COLOURS
    from holynb.ui.output.plots import CONFIG, INK, RULE, literal

    charts = {t: c for t, c in CHARTS.items() if any(getattr(m, column) is not None for m in results for column, _ in c)}
    data: list[dict[str, Any]] = []
    layout: dict[str, Any] = {
        "height": 130 + 44 * len(results),
        "margin": {"l": 8, "r": 8, "t": 46, "b": 30},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"size": 11, "color": INK},
        "barmode": "group",
        "showlegend": False,
        "annotations": [],
    }
    width = (1 - LABEL_SHARE) / max(1, len(charts))
    for i, (title, columns) in enumerate(charts.items()):
        axis, left = "" if i == 0 else str(i + 1), LABEL_SHARE + i * width
        for k, (column, name) in enumerate(columns):
            data.append(
                {
                    "type": "bar",
                    "orientation": "h",
                    "name": name or title,
                    "y": [literal(m.route) for m in results],
                    "x": [getattr(m, column) for m in results],
                    "marker": {"color": COLOURS[k]},
                    "xaxis": f"x{axis}",
                    "yaxis": f"y{axis}",
                }
            )
        layout[f"xaxis{axis}"] = {
            "domain": [left, left + width - 0.03],
            "anchor": f"y{axis}",
            "gridcolor": RULE,
            "rangemode": "tozero",
            "nticks": 4,
        }
        layout[f"yaxis{axis}"] = {"anchor": f"x{axis}", "autorange": "reversed", "showticklabels": i == 0, "automargin": i == 0}
        heading = f"<b>{title}</b>" + (f"<br>{' · '.join(n for _, n in columns)}" if len(columns) > 1 else "")
        layout["annotations"].append(
            {
                "text": heading,
                "x": left,
                "y": 1.02,
                "xref": "paper",
                "yref": "paper",
                "xanchor": "left",
                "yanchor": "bottom",
                "showarrow": False,
            }
        )
    return {"data": data, "layout": layout, "config": CONFIG}
