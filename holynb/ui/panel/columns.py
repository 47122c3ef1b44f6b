"""The columns of the form's frame, searchable; a press writes one where the cursor stands. The page does it: ipywidgets know no cursor."""

from __future__ import annotations

import anywidget
import traitlets

from holynb.translation import say
from holynb.ui.live.widget import asset

__all__ = ["Columns"]


class Columns(anywidget.AnyWidget):
    """`names` are written as a template has to name them. Without names it is hidden."""

    _esm = asset("columns.js")
    names = traitlets.List(traitlets.Unicode()).tag(sync=True)
    label = traitlets.Unicode().tag(sync=True)
    hint = traitlets.Unicode().tag(sync=True)
    missing = traitlets.Unicode().tag(sync=True)

    def __init__(self) -> None:
        super().__init__(label=say("Columns"), hint=say("Search columns"), missing=say("No such column"))
