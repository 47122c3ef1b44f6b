"""The live view: one widget with a table and charts, sent what changed in one message a tick. Reads a source; touches no engine.

It is opened by the cell that waits (`Live`, a page of `views`), or by a form that holds its widget. At its end its output is replaced by
plain HTML; until then a sentence stands in for it in a notebook that is saved (`standin`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import anywidget
import traitlets

from holynb.translation import brief, page
from holynb.ui.live.assets import DRAWING, asset, packed
from holynb.ui.live.feed import UNLIMITED, Feed
from holynb.ui.live.in_flight import ANSWER_CHARS
from holynb.ui.live.protocol import (
    DetailRequest,
    ExportRequest,
    Head,
    PageReady,
    SnapshotMessage,
    StopRequest,
    ViewOptions,
    VisibleRange,
    parse_page_message,
)
from holynb.ui.live.source import RunSource, ViewSource
from holynb.ui.live.standin import StandIn
from holynb.words import counted

if TYPE_CHECKING:
    from holynb.run import Run
    from holynb.ui.live.export import Export

__all__ = ["Live", "LiveView", "asset"]

#: Until a page has said that it is ready, and no longer than this, each message is a snapshot: it may not have been listening yet.
OPENING_S = 4.0


class LiveWidget(anywidget.AnyWidget):
    """What the page draws. `first` is the snapshot of the moment it opened; `texts`: what it says in the language that is chosen."""

    _esm = packed(asset(*DRAWING))
    _css = asset("live.css", "connection.css")
    first = traitlets.Dict().tag(sync=True)
    texts = traitlets.Dict().tag(sync=True)


class LiveView:
    """One view of one source. `tick` and `finish` in the main thread; the page's messages may come in any.

    clicks: whether a click reaches the kernel while the run goes on; without it no Stop is offered.
    parts:  all, table or charts.
    export: what the rows can be taken out by. stays: what a saved notebook shows in place of the sentence.
    """

    last_width: int | None = None
    """CSS pixels, of the page that said so last, whichever view it drew."""

    def __init__(
        self,
        source: ViewSource,
        *,
        clicks: bool = True,
        parts: str = "all",
        export: Export | None = None,
        stays: Callable[[], Mapping[str, str]] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.source = source
        self.feed = Feed(source.info)
        self.standin = StandIn(self._sentence, stays=stays)
        self.wake: Callable[[], None] = lambda: None
        """Called when a tick is due of a view that nobody ticks any more; in any thread."""
        self.pages: set[str] = set()
        self.width: int | None = None
        """CSS pixels, of the page that last said so."""
        self._clicks = clicks
        self._parts = parts
        self._export = export
        self._cursor = 0
        self._clock = clock
        self._opened = clock()
        self._snapshot_due = False
        self._over = False
        self._fold_new()
        self.widget: Any = _widget_class(again=export is not None)(first=self._snapshot(), texts=dict(page()))
        self.widget.on_msg(self._on_message)

    def tick(self) -> None:
        """Send what has changed, in one message."""
        self._fold_new()
        nobody_ready = not self.pages and self._clock() - self._opened < OPENING_S
        if self._snapshot_due or nobody_ready:
            self._snapshot_due = False
            self.widget.send(self._snapshot())
        else:
            self.widget.send(self.feed.delta(self._head()))
        self.standin.renew()

    @property
    def settled(self) -> bool:
        """Whether there is nothing to send until a page asks, or the run goes on."""
        return self.source.state in ("done", "stopped") and self.feed.drained and not self._snapshot_due and self.standin.said

    def finish(self) -> None:
        """Send everything, now and to each page that opens later."""
        self._fold_new()
        self._over = True
        self.widget.send(self._snapshot())
        self.standin.say_last()

    def close(self) -> None:
        """Take the widget away."""
        self.widget.close()

    # -- inside ----------------------------------------------------------------------------------------------------
    def _fold_new(self) -> None:
        for events in self.source.journal.parts_since(self._cursor):
            self.feed.fold_events(events)
            self._cursor += len(events)
        max_chars = ANSWER_CHARS if self.feed.n != 1 else UNLIMITED
        journal, thoughts = self.source.journal, self.source.journal.partial_thoughts(0) if self.feed.n == 1 else None
        self.feed.fold((), journal.text_starts(max_chars), self.source.elapsed, journal.thinking(), thoughts or "")

    def _head(self) -> Head:
        return self.feed.head(self.source.elapsed, self.source.state)

    def _snapshot(self) -> SnapshotMessage:
        over = self.source.state in ("done", "stopped")
        again, then = self._again(over=over)
        view = ViewOptions(
            can_stop=self._clicks and not over,
            recorded=self.source.label,
            parts=self._parts,
            standin=self.standin.id,
            again=again,
            then=then,
            no_parquet=self._no_parquet(),
        )
        return self.feed.snapshot(self._head(), view, whole=self._over)

    def _no_parquet(self) -> str:
        if self._export is None:
            return ""
        from holynb.ui.live.export import missing_for_parquet

        return missing_for_parquet()

    def _again(self, *, over: bool) -> tuple[str, str]:
        """The command that helps where the kernel is gone, and what it does; empty for a recording."""
        name = self.source.name
        if not name:
            return "", ""
        return (f"%infer show {name}", brief("shows the run")) if over else (f"%infer resume {name}", brief("goes on with the run"))

    def _sentence(self) -> str:
        """What a notebook that is saved now says in the place of this view."""
        head = self._head()
        if not self.source.name:
            return brief(f"A recording of {self.source.info.title} was played here. Run the cell again to play it.")
        rest = "" if self.source.state == "done" else f" `%infer resume {self.source.name}` goes on with it."
        return brief(
            f"Run {self.source.info.title}: {head['ended']:,} of {counted(head['n'], 'row')} done at {time.strftime('%Y-%m-%d %H:%M:%S')}. "
            f"`%infer show {self.source.name}` shows it.{rest}"
        )

    def _on_message(self, _widget: Any, content: object, _buffers: Any) -> None:
        """A message of the page. Never raises into the kernel's message loop for what a page may send."""
        match parse_page_message(content):
            case StopRequest():
                self.source.cancel()
            case PageReady(page, seq, width):
                self.pages.add(page)
                if width:
                    self.width = LiveView.last_width = width
                if self._over:
                    self.widget.send(self._snapshot())
                elif seq != self.feed.seq:
                    self._snapshot_due = True
                    self.wake()
            case DetailRequest(row, how) if 0 <= row < self.feed.n:
                from holynb.ui.live.detail import detail  # with all that renders Markdown: the first picture does not wait for it

                self.widget.send(detail(self.source, row, how))
            case VisibleRange(first, last):
                self.feed.set_visible(first, last)
            case ExportRequest(what, safe, rows) if self._export is not None:
                self.widget.send(self._export.answer(what, [r for r in rows if 0 <= r < self.feed.n], safe=safe))


