"""What stands in for a widget that has no kernel any more: one sentence, in a small output beside the widget's own.

JupyterLab, Notebook 7 and nbconvert prefer the widget of the widget's own output, which says "model not found" once it is gone; the second
output is hidden by the page of a widget that lives (assets/connection.js). GitHub and VS Code show the HTML of both: in the widget's own
it has no words, so that the sentence stands once. Readers of text find it in either.
"""

from __future__ import annotations

import html
import re
import secrets
import time
from collections.abc import Callable, Mapping
from typing import Any

from holynb.ui.output import clean
from holynb.ui.output.html import OPEN_TAG

__all__ = ["FIRST_S", "StandIn", "mimebundle"]

#: The second output is empty until a page has surely drawn the widget, and then says what is so now, no more often than this.
FIRST_S, RENEW_S = 1.5, 10.0
#: Takes away what is said above the sentence, unless it is a widget: "model not found", or the same sentence again. JupyterLab, Notebook 7
#: and nbconvert share these names.
NO_ERROR = ".jp-OutputArea-child:not(:has(>.jp-OutputArea-output>.lm-Widget)):has(+.jp-OutputArea-child .holynb-standin){display:none}"
#: HTML that shows nothing, where none at all would have the text shown in its place.
NO_WORDS = "<div></div>"
COMMAND = re.compile(r"`([^`]*)`")


class StandIn:
    """The sentence of one widget, as text in its own output and as HTML in one beside it.

    `sentence()` says it as it is now; commands stand between backticks. `id` is in the class of the second output: the
    page of the widget hides it by that. stays: what is said there in place of the sentence.
    """

    def __init__(
        self,
        sentence: Callable[[], str],
        *,
        stays: Callable[[], Mapping[str, str]] | None = None,
        identity: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.id = identity or secrets.token_hex(4)
        self._stays = stays
        self._sentence = sentence
        self._clock = clock
        self._due = clock() + FIRST_S
        self._shown: str | None = None
        self._handle: Any = None

    @property
    def said(self) -> bool:
        """Whether the second output says something."""
        return self._shown is not None

    def bundle(self, widget: Any) -> dict[str, Any]:
        """What shows the widget; the sentence is its text, for those who read nothing else."""
        return {**mimebundle(widget), "text/html": NO_WORDS, "text/plain": _spoken(self._sentence())["text/plain"]}

    def open(self) -> None:
        """Make the second output, empty, below the widget's. Without HTML: JupyterLab would load its sanitizer before the first picture."""
        from IPython.display import display

        self._handle = display({"text/plain": ""}, raw=True, display_id=True)  # type: ignore[no-untyped-call]

    def renew(self) -> bool:
        """Say what is so now, when that is due. Returns whether it is."""
        if self._handle is None or self._clock() < self._due:
            return False
        self._due = self._clock() + RENEW_S
        if (sentence := self._sentence()) != self._shown:
            self._shown = sentence
            name = f"holynb-standin holynb-standin-{self.id}"
            whole = self._stays() if self._stays is not None else None
            self._handle.update(_spoken(sentence, name, NO_ERROR) if whole is None else _hideable(whole, name), raw=True)
        return True

    def say_last(self) -> None:
        """Say how it ended."""
        self._due = self._clock()
        self.renew()

    def end(self, bundle: Mapping[str, Any] | None = None) -> bool:
        """Put something else in the place of the second output, or nothing. Returns whether there is such a place."""
        if self._handle is not None:
            self._handle.update(dict(bundle or {"text/html": "", "text/plain": ""}), raw=True)
        return self._handle is not None


def mimebundle(widget: Any) -> dict[str, Any]:
    """What shows a widget, for `display(…, raw=True)`: only that gives a handle which can replace it."""
    bundle = widget._repr_mimebundle_()  # IPython's protocol
    return dict(bundle[0] if isinstance(bundle, tuple) else bundle)


def _hideable(bundle: Mapping[str, str], name: str) -> dict[str, str]:
    return {**bundle, "text/html": f'<style>{NO_ERROR}</style><div class="{name}">{bundle["text/html"]}</div>'}


def _spoken(sentence: str, name: str = "", style: str = "") -> dict[str, str]:
    text = COMMAND.sub(r"<code>\1</code>", html.escape(clean(sentence)))
    styles = f"<style>{style}</style>" if style else ""
    return {
        "text/html": f'{OPEN_TAG}{styles}<div class="{name}" dir="auto">{text}</div></div>',
        "text/plain": clean(sentence).replace("`", ""),
    }
