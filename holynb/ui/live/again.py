"""What the page draws of a run that is shown again: its rows can be compared and taken out. Loaded for such a run alone."""

from __future__ import annotations

import anywidget
import traitlets

from holynb.ui.live.assets import DRAWING, asset, packed

__all__ = ["AGAIN", "AgainWidget"]

AGAIN = ("export.js", "compare.js", "again.js")


class AgainWidget(anywidget.AnyWidget):
    """As LiveWidget, with the scripts of such a run before the last one, which begins."""

    _esm = packed(asset(*DRAWING[:-1], *AGAIN, DRAWING[-1]))
    _css = asset("live.css", "connection.css", "export.css")
    first = traitlets.Dict().tag(sync=True)
    texts = traitlets.Dict().tag(sync=True)
