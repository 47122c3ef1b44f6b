"""A button that shows and hides a part of a form. Knows nothing of what is in it."""

from __future__ import annotations

from typing import Any

import ipywidgets as w

__all__ = ["unfolding"]


def unfolding(part: w.Box, title: str) -> w.ToggleButton:
    """The button for a part, which begins hidden. The heads of ipywidgets' Accordion are out of a keyboard's reach."""
    button = w.ToggleButton(description=title, layout=w.Layout(width="auto", align_self="flex-start"))
    display = "grid" if isinstance(part, w.GridBox) else "flex"

    def turn(_: Any) -> None:
        part.layout.display = display if button.value else "none"
        button.icon = "caret-down" if button.value else "caret-right"

    button.observe(turn, "value")
    turn(None)
    return button
