"""`%infer panel`, `%infer dash` and `%infer show --replay`: the words that open something to look at or to click on."""

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

EVERY = 0.1
PANEL = {"--df": Option("df", ("--df",), "NAME", "the DataFrame to take rows from")}
DASH = {"--beside": Option("beside", ("--beside",), None, "in a tab beside the notebook")}
REPLAY = {
    "--replay": Option("replay", ("--replay",), "FILE", "play a recorded run"),
    "--speed": Option("speed", ("--speed",), "X", "times as fast"),
}


def replay(magic: Host, rest: Sequence[str]) -> None:
    """Play a recording through the live view; where there are no widgets, show how it ended."""
    from holynb.ui.cell import views
    from holynb.ui.live import recording
    from holynb.ui.live.replay import Replay
    from holynb.ui.output import plots

    said, left = grammar.words(rest, REPLAY)
    if left or "replay" not in said:
        raise BadOption(f"%infer show --replay FILE [--speed X]; shipped with holynb: {', '.join(recording.shipped())}.")
    playing = Replay(recording.read(said["replay"]), _speed(said.get("speed", "1")))
    if not detect(magic.shell).widgets:
        playing.finish()
        plots.show(views.text_view(magic.shell), playing.report(), "all", magic.shell)
        return
    _play(playing)


def _speed(said: str) -> float:
    try:
        speed = float(said)
    except ValueError:
        speed = 0.0
    if not 0 < speed < float("inf"):
        raise BadOption(f"--speed takes a number above 0, not {said!r}.")
    return speed


def _play(playing: Replay) -> None:
    from holynb.ui.live import timer
    from holynb.ui.live.widget import Live
    from holynb.ui.output import static

    page = Live(clicks=True)  # the cell ends at once, so clicks arrive
    view = page.open(playing)

    def step() -> bool:
        playing.advance()
        view.tick()
        if playing.over:
            page.end(static.bundle(playing.report()))
        return not playing.over

    timer.repeat(EVERY, step)


def panel(magic: Host, rest: Sequence[str]) -> None:
    """Open the form: ask, and run pools, without typing a magic."""
    said, left = grammar.words(rest, PANEL)
    if left:
        raise BadOption(f"%infer panel takes --df NAME, and {left[0]!r} is one word too many.")
    _widgets(magic, "panel", "Write a %%infer cell; %%infer? lists every option.")
    df = said.get("df")
    if df is not None:
        from holynb.results import frame

        frame.find_frame(magic.shell.user_ns, df)
    import ipywidgets as w
    from IPython.display import display

    from holynb.ui.panel.form import Form
    from holynb.ui.panel.poolform import PoolForm

    form, pools = Form(magic, df), PoolForm()
    display(w.Tab([form.box, pools.box], titles=("Ask", "Pools")))  # type: ignore[no-untyped-call]
    pools.watch()


def dash(magic: Host, rest: Sequence[str]) -> None:
    """Open the dashboard, in the cell or beside the notebook."""
    said, left = grammar.words(rest, DASH)
    if left:
        raise BadOption(f"%infer dash takes --beside, and {left[0]!r} is one word too many.")
    _widgets(magic, "dash", "%infer status shows what runs, %infer runs what ran, %infer cost what was spent.")
    from IPython.display import display

    from holynb.ui.cell import sidecar
    from holynb.ui.panel.dash import Dash

    made = Dash()
    if "beside" not in said:
        display(made.box)  # type: ignore[no-untyped-call]
    elif (why := sidecar.show_beside(made.box, "holynb")) is not None:
        print(why)
    made.watch()


def _widgets(magic: Host, word: str, instead: str) -> None:
    if not detect(magic.shell).widgets:
        raise BadOption(f"%infer {word} needs a front end with widgets, such as JupyterLab, and there is none here. {instead}")
