"""A run as the value of a cell: the live view while it goes on, on the kernel's own loop, then the final output in its place."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from holynb.translation import say
from holynb.ui.cell import displayhook, views
from holynb.ui.cell.wait import WaitState
from holynb.ui.live import timer
from holynb.ui.output import plots, report, static
from holynb.words import counted
from kernels_support.jupyter.capabilities import detect

if TYPE_CHECKING:
    from holynb.run import Run

__all__ = ["hand_over", "show"]

#: A run that the run log answers is done sooner, and needs no live view: a page fails to open one that is gone before it has read it.
GRACE_S = 0.15


def show(run: Run, shell: Any) -> None:
    """Show it. Returns almost at once; where no view follows a run that goes on, one line says what can."""
    with suppress(Exception):  # how it ended is shown below
        run.wait(GRACE_S)
    if run.done:
        plots.show(views.text_view(shell), report.of(run), run.options.show, shell)
        return
    if not detect(shell).widgets or run.options.show == "none":
        print(line(run))
        return
    from holynb.ui.live.widget import Live

    page = Live(clicks=True)  # the cell ends at once, so clicks arrive
    state = WaitState(run, page, quiet_s=0.0)
    state.poll(0)  # in the cell, whose output it is
    if state.view_error is not None:
        print(line(run))

    def step() -> bool:
        if state.poll(0):
            return True
        page.end(static.bundle(state.report(), run.options.show))
        return False

    timer.repeat(page.interval_s, step)


def hand_over(run: Run, name: str | None, shell: Any, *, shown: bool, line: str = "") -> Run | None:
    """A run that goes on as what its cell gives: bound to `name`, or returned, for its display to show it. `line`: said beside it."""
    if line and shown:
        print(say(line))
    if name is None:
        if not shown:
            displayhook.replace_display(shell, run)
        return run
    shell.push({name: run})
    if shown:
        show(run, shell)
    return None


def line(run: Run) -> str:
    """A run that goes on, in one line, with the commands that show, stop and resume it."""
    from holynb.run import spec

    name, summary = run.name or run.id, run.summary()
    ended = summary.n - summary.running
    commands = " · ".join(f"%infer {word} {name}" for word in ("show", "stop", "resume"))
    return f"Run {name} on {spec.routes(run.plan)}: {ended:,} of {counted(summary.n, 'row')}. {commands}"
