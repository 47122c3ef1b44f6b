"""The field of the route: whatever is typed, and below it the models that fit, each with its facts. The page searches; nothing is asked."""

from __future__ import annotations

from typing import Any

import anywidget
import ipywidgets as w
import traitlets

from holynb.translation import say
from holynb.ui.live.assets import asset
from holynb.ui.panel import offers

__all__ = ["Picker"]

#: Of a route.
MAX_CHARS = 2_000


class Picker(anywidget.AnyWidget):
    """`value` is what was typed or picked. The list is made when the field is first entered, and again whenever it is: keys come and go."""

    _esm = asset("picker.js")
    value = traitlets.Unicode().tag(sync=True, echo_update=False)
    offers = traitlets.List(traitlets.List(traitlets.Unicode())).tag(sync=True)
    description = traitlets.Unicode().tag(sync=True)
    placeholder = traitlets.Unicode().tag(sync=True)
    missing = traitlets.Unicode().tag(sync=True)

    def __init__(self, description: str, placeholder: str) -> None:
        super().__init__(
            description=description,
            placeholder=placeholder,
            missing=say("No such model; any PROVIDER/MODEL can be typed"),
            layout=w.Layout(width="100%"),
        )
        self._access: dict[str, offers.Access] = {}
        self.on_msg(self._on_message)

    def renew(self) -> None:
        """Read models, prices and keys again; only what has changed is sent."""
        self._access = {}
        self.offers = offers.listing(self._access)

    def facts(self, *, again: bool = False) -> str:
        """What is known of the model that is named, in a sentence. again: whether its key is looked for again."""
        if again:
            self._access = {}
        return offers.facts(self.value.strip(), self._access)

    def _on_message(self, _widget: Any, content: object, _buffers: Any) -> None:
        match content:
            case {"cmd": "entered"}:
                self.renew()
            case {"cmd": "typed", "value": str(text)}:
                self.set_state({"value": text[:MAX_CHARS]})  # and nothing is sent back: the page may be ahead