class Live:
    """The live view as the page of a waiting cell: opened at the first paint, replaced by the final output at the end."""

    interval_s = 0.1

    def __init__(self, *, clicks: bool) -> None:
        self._clicks = clicks
        self._view: LiveView | None = None
        self._handle: Any = None

    @property
    def width(self) -> int | None:
        """In CSS pixels, as the view's page said, or the last one that did: a run may end before its own is drawn."""
        return (None if self._view is None else self._view.width) or LiveView.last_width

    def paint(self, run: Run) -> None:
        """Open, then one message a call."""
        if self._view is not None:
            self._view.tick()
        elif run.options.show != "none":
            self.open(RunSource(run), run.options.show)

    def open(
        self, source: ViewSource, parts: str = "all", export: Export | None = None, stays: Callable[[], Mapping[str, str]] | None = None
    ) -> LiveView:
        """Show a source. The caller ticks the view."""
        view = self._view = LiveView(source, clicks=self._clicks, parts=parts, export=export, stays=stays)
        self._put(view.standin.bundle(view.widget))
        view.standin.open()
        return view

    def end(self, bundle: Mapping[str, Any], below: Mapping[str, Any] | None = None) -> None:
        """Put the final output in the place of the view. A page that was reloaded has lost that place: there the view stays, complete."""
        view, self._view = self._view, None
        stays = view is not None and len(view.pages) > 1 and _finished(view)
        if not stays and (bundle or self._handle is not None):
            self._put(dict(bundle) or {"text/plain": ""})
        placed = view is not None and not stays and view.standin.end(below)
        if below and not placed:
            self._show_below(below)
        if view is not None and not stays:
            view.close()

    def _show_below(self, bundle: Mapping[str, Any]) -> None:
        from IPython.display import display

        display(dict(bundle), raw=True)  # type: ignore[no-untyped-call]

    def _put(self, bundle: Mapping[str, Any]) -> None:
        from IPython.display import display

        if self._handle is None:
            self._handle = display(dict(bundle), raw=True, display_id=True)  # type: ignore[no-untyped-call]
        else:
            self._handle.update(dict(bundle), raw=True)


def _widget_class(*, again: bool) -> type[anywidget.AnyWidget]:
    """What draws a run. again: one that is shown again, whose script is longer; no other pays for deflating it."""
    if not again:
        return LiveWidget
    from holynb.ui.live.again import AgainWidget

    return AgainWidget


def _finished(view: LiveView) -> bool:
    """Whether it could be finished: a view that fails must not cost the final output."""
    try:
        view.finish()
    except Exception:  # noqa: BLE001 - as above
        return False
    return True
