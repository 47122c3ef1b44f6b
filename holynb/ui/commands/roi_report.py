"""How `%infer roi` shows its comparison: as a frame, as a table in text or HTML, as a plotly figure. Calculates no prices."""

from __future__ import annotations

import html
from collections.abc import Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from holynb.results import dollars
from holynb.ui.output import clean, listing
from holynb.ui.output.listing import Listing, Markup
from holynb.units import three_digits

if TYPE_CHECKING:
    from holynb.pricing import OwnGpus, Roi, RoiLine, Workload
    from holynb.ui.output.listing import Part

__all__ = ["as_html", "as_text", "figure", "parts", "table"]

#: plotly knows no colours of the page: its text takes them here, where the output below is ours.
PLOT_STYLE = (
    "<style>.jp-OutputArea-child:has(.holynb-list)~.jp-OutputArea-child .js-plotly-plot .main-svg text"
    "{fill:var(--jp-ui-font-color1)!important}</style>"
)
HEADERS = ("route", "$/M in", "$/M out", "a month", "saved against own", "own cheaper from")
#: Column of the frame → dtype, which does not depend on the values.
COLUMNS = {
    "route": "string",
    "input": "Float64",
    "output": "Float64",
    "month_low": "Float64",
    "month_high": "Float64",
    "saving_low": "Float64",
    "saving_high": "Float64",
    "flips_at": "Int64",
    "assumed": "string",
}


def table(roi: Roi) -> Any:
    """The lines as a frame: dollars per million tokens, dollars a month, savings as shares from 0 to 1."""
    from holynb.results import frame

    def end(pair: tuple[Decimal, Decimal] | None, i: int) -> float | None:
        return None if pair is None else float(pair[i])

    rows = [
        (
            str(line.route),
            _to_float(line.input),
            _to_float(line.output),
            end(line.month, 0),
            end(line.month, 1),
            end(line.saving, 0),
            end(line.saving, 1),
            line.break_even_requests,
            line.assumed or None,
        )
        for line in roi.lines
    ]
    return frame.from_columns({name: (dtype, [row[i] for row in rows]) for i, (name, dtype) in enumerate(COLUMNS.items())}, "route")


def parts(roi: Roi) -> list[Part]:
    """The table, with its assumptions and the advice."""
    rows = [_cells(line, roi.own) for line in roi.lines]
    return [_title(roi.load), Listing(_headers(roi.own), rows, range(1, 6)), *_notes(roi), roi.advice]


def as_text(roi: Roi, width: int | None = None) -> str:
    """The same for a terminal of so many columns."""
    return listing.as_text(parts(roi), width)


def as_html(roi: Roi) -> str:
    """The same as an HTML fragment."""
    *above, advice = parts(roi)
    return PLOT_STYLE + listing.as_html([*above, Markup(f'<div style="font-weight:600">{html.escape(clean(str(advice)))}</div>')])


def _title(load: Workload) -> str:
    low, high = load.month
    tokens = f"{load.tokens[0]:,.0f}" + (f" to {load.tokens[1]:,.0f}" if load.tokens[1] != load.tokens[0] else "")
    span = f"{low / 1_000_000:,.0f}" + (f" to {high / 1_000_000:,.0f}" if high != low else "")
    return f"{load.requests_per_day:,.0f} requests a day of {tokens} tokens: {span} million tokens in {load.days} days"


def _cells(line: RoiLine, own: OwnGpus | None) -> list[str]:
    cells = [str(line.route), _rate(line.input), _rate(line.output), _span(line.month)]
    if own is None:
        return cells
    break_even = (
        ""
        if line.month is None
        else "never"
        if line.break_even_requests is None
        else f"{float(f'{line.break_even_requests:.3g}'):,.0f} a day"
    )
    return [*cells, _saving(line.saving), break_even]


def _headers(own: OwnGpus | None) -> Sequence[str]:
    """The columns shown. Without own GPUs there is nothing to compare with."""
    return HEADERS if own is not None else HEADERS[:4]


