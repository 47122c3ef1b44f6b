"""The panel's labels in the user's language: walks the widgets that stand there and says again what is written on them."""

from __future__ import annotations

from typing import Any

from holynb.translation import say

__all__ = ["LABELS", "localize", "widgets"]

#: What is written on a widget: beside a field, in it while it is empty, and where the pointer rests.
LABELS = ("description", "placeholder", "tooltip")


def localize(box: Any) -> None:
    """Say the labels of every widget in `box` in the language that is chosen; in English nothing is touched."""
    for widget in widgets(box):
        for name in LABELS:
            if (text := getattr(widget, name, None)) and (shown := say(text)) != text:
                setattr(widget, name, shown)
        if titles := getattr(widget, "titles", ()):
            widget.titles = tuple(map(say, titles))


def widgets(box: Any) -> list[Any]:
    """`box` and all that it holds."""
    return [box, *(inner for child in getattr(box, "children", ()) for inner in widgets(child))]
