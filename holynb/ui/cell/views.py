"""Where progress and the final output go: a display handle in a notebook, one line in a terminal, nowhere. Text only; not the live view."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from holynb.ui.cell.wait import QUIET_S, View
from holynb.ui.live import Totals
from holynb.ui.output import Page, clean, clip, one_line, progress, thinking
from kernels_support.jupyter.capabilities import detect

if TYPE_CHECKING:
    from holynb.run import Run

__all__ = ["PageView", "QuietView", "StatusLine", "TerminalView", "TextView", "display_bundle", "select_view", "text_view"]

REDRAW_INTERVAL_S = 0.2
#: Of a single answer, shown while it arrives.
MAX_PARTIAL_CHARS = 4000


class PageView(View, Page, Protocol):
    """A view that also shows the final output."""


class QuietView:
    """Shows no progress, only the final output, if there is one."""

    interval_s = 3600.0
    width: int | None = None

    def __init__(self, inner: Page) -> None:
        self._inner = inner

    def paint(self, run: Run) -> None:
        """Nothing."""

    def end(self, bundle: Mapping[str, Any], below: Mapping[str, Any] | None = None) -> None:
        if bundle:
            self._inner.end(bundle, below)


class _ProgressText:
    """The progress line of a run, from its journal."""

    def __init__(self) -> None:
        self._cursor = 0
        self._totals: Totals | None = None

    def line(self, run: Run) -> str:
        now = time.monotonic()
        totals = self._totals = self._totals or Totals(run.n, now - run.elapsed)
        events, self._cursor = run.journal.events_since(self._cursor)
        totals.fold(events)
        rate, tokens = totals.speed(now)
        return progress(totals.summary(run.elapsed, stopped=run.stopped), rate, tokens, totals.note)


def _thinking(run: Run) -> str:
    """What the only row does before it says anything; empty where it does not think, or rows are many."""
    counts = run.journal.thinking().get(0) if run.n == 1 and not run.journal.partial_texts() else None
    return thinking(*counts) if counts is not None else ""


class TextView:
    """A notebook's output, updated in place."""

    interval_s = REDRAW_INTERVAL_S
    width: int | None = None

    def __init__(self) -> None:
        self._progress = _ProgressText()
        self._handle: Any = None

    def paint(self, run: Run) -> None:
        line = self._progress.line(run)
        if run.n == 1 and (partial := run.journal.partial_texts().get(0)):
            line = f"{clean(partial)[-MAX_PARTIAL_CHARS:]}\n\n{line}"
        elif thinks := _thinking(run):
            line = f"{thinks}\n\n{line}"
        self._put({"text/plain": line})

    def end(self, bundle: Mapping[str, Any], below: Mapping[str, Any] | None = None) -> None:
        if bundle or self._handle is not None:
            self._put(dict(bundle) or {"text/plain": ""})
        if below:
            display_bundle(dict(below))

    def _put(self, bundle: dict[str, Any]) -> None:
        self._handle = display_bundle(bundle, self._handle)


class TerminalView:
    """One line that is overwritten, on a tty; elsewhere nothing until the end."""

    interval_s = REDRAW_INTERVAL_S
    width: int | None = None

    def __init__(self) -> None:
        self._progress = _ProgressText()
        self._drawn = False

    def paint(self, run: Run) -> None:
        line = self._progress.line(run)
        if thinks := _thinking(run):
            line = f"{thinks} · {line}"
        if sys.stderr.isatty():
            sys.stderr.write("\r" + clip(line, shutil.get_terminal_size().columns - 1) + "\x1b[K")
            sys.stderr.flush()
            self._drawn = True

    def end(self, bundle: Mapping[str, Any], below: Mapping[str, Any] | None = None) -> None:
        self.clear()
        for part in (bundle, below or {}):
            if text := part.get("text/plain"):
                print(text)

    def clear(self) -> None:
        """Erase the progress line."""
        if self._drawn:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self._drawn = False


def text_view(shell: Any) -> PageView:
    """The view without widgets: text updated in place if there is a kernel, else a terminal's line."""
    return TextView() if getattr(shell, "kernel", None) is not None else TerminalView()


def select_view(shell: Any, *, quiet: bool = False) -> PageView:
    """The view for this shell: the live view where widgets work, else as `text_view`."""
    capabilities = detect(shell)
    if quiet:
        return QuietView(text_view(shell))
    if not capabilities.widgets:
        return text_view(shell)
    from holynb.ui.live.widget import Live

    return Live(clicks=capabilities.clicks)


class StatusLine:
    """One line of status, overwritten by the next: `status(text)`, then `end(text)` with what stays.

    at_once: show every text, for callers that give each only once. Else start late and skip some, as a run's progress does.
    """

    def __init__(self, shell: Any, *, at_once: bool = False) -> None:
        self._kernel = getattr(shell, "kernel", None) is not None
        self._handle: Any = None
        self._interval_s = 0.0 if at_once else REDRAW_INTERVAL_S
        self._next_paint = 0.0 if at_once else time.monotonic() + QUIET_S
        self._drawn = False

    def __call__(self, text: str) -> None:
        if time.monotonic() < self._next_paint:
            return
        self._next_paint = time.monotonic() + self._interval_s
        if self._kernel:
            self._put(clean(text))
        elif sys.stderr.isatty():
            sys.stderr.write("\r" + clip(one_line(text), shutil.get_terminal_size().columns - 1) + "\x1b[K")
            sys.stderr.flush()
            self._drawn = True

    def end(self, text: str, html: str = "") -> None:
        """Replace the line by `text`, on a page by `html` where there is some; empty: erase it."""
        if self._kernel and (text or self._handle is not None):
            self._put(text, html)
            return
        if self._drawn:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
        if text:
            print(text)

    def _put(self, text: str, html: str = "") -> None:
        self._handle = display_bundle({"text/plain": text} | ({"text/html": html} if html else {}), self._handle)


def display_bundle(bundle: dict[str, Any], handle: Any = None) -> Any:
    """Display a MIME bundle, or update the display of `handle`. Returns the display handle."""
    from IPython.display import display

    if handle is None:
        return display(bundle, raw=True, display_id=True)  # type: ignore[no-untyped-call]
    handle.update(bundle, raw=True)
    return handle
