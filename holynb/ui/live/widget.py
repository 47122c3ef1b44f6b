"""The live view: one widget with a table and charts, told what changed one message a tick. Reads a source; touches no engine.

It is opened by the cell that waits (`Live`, a page of `views`), or by a form that holds its widget. At its end its output is replaced by
plain HTML: a widget that is saved in a notebook shows an error when the notebook is opened again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

import anywidget
import traitlets

from holynb.ui.live.feed import TAIL, Feed
from holynb.ui.live.source import RunSource, ViewSource, detail

if TYPE_CHECKING:
    from holynb.run import Run

__all__ = ["Live", "LiveView", "asset"]

#: Put together into one module of the page, in this order. uPlot is Leon Sorokin's, MIT (assets/uplot.LICENSE).
SCRIPTS = ("uplot.js", "page.js", "charts.js", "table.js", "detail.js", "head.js", "live.js")
#: Until a page has said that it is there, and no longer than this, it is told everything each time: it may not have been listening yet.
OPENING_S = 4.0


@cache
def asset(*names: str) -> str:
    """Files of `assets` as one text, without indentation and lines of comment: it is sent for every view."""
    text = "\n".join((resources.files("holynb.ui") / "assets" / name).read_text(encoding="utf-8") for name in names)
    lines = (line.strip() for line in text.splitlines())
    return "\n".join(line for line in lines if line and not line.startswith(("//", "/** ")))


class LiveWidget(anywidget.AnyWidget):
    """What the page draws. `first` is the snapshot of the moment it opened."""

    _esm = asset(*SCRIPTS)
    _css = asset("live.css")
    first = traitlets.Dict().tag(sync=True)


class LiveView:
    """One view of one source. `tick` and `finish` in the main thread; clicks may come from any.

    clicks: whether a click reaches the kernel while the run goes on; without it no Stop is offered.
    parts:  all, table or charts.
    """

    def __init__(self, source: ViewSource, *, clicks: bool = True, parts: str = "all", clock: Callable[[], float] = time.monotonic) -> None:
        self.source = source
        self.feed = Feed(source.asked)
        self.pages: set[str] = set()
        self.width: int | None = None
        self._clicks = clicks
        self._parts = parts
        self._cursor = 0
        self._seq = 0
        self._clock = clock
        self._opened = clock()
        self._again = False
        self._over = False
        self._take()
        self.widget = LiveWidget(first=self._snapshot())
        self.widget.on_msg(self._heard)

    def tick(self) -> None:
        """Tell the page what has changed, in one message."""
        self._take()
        blind = not self.pages and self._clock() - self._opened < OPENING_S
        if self._again or blind:
            self._again = False
            self.widget.send(self._snapshot())
        else:
            self._seq += 1
            self.widget.send({"seq": self._seq, **self.feed.delta(self._head())})

    def finish(self) -> None:
        """Tell the page everything; whoever opens it later is told then."""
        self._take()
        self._over = True
        self.widget.send(self._snapshot())

    def close(self) -> None:
        """Take the widget away."""
        self.widget.close()

    # -- inside ----------------------------------------------------------------------------------------------------
    def _take(self) -> None:
        events, self._cursor = self.source.journal.events_since(self._cursor)
        most = TAIL if self.feed.n != 1 else 10**9
        self.feed.take(events, self.source.journal.text_tails(most), self.source.elapsed)

    def _head(self) -> dict[str, Any]:
        return self.feed.head(self.source.elapsed, self.source.state)

    def _snapshot(self) -> dict[str, Any]:
        self._seq += 1
        over = self.source.state in ("done", "stopped")
        more = {"seq": self._seq, "stop": self._clicks and not over, "recorded": self.source.label, "parts": self._parts}
        return {**self.feed.snapshot(self._head(), whole=self._over), **more}

    def _heard(self, _widget: Any, content: Mapping[str, Any], _buffers: Any) -> None:
        """What the page says. Never raises into the kernel's message loop for what a page may send."""
        match content:
            case {"cmd": "stop"}:
                self.source.cancel()
            case {"cmd": "ready", "page": str(page), "seq": int(seq)}:
                self.pages.add(page)
                self.width = width if isinstance(width := content.get("width"), int) and width > 0 else self.width
                if self._over:
                    self.widget.send(self._snapshot())
                elif seq != self._seq:
                    self._again = True
            case {"cmd": "row", "row": int(row)} if 0 <= row < self.feed.n:
                self.widget.send(detail(self.source, row))
            case {"cmd": "look", "first": int(first), "last": int(last)}:
                self.feed.look(first, last)


class Live:
    """The live view as the page of a waiting cell: opened at the first paint, replaced by what stays at the end."""

    every = 0.1

    def __init__(self, *, clicks: bool) -> None:
        self._clicks = clicks
        self._view: LiveView | None = None
        self._handle: Any = None

    @property
    def width(self) -> int | None:
        """Of the view, in CSS pixels, as its page said."""
        return None if self._view is None else self._view.width

    def paint(self, run: Run) -> None:
        """Open, then one message a call."""
        if self._view is not None:
            self._view.tick()
        elif run.options.show != "none":
            self.open(RunSource(run), run.options.show)

    def open(self, source: ViewSource, parts: str = "all") -> LiveView:
        """Show a source; whoever opens it ticks the view."""
        self._view = LiveView(source, clicks=self._clicks, parts=parts)
        self._put(mimebundle(self._view.widget))
        return self._view

    def end(self, bundle: Mapping[str, str]) -> None:
        """Put what stays in the place of the view. A page that was reloaded has lost that place: there the view stays, with everything."""
        view, self._view = self._view, None
        if view is not None and len(view.pages) > 1:
            view.finish()
            return
        if bundle or self._handle is not None:
            self._put(dict(bundle) or {"text/plain": ""})
        if view is not None:
            view.close()

    def _put(self, bundle: Mapping[str, Any]) -> None:
        from IPython.display import display

        if self._handle is None:
            self._handle = display(dict(bundle), raw=True, display_id=True)  # type: ignore[no-untyped-call]
        else:
            self._handle.update(dict(bundle), raw=True)


def mimebundle(widget: Any) -> dict[str, Any]:
    """What shows a widget, for `display(…, raw=True)`: only so is there a handle that can replace it."""
    made = widget._repr_mimebundle_()  # IPython's protocol
    return dict(made[0] if isinstance(made, tuple) else made)