def _notes(roi: Roi) -> list[str]:
    from holynb.pricing import ARTICLE, round_dollars

    notes = []
    if roi.own is not None:
        own = roi.own
        speed = "" if own.tokens_per_s is None else f", {three_digits(own.tokens_per_s)} tokens/s"
        sets = own.sets(roi.load.month[1], roi.load.days)
        needed = f", {sets} such sets for this load" if sets > 1 else ""
        at_best = f", at best ${float(roi.own_per_million):,.4g} per million tokens" if roi.own_per_million is not None else ""
        notes.append(
            f"Own: {own} at {dollars(own.per_device_hour)} an hour each, busy {own.utilisation:.0%} of the time{speed}: "
            f"{_span(roi.own_month)} a month{needed}{at_best}" + (f" ({own.assumed})." if own.assumed else ".")
        )
    notes += [f"Assumed for {', '.join(routes)}: {assumption}." for assumption, routes in _assumptions(roi.lines).items()]
    services = ", ".join(f"{name} from {round_dollars(month)}" for name, month in ARTICLE)
    notes.append(f"Managed services, as the article that this table comes from says, not measured here: {services} a month.")
    return notes


def _assumptions(lines: Sequence[RoiLine]) -> dict[str, list[str]]:
    """Assumption → the routes it was made for."""
    routes: dict[str, list[str]] = {}
    for line in lines:
        if line.assumed:
            routes.setdefault(line.assumed, []).append(str(line.route))
    return routes


def _span(pair: tuple[Decimal, Decimal] | None) -> str:
    from holynb.pricing import round_dollars

    if pair is None:
        return "?"
    low, high = map(round_dollars, pair)
    return low if low == high else f"{low} to {high}"


def _saving(pair: tuple[Decimal, Decimal] | None) -> str:
    """`58 to 79 %`; if own GPUs are cheaper, the route's cost as a multiple of theirs: `2.2 to 4.4 × own`."""
    if pair is None:
        return ""
    if pair[1] < 0:
        low, high = (f"{1 - p:,.1f}" for p in reversed(pair))
        return f"{low} × own" if low == high else f"{low} to {high} × own"
    # A saving just below 100 % must not be rounded up to it.
    places = 1 if any(Decimal("0.995") <= p < 1 for p in pair) else 0
    low, high = (f"{min(p * 100, Decimal('99.9')) if places and p < 1 else p * 100:,.{places}f}" for p in pair)
    return (f"{low} %" if low == high else f"{low} to {high} %").replace("-", "\N{MINUS SIGN}")


def _rate(value: Decimal | None) -> str:
    return "?" if value is None else f"{value.normalize():f}"


def _to_float(value: Decimal | None) -> float | None:
    return None if value is None else float(value)


def figure(roi: Roi) -> dict[str, Any]:
    """Dollars a month by requests a day, from a hundredth to a hundred times the load, as a figure in plotly's JSON."""
    from holynb.ui.output import COLOURS
    from holynb.ui.output.plots import CONFIG, INK, RULE

    load = roi.load
    daily_requests = [load.requests_per_day * 10 ** (k / 8) for k in range(-16, 17)]
    tokens_per_daily_request = sum(load.month, Decimal(0)) / 2 / Decimal(str(load.requests_per_day))
    data = []
    for i, line in enumerate(x for x in roi.lines if x.month is not None):
        low, high = line.month or (Decimal(0), Decimal(0))
        dollars_per_daily_request = float(low + high) / 2 / load.requests_per_day
        data.append(
            _trace(str(line.route), daily_requests, [dollars_per_daily_request * d for d in daily_requests], COLOURS[i % len(COLOURS)])
        )
    if (own := roi.own) is not None:
        steps = [float(own.sets(tokens_per_daily_request * Decimal(str(d)), load.days) * own.month(load.days)) for d in daily_requests]
        data.append({**_trace(str(own), daily_requests, steps, INK), "line": {"color": INK, "width": 2, "dash": "dash", "shape": "hv"}})
    axis = {"type": "log", "dtick": 1, "gridcolor": RULE, "linecolor": RULE, "zeroline": False}
    layout = {
        "height": 340,
        "margin": {"l": 60, "r": 8, "t": 36, "b": 44},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"size": 11, "color": INK},
        "hovermode": "x",
        "xaxis": {**axis, "title": {"text": "requests a day"}},
        "yaxis": {**axis, "tickprefix": "$", "title": {"text": "a month"}},
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom"},
    }
    return {"data": data, "layout": layout, "config": CONFIG}


def _trace(name: str, xs: Sequence[float], ys: Sequence[float], colour: str) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "x": [float(f"{x:.4g}") for x in xs],
        "y": [float(f"{y:.4g}") for y in ys],
        "line": {"color": colour, "width": 1.8},
    }
