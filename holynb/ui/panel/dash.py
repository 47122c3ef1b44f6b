"""`%infer dash`: live tables of the session's runs, the pools and their memory, and spending, with its history as a plotly figure.

Reads the session, the run log and the pools' status, in a thread where that can block; knows no engine.
"""

from __future__ import annotations

import asyncio
import html
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import ipywidgets as w

from holynb.results import cost_text
from holynb.ui.live import timer
from holynb.ui.output import COLOURS, ago, plots, seconds
from holynb.ui.panel import pooltable

if TYPE_CHECKING:
    from holynb.pricing import SpendingLine
    from holynb.run import SessionRun
    from holynb.runlog import RunRecord

__all__ = ["Dash", "history_figure", "runs_table", "spending_table"]

#: Refresh intervals: while a run is in progress, and otherwise.
BUSY_INTERVAL_S, IDLE_INTERVAL_S = 0.5, 3.0
MAX_RUNS, HISTORY_DAYS = 12, 14
#: Where there is little room names break anywhere and figures between their words, so that nobody has to scroll sideways.
TEXT_STYLE = "padding:2px 10px 2px 0;text-align:left;vertical-align:top;white-space:normal;overflow-wrap:anywhere;min-width:3em"
NUMBER_STYLE = "padding:2px 10px 2px 0;text-align:right;vertical-align:top;white-space:normal;font-variant-numeric:tabular-nums"


class Dash:
    """The dashboard. Display `box`; `watch` refreshes it until it is closed."""

    def __init__(self) -> None:
        self.runs, self.pools, self.spending = (w.HTML(layout=w.Layout(width="100%", overflow="auto")) for _ in range(3))
        self.chart = w.Output(layout=w.Layout(width="100%"))
        self._figure: Any = None
        parts = [heading("Runs"), self.runs, heading("Pools"), self.pools, heading("Spending, last 14 days"), self.spending, self.chart]
        self.box = w.VBox(parts, layout=w.Layout(width="100%", padding="2px 8px 8px 2px"))

    def watch(self) -> None:
        """Start refreshing on the kernel's event loop."""
        timer.start(self._watch())

    async def _watch(self) -> None:
        while self.box.comm is not None:
            busy = await self.refresh()
            await asyncio.sleep(BUSY_INTERVAL_S if busy else IDLE_INTERVAL_S)

    async def refresh(self) -> bool:
        """Update every table and the chart. Returns whether a run is in progress."""
        from holynb import pools, runlog
        from holynb.run import session

        runs = session.runs()
        self.runs.value = await asyncio.to_thread(lambda: runs_table(runs, runlog.log().runs(MAX_RUNS), time.time()))
        self.pools.value = pooltable.table(await asyncio.to_thread(pools.listing))
        lines = await asyncio.to_thread(_load_spending)
        self.spending.value = spending_table(lines)
        self._draw(lines)
        return any(not r.done for r in runs)

    def _draw(self, lines: Sequence[SpendingLine]) -> None:
        """Draw the chart if it has changed: drawing is the most expensive part."""
        figure = history_figure(lines)
        if figure != self._figure:
            self._figure = figure
            data = {plots.MIME: figure, "text/plain": "spending by day"}
            self.chart.outputs = ({"output_type": "display_data", "data": data, "metadata": {}},) if figure else ()


def heading(text: str) -> w.HTML:
    """The heading of a section."""
    return w.HTML(f'<h4 style="margin:8px 0 2px">{html.escape(text)}</h4>')


class Markup(str):
    """A cell that is HTML already. Told by its type: a model may call itself `<b …`."""

    __slots__ = ()


def table(head: Sequence[str], rows: Iterable[Sequence[str]], numbers: int) -> str:
    """Rows as an HTML table; the last `numbers` columns are numeric. Escapes every cell that is not Markup."""
    styles = [TEXT_STYLE] * (len(head) - numbers) + [NUMBER_STYLE] * numbers
    lines = [
        "".join(f'<td style="{s}">{c if isinstance(c, Markup) else html.escape(c)}</td>' for s, c in zip(styles, row, strict=True))
        for row in rows
    ]
    top = "".join(f'<th scope="col" style="{s};overflow-wrap:normal">{html.escape(h)}</th>' for s, h in zip(styles, head, strict=True))
    return f'<table style="border-collapse:collapse;line-height:1.5"><tr>{top}</tr>{"".join(f"<tr>{line}</tr>" for line in lines)}</table>'


