"""Where progress and the final output go: a display handle in a notebook, one rewritten line in a terminal, nowhere. Draws text; the live panel is its own."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from holynb.ui.cell.wait import QUIET, View
from holynb.ui.live import Totals
from holynb.ui.output import Page, clean, clip, one_line, progress
from kernels_support.jupyter.capabilities import detect

if TYPE_CHECKING:
    from holynb.run import Run

__all__ = ["Notice", "PageView", "Quiet", "Terminal", "TextView", "choose", "plain", "show"]

#: At most five redraws a second.
EVERY = 0.2
#: Characters of a single answer that are shown while it arrives.
TAIL = 4000


class PageView(View, Page, Protocol):
    """A view that also takes the final output."""


class Quiet:
    """Shows no progress, and the final output only where there is one."""

    every = 3600.0
    width: int | None = None

    def __init__(self, inner: Page) -> None:
        self._inner = inner

    def paint(self, run: Run) -> None:
        """Nothing."""

    def end(self, bundle: Mapping[str, str]) -> None:
        if bundle:
            self._inner.end(bundle)


class _Lines:
    """The text of a run that goes on, from its journal."""

    def __init__(self) -> None:
        self._cursor = 0
        self._tally: Totals | None = None

    def now(self, run: Run) -> str:
        now = time.monotonic()
        tally = self._tally = self._tally or Totals(run.n, now - run.elapsed)
        events, self._cursor = run.journal.events_since(self._cursor)
        tally.fold(events)
        rate, tokens = tally.speed(now)
        return progress(tally.summary(run.elapsed, stopped=run.stopped), rate, tokens, tally.note)


class TextView:
    """A notebook's output, updated in place."""

    every = EVERY
    width: int | None = None

    def __init__(self) -> None:
        self._lines = _Lines()
        self._handle: Any = None

    def paint(self, run: Run) -> None:
        line = self._lines.now(run)
        if run.n == 1 and (so_far := run.journal.partial_texts().get(0)):
            line = f"{clean(so_far)[-TAIL:]}\n\n{line}"
        self._put({"text/plain": line})

    def end(self, bundle: Mapping[str, str]) -> None:
        if bundle or self._handle is not None:
            self._put(dict(bundle) or {"text/plain": ""})

    def _put(self, bundle: dict[str, str]) -> None:
        self._handle = show(bundle, self._handle)


class Terminal:
    """One line that is written over, on a tty; elsewhere nothing until the end."""

    every = EVERY
    width: int | None = None

    def __init__(self) -> None:
        self._lines = _Lines()
        self._drawn = False

    def paint(self, run: Run) -> None:
        line = self._lines.now(run)
        if sys.stderr.isatty():
            sys.stderr.write("\r" + clip(line, shutil.get_terminal_size().columns - 1) + "\x1b[K")
            sys.stderr.flush()
            self._drawn = True

    def end(self, bundle: Mapping[str, str]) -> None:
        self.clear()
        if text := bundle.get("text/plain"):
            print(text)

    def clear(self) -> None:
        """Take the progress line away."""
        if self._drawn:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self._drawn = False


def plain(shell: Any) -> PageView:
    """The page without widgets: text in place where there is a kernel, a terminal's line elsewhere."""
    return TextView() if getattr(shell, "kernel", None) is not None else Terminal()


def choose(shell: Any, *, quiet: bool = False) -> PageView:
    """The page for this shell: the live view where widgets work, text in place in other kernels, a terminal's line elsewhere."""
    able = detect(shell)
    if quiet:
        return Quiet(plain(shell))
    if not able.widgets:
        return plain(shell)
    from holynb.ui.live.widget import Live

    return Live(clicks=able.clicks)


class Notice:
    """One line that says what is going on, written over by the next: `notice(text)`, then `end(text)` with what stays.

    at_once: whoever calls says each thing once, so that one held back would never be seen. Else it is late and calm, as a run's progress is.
    """

    def __init__(self, shell: Any, *, at_once: bool = False) -> None:
        self._kernel = getattr(shell, "kernel", None) is not None
        self._handle: Any = None
        self._every = 0.0 if at_once else EVERY
        self._next = 0.0 if at_once else time.monotonic() + QUIET
        self._drawn = False

    def __call__(self, text: str) -> None:
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + self._every
        if self._kernel:
            self._put(clean(text))
        elif sys.stderr.isatty():
            sys.stderr.write("\r" + clip(one_line(text), shutil.get_terminal_size().columns - 1) + "\x1b[K")
            sys.stderr.flush()
            self._drawn = True

    def end(self, text: str) -> None:
        """Leave `text`, or nothing."""
        if self._kernel and (text or self._handle is not None):
            self._put(text)
            return
        if self._drawn:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
        if text:
            print(text)

    def _put(self, text: str) -> None:
        self._handle = show({"text/plain": text}, self._handle)


def show(bundle: dict[str, str], handle: Any = None) -> Any:
    """Put a bundle on the page, in the place of `handle` where there is one. Returns the handle."""
    from IPython.display import display

    if handle is None:
        return display(bundle, raw=True, display_id=True)  # type: ignore[no-untyped-call]
    handle.update(bundle, raw=True)
    return handle
