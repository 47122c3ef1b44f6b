"""`%infer panel`, `%infer dash` and `%infer show --replay`: the words that open something to look at or to click on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from holynb.errors import BadOption
from holynb.options import Option
from holynb.ui import grammar
from kernels_support.jupyter.capabilities import detect

if TYPE_CHECKING:
    from holynb.ui.magic import InferMagic
    from holynb.ui.replay import Replay

__all__ = ["replay"]

EVERY = 0.1
REPLAY = {
    "--replay": Option("replay", ("--replay",), "FILE", "play a recorded run"),
    "--speed": Option("speed", ("--speed",), "X", "times as fast"),
}


def replay(magic: InferMagic, rest: Sequence[str]) -> None:
    """Play a recording through the live view; where there are no widgets, show how it ended."""
    from holynb.ui import plots, recording, views
    from holynb.ui.replay import Replay

    said, left = grammar.words(rest, REPLAY)
    if left or "replay" not in said:
        raise BadOption(f"%infer show --replay FILE [--speed X]; shipped with holynb: {', '.join(recording.shipped())}.")
    playing = Replay(recording.read(said["replay"]), _speed(said.get("speed", "1")))
    if not detect(magic.shell).widgets:
        playing.finish()
        plots.leave(views.plain(magic.shell), playing.record(), "all", magic.shell)
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
    from holynb.ui import pulse, static
    from holynb.ui.live import Live

    page = Live(clicks=True)  # the cell ends at once, so clicks arrive
    view = page.open(playing)

    def step() -> bool:
        playing.advance()
        view.tick()
        if playing.over:
            page.end(static.bundle(playing.record()))
        return not playing.over

    pulse.beat(EVERY, step)
