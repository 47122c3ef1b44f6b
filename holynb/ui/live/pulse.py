"""A form or a dashboard that stays: it says so when its kernel is gone, and a sentence stands in for it in a notebook that is saved."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import anywidget
import ipywidgets as w
import traitlets

from holynb.translation import brief, page
from holynb.ui.live import timer
from holynb.ui.live.assets import asset
from holynb.ui.live.standin import FIRST_S, StandIn

__all__ = ["Pulse", "show", "watched"]

BEAT_S = 1.0


class Pulse(anywidget.AnyWidget):
    """Without a face while its kernel answers; then it says so, and takes the widgets beside it out of reach. First in their box.

    A page that hears from its front end how the kernel is needs nothing else. Any other asks for a beat, once a second, until it is closed.
    """

    _esm = asset("page.js", "connection.js", "pulse.js")
    _css = asset("connection.css")
    about = traitlets.Dict().tag(sync=True)
    texts = traitlets.Dict().tag(sync=True)

    def __init__(self, about: Mapping[str, str]) -> None:
        super().__init__(about=dict(about), texts=dict(page()))
        self._beats = False
        self.on_msg(self._on_message)

    def _on_message(self, _widget: Any, content: object, _buffers: Any) -> None:
        if content == {"cmd": "beat"} and not self._beats:
            self._beats = True
            timer.repeat(BEAT_S, self._beat)

    def _beat(self) -> bool:
        if self.comm is None:
            return False
        self.send({})
        return True


def show(widget: w.Widget, what: str, again: str) -> None:
    """Display a widget that stays (a form, a dashboard) with its sentence. what: "The panel"; again: the command that opens it again."""
    from IPython.display import display

    standin = StandIn(lambda: brief(f"{brief(what)} was open here. `{again}` opens it again."))
    display(standin.bundle(watched(widget, again, standin.id)), raw=True)  # type: ignore[no-untyped-call]
    standin.open()

    timer.repeat(FIRST_S, lambda: not standin.renew())


def watched(widget: w.Widget, again: str, identity: str = "") -> w.VBox:
    """The widget in a box that says so when its kernel is gone. identity: of the sentence that the page hides until then."""
    pulse = Pulse({"standin": identity, "again": again, "then": brief("opens it again")})
    return w.VBox([pulse, widget], layout=w.Layout(width="100%"))