def runs_table(session: Sequence[SessionRun], stored: Sequence[RunRecord], now: float) -> str:
    """The session's runs, newest first, with their progress; then earlier ones from the log."""
    rows = []
    for run in reversed(session[-MAX_RUNS:]):
        summary = run.summary()
        state = "stopped" if run.stopped and run.done else "done" if run.done else "stopping" if run.stopped else "running"
        done = summary.n - summary.running - summary.cancelled
        rows.append(
            [
                run.name or run.id,
                str(run.route),
                ago(run.started, now),
                _progress(state, done, summary.n),
                f"{done:,} of {summary.n:,}",
                f"{summary.error:,}",
                summary.money(),
                seconds(summary.elapsed),
            ]
        )
    session_ids = {r.id for r in session}
    for r in [r for r in stored if r.id not in session_ids][: max(0, MAX_RUNS - len(rows))]:
        state, duration = (r.status, seconds(r.ended - r.started)) if r.ended else ("unfinished", "")
        rows.append(
            [
                r.name or r.id,
                r.route,
                ago(r.started, now),
                state,
                f"{r.ok + r.failed:,} of {r.n:,}",
                f"{r.failed:,}",
                cost_text(r.cost, r.route, unknown=r.unknown),
                duration,
            ]
        )
    if not rows:
        return '<div style="color:var(--jp-ui-font-color2,#808080)">No run yet.</div>'
    return table(["Run", "Route", "Started", "State", "Rows", "Failed", "Cost", "Time"], rows, 4)


def spending_table(lines: Sequence[SpendingLine]) -> str:
    """Dollars by route and model, most expensive first; answers of unknown price are counted, not summed as 0."""
    from holynb.pricing import spending

    keys = dict.fromkeys((s.route, s.model) for s in lines if s.route)  # no route: stopped before the first answer
    sums = [spending.total([s for s in lines if (s.route, s.model) == key], route=key[0], model=key[1]) for key in keys]
    if not sums:
        return '<div style="color:var(--jp-ui-font-color2,#808080)">Nothing was asked yet.</div>'
    rows = [
        [
            s.provider or "?",
            s.route or "",
            s.model or "?",
            f"{s.rows:,}",
            f"{s.tokens_in:,} + {s.tokens_out:,}",
            cost_text(s.cost, s.route, unknown=s.unknown),
        ]
        for s in sorted(sums, key=lambda s: -(s.cost or 0))
    ]
    return table(["Provider", "Route", "Model", "Answers", "Tokens", "Cost"], rows, 3)


def history_figure(lines: Sequence[SpendingLine]) -> dict[str, Any]:
    """Dollars a day by provider, stacked, in plotly's JSON; empty if fewer than two days have a known cost."""
    priced = [s for s in lines if s.cost and s.day]
    days = sorted({str(s.day) for s in priced})
    if len(days) < 2:
        return {}
    data = []
    for i, provider in enumerate(sorted({s.provider or "?" for s in priced})):
        sums = [float(sum(s.cost or 0 for s in priced if str(s.day) == d and (s.provider or "?") == provider)) for d in days]
        colour = COLOURS[i % len(COLOURS)].partition(",")[2].rstrip(")")
        data.append(
            {
                "type": "bar",
                "name": plots.literal(provider) + " (simulated)" * (provider == "sim"),
                "x": days,
                "y": sums,
                "marker": {"color": colour},
            }
        )
    transparent = "rgba(0,0,0,0)"
    axis = {"gridcolor": plots.RULE, "zeroline": False}
    layout = {
        "barmode": "stack",
        "height": 220,
        "margin": {"l": 56, "r": 8, "t": 8, "b": 30},
        "paper_bgcolor": transparent,
        "plot_bgcolor": transparent,
        "font": {"size": 11, "color": plots.INK},
        "showlegend": True,
        "xaxis": {**axis, "type": "category"},
        "yaxis": {**axis, "tickprefix": "$"},
    }
    return {"data": data, "layout": layout, "config": plots.CONFIG}


def _load_spending() -> list[SpendingLine]:
    from holynb import runlog
    from holynb.pricing import spending

    return spending.by_day(runlog.log(), since=time.time() - HISTORY_DAYS * 86400)


def _progress(state: str, done: int, n: int) -> str:
    if state not in ("running", "stopping"):
        return state
    share = 100 * done / n if n else 100
    bar = f'<span style="display:inline-block;height:100%;width:{share:.1f}%;background:var(--jp-brand-color1,#1976d2)"></span>'
    return Markup(
        f'<b style="display:inline-block;width:60px;height:8px;margin-right:6px;border-radius:2px;overflow:hidden;font-size:0;'
        f'background:var(--jp-border-color2,#e0e0e0)">{bar}</b>{state}'
    )
