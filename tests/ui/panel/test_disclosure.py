"""A part of a form that is hidden until its button is pressed."""

from __future__ import annotations

import ipywidgets as w

from holynb.ui.panel.disclosure import unfolding


def test_a_part_is_shown_and_hidden_by_its_button() -> None:
    for part, display in ((w.GridBox(), "grid"), (w.VBox(), "flex")):
        button = unfolding(part, "More")
        assert (part.layout.display, button.icon) == ("none", "caret-right")
        button.value = True
        assert (part.layout.display, button.icon) == (display, "caret-down")
        button.value = False
        assert (part.layout.display, button.icon) == ("none", "caret-right")
