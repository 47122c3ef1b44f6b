"""A line below a field: what it is for, or the mistake made there."""

from __future__ import annotations

import html

import ipywidgets as w

from holynb.translation import say

__all__ = ["Note", "sentence"]


def sentence(text: str) -> str:
    """What an option is for, in the user's language. A name or a value that stands first is not written large."""
    shown = say(text)
    first = shown.split(" ", 1)[0].strip(",;:")
    return f"{shown[:1].upper() if first.isalpha() else shown[:1]}{shown[1:]}."


class Note:
    """Display `box`; hidden while there is nothing to say."""

    def __init__(self, sentence: str = "") -> None:
        self.sentence = sentence
        self.box = w.HTML().add_class("holynb-sentence")
        self.clear()

    def clear(self) -> None:
        """Show the sentence again."""
        self._say(self.sentence)

    def wrong(self, text: str) -> None:
        """Show a mistake, which is also read out."""
        self._say(say(text), ' class="holynb-wrong" role="alert"')

    def _say(self, text: str, looks: str = "") -> None:
        self.box.value = f"<div{looks}>{html.escape(text)}</div>" if text else ""
        self.box.layout.display = "flex" if text else "none"
