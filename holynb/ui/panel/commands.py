"""`%infer panel`, `%infer dash` and `%infer show --replay`: the commands that open widgets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from holynb.config import Option
from holynb.errors import BadOption
from holynb.ui.cell import grammar
from kernels_support.jupyter.capabilities import detect

if TYPE_CHECKING:
    from holynb.ui.cell import Host
    from holynb.ui.live.replay import Replay

__all__ = ["dash", "panel", "replay"]

TICK_S = 0.1
PANEL_FLAGS = {"--df": Option("df", ("--df",), "NAME", "the DataFrame to take rows from")}
DASH_FLAGS = {"--beside": Option("beside", ("--beside",), None, "in a tab beside the notebook")}
REPLAY_FLAGS = {
    "--replay": Option("replay", ("--replay",), "FILE", "play a recorded run"),
    "--speed": Option("speed", ("--speed",), "X", "times as fast"),
}


def replay(magic: Host, args: Sequence[str]) -> None:
    """Play a recording through the live view; without widgets, show its final output."""
    from holynb.ui.cell import views
    from holynb.ui.live import recording
    from holynb.ui.live.replay import Replay
    from holynb.ui.output import plots

    values, positional = grammar.parse_options(args, REPLAY_FLAGS)
    if positional or "replay" not in values:
        raise BadOption(f"%infer show --replay FILE [--speed X]; shipped with holynb: {', '.join(recording.shipped())}.")
    source = Replay(recording.read(values["replay"]), _parse_speed(values.get("speed", "1")))
    if not detect(magic.shell).widgets:
        source.finish()
        plots.show(views.text_view(magic.shell), source.report(), "all", magic.shell)
        return
    _play(source)


def _parse_speed(text: str) -> float:
    try:
        speed = float(text)
    except ValueError:
        speed = 0.0
    if not 0 < speed < float("inf"):
        raise BadOption(f"--speed takes a number above 0, not {text!r}.")
    return speed


def _play(source: Replay) -> None:
    from holynb.ui.live import timer
    from holynb.ui.live.widget import Live
    from holynb.ui.output import static

    page = Live(clicks=True)  # the cell ends at once, so clicks arrive
    view = page.open(source)

    def step() -> bool:
        source.advance()
        view.tick()
        if source.over:
            page.end(static.bundle(source.report()))
        return not source.over

    timer.repeat(TICK_S, step)


def panel(magic: Host, args: Sequence[str]) -> None:
    """Open the form that sends prompts and runs pools. Raises BadOption without widgets."""
    values, positional = grammar.parse_options(args, PANEL_FLAGS)
    if positional:
        raise BadOption(f"%infer panel takes --df NAME; unexpected argument {positional[0]!r}.")
    _require_widgets(magic, "panel", "Write a %%infer cell; %%infer? lists every option.")
    df = values.get("df")
    if df is not None:
        from holynb.results import frame

        frame.find_frame(magic.shell.user_ns, df)
    import ipywidgets as w

    from holynb.ui.live import pulse
    from holynb.ui.panel.form import Form
    from holynb.ui.panel.localized import localize
    from holynb.ui.panel.poolform import PoolForm

    form, pools = Form(magic, df), PoolForm()
    tabs = w.Tab([form.box, pools.box], titles=("Ask", "Pools"))
    localize(tabs)
    pulse.show(tabs, "The panel", f"%infer panel{f' --df {df}' if df else ''}")
    pools.watch()


def dash(magic: Host, args: Sequence[str]) -> None:
    """Open the dashboard, in the cell or beside the notebook. Raises BadOption without widgets."""
    values, positional = grammar.parse_options(args, DASH_FLAGS)
    if positional:
        raise BadOption(f"%infer dash takes --beside; unexpected argument {positional[0]!r}.")
    _require_widgets(magic, "dash", "%infer status shows what runs, %infer runs what ran, %infer cost what was spent.")
    from holynb.ui.cell import sidecar
    from holynb.ui.live import pulse
    from holynb.ui.panel.dash import Dash

    dashboard = Dash()
    if "beside" not in values:
        pulse.show(dashboard.box, "The dashboard", "%infer dash")
    elif (reason := sidecar.show_beside(dashboard.box, "The dashboard", "%infer dash --beside")) is not None:
        print(reason)
    dashboard.watch()


def _require_widgets(magic: Host, word: str, instead: str) -> None:
    if not detect(magic.shell).widgets:
        raise BadOption(f"%infer {word} needs a front end with widgets, such as JupyterLab. {instead}")
