"""A run that is shown again: the live table, to sort, search, compare and export, where there is a front end for it; else what stays.

A notebook that is saved keeps what stays: it is in an output of its own, hidden while the table has a kernel.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from holynb.ui.cell import views
from holynb.ui.output import plots, static
from kernels_support.jupyter.capabilities import detect

if TYPE_CHECKING:
    from holynb.ui.live.export import Export
    from holynb.ui.live.source import ViewSource
    from holynb.ui.live.widget import LiveView
    from holynb.ui.output.report import Report

__all__ = ["show"]

#: Tables that stay open. Of an older one the page shows what stays: each holds its rows in the kernel.
MAX_OPEN = 8

_open: deque[LiveView] = deque()


def show(run_report: Report, parts: str, shell: Any) -> None:
    """Show it. parts: all, table, charts or none. One answer alone is shown whole: there is nothing to sort."""
    has_table = parts in ("all", "table") and len(run_report.rows) > 1
    loop = _running_loop()
    if not (has_table and loop is not None and detect(shell).widgets):
        plots.show(views.text_view(shell), run_report, parts, shell)
        return
    from holynb.ui.live.widget import Live

    source, export, stays = _source(run_report, parts)
    has_events = bool(run_report.events)
    page = Live(clicks=True)  # the cell ends at once, so clicks arrive
    view = page.open(source, parts if has_events else "table", export, stays)
    if parts == "all" and not has_events and (charts := plots.bundle(run_report)):
        views.display_bundle(charts)
    while len(_open) >= MAX_OPEN:
        _open.popleft().close()
    _open.append(view)
    _keep_fresh(view, page.interval_s, loop)


def _source(run_report: Report, parts: str) -> tuple[ViewSource, Export, Callable[[], dict[str, str]]]:
    """What a table of the run reads, what takes its rows out, and what stays of it."""
    from holynb.run import Run, session
    from holynb.ui.live.export import Export
    from holynb.ui.live.replay import Logged
    from holynb.ui.live.source import RunSource
    from holynb.ui.output import report

    run = session.find(run_report.run)
    if not isinstance(run, Run):
        logged = Logged(run_report)
        without_charts = "table" if parts == "all" else parts  # they have an output of their own
        return logged, Export(logged.name, run_report.prompts, logged.frame), lambda: static.bundle(run_report, without_charts)
    source = RunSource(run)
    source.info = replace(source.info, format=run_report.format)
    export = Export(source.name, run_report.prompts, run.frame, run.result)
    return source, export, lambda: static.bundle(replace(report.of(run), format=run_report.format), parts)


def _keep_fresh(view: LiveView, pause_s: float, loop: asyncio.AbstractEventLoop) -> None:
    """Tick until there is nothing to send, and again when a page asks."""
    from holynb.ui.live import timer

    ticking = False

    def step() -> bool:
        nonlocal ticking
        if view.widget.comm is not None:
            view.tick()
        ticking = view.widget.comm is not None and not view.settled
        return ticking

    def start() -> None:
        nonlocal ticking
        if not ticking:
            ticking = True
            timer.repeat(pause_s, step)

    def wake() -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(start)

    view.wake = wake
    start()


def _running_loop() -> asyncio.AbstractEventLoop | None:
    with suppress(RuntimeError):
        return asyncio.get_running_loop()
    return None
