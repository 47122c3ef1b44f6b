"""`%infer dash`: live tables of the session's runs, the pools and their memory, and spending, with its history as bars.

Reads the session, the run log and the pools' status, in a thread where that can block; knows no engine.
"""

from __future__ import annotations

import asyncio
import html
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import ipywidgets as w

from holynb.results import cost_text, dollars
from holynb.translation import say
from holynb.types import SIMULATED
from holynb.ui.live import timer
from holynb.ui.output import ago, bars, listing, seconds
from holynb.ui.output.listing import Listing, Markup
from holynb.ui.panel import pooltable

if TYPE_CHECKING:
    from holynb.pricing import SpendingLine
    from holynb.run import SessionRun
    from holynb.runlog import RunRecord

__all__ = ["Dash", "history", "runs_table", "spending_table"]

#: Refresh intervals: while a run is in progress, and otherwise.
BUSY_INTERVAL_S, IDLE_INTERVAL_S = 0.5, 3.0
MAX_RUNS, HISTORY_DAYS = 12, 14
#: Days whose spending is drawn: with fewer there is nothing to compare.
MIN_DAYS = 2


class Dash:
    """The dashboard. Display `box`; `watch` refreshes it until it is closed."""

    def __init__(self) -> None:
        self.runs, self.pools, self.spending, self.chart = (w.HTML(layout=w.Layout(width="100%")) for _ in range(4))
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
        self.chart.value = history(lines)
        return any(not r.done for r in runs)


def heading(text: str) -> w.HTML:
    """The heading of a section."""
    return w.HTML(f'<h4 style="margin:10px 0 2px;line-height:1.4">{html.escape(say(text))}</h4>')


def runs_table(session: Sequence[SessionRun], stored: Sequence[RunRecord], now: float) -> str:
    """The session's runs, newest first, with their progress; then earlier ones from the log."""
    from holynb.run import spec

    rows = []
    for run in reversed(session[-MAX_RUNS:]):
        summary = run.summary()
        state = "stopped" if run.stopped and run.done else "done" if run.done else "stopping" if run.stopped else "running"
        done = summary.n - summary.running - summary.cancelled
        rows.append(
            [
                run.name or run.id,
                _progress(state, done, summary.n),
                f"{done:,} of {summary.n:,}",
                f"{summary.error:,}",
                summary.money() if done or run.done else "",  # nothing is known yet
                seconds(summary.elapsed),
                spec.routes(run.plan),
                ago(run.started, now),
            ]
        )
    session_ids = {r.id for r in session}
    for r in [r for r in stored if r.id not in session_ids][: max(0, MAX_RUNS - len(rows))]:
        state, duration = (r.status, seconds(r.ended - r.started)) if r.ended else ("unfinished", "")
        rows.append(
            [
                r.name or r.id,
                state,
                f"{r.ok + r.failed:,} of {r.n:,}",
                f"{r.failed:,}",
                cost_text(r.cost, r.route, unknown=r.unknown, simulated=r.simulated),
                duration,
                r.routes,
                ago(r.started, now),
            ]
        )
    if not rows:
        return _nothing("No run yet.")
    return _html(Listing(["Run", "Status", "Rows", "Failed", "Cost", "Time", "Route", "Started"], rows, {2, 3, 4, 5}))


def spending_table(lines: Sequence[SpendingLine]) -> str:
    """Dollars by route and model, most expensive first; answers of unknown price are counted, not summed as 0."""
    from holynb.pricing import spending

    keys = dict.fromkeys((s.route, s.model) for s in lines if s.route)  # no route: stopped before the first answer
    sums = [spending.total([s for s in lines if (s.route, s.model) == key], route=key[0], model=key[1]) for key in keys]
    if not sums:
        return _nothing("Nothing was asked yet.")
    rows = [
        [
            s.route or "?",
            s.model or "?",
            f"{s.rows:,}",
            f"{s.tokens_in:,} + {s.tokens_out:,}",
            cost_text(s.cost, s.route, unknown=s.unknown),
        ]
        for s in sorted(sums, key=lambda s: -(s.cost or 0))
    ]
    return _html(Listing(["Route", "Model", "Answers", "Tokens", "Cost"], rows, {2, 3, 4}))


def history(lines: Sequence[SpendingLine]) -> str:
    """Dollars a day by provider, as stacked bars; empty if fewer than two days have a known cost."""
    priced = [s for s in lines if s.cost and s.day]
    days = sorted({str(s.day) for s in priced})
    if len(days) < MIN_DAYS:
        return ""
    providers = sorted({s.provider or "?" for s in priced})
    stacks = [
        bars.Stack(d, [float(sum(s.cost or 0 for s in priced if str(s.day) == d and (s.provider or "?") == p)) for p in providers])
        for d in days
    ]
    key = [f"{p} (simulated)" if p in SIMULATED else p for p in providers]
    return bars.side_by_side([bars.stacked(say("Dollars a day"), key, stacks, dollars)])


def _html(of: Listing) -> str:
    return listing.as_html([of])


def _nothing(text: str) -> str:
    return f'<div style="color:var(--jp-ui-font-color2,#6b6b6b)">{html.escape(say(text))}</div>'


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
        f'<b aria-hidden="true" style="display:inline-block;width:80px;height:8px;margin-right:6px;border-radius:2px;overflow:hidden;font-size:0;'
        f'background:var(--jp-border-color2,#e0e0e0)">{bar}</b>{state}'
    )
