"""The hands of somebody at the page: keys and clicks, counted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from browser.lab import PATIENCE, Page

#: How long a way may take from its last key to what was wanted.
PATIENCE_S = 30

#: How often a text is drawn in what holynb shows: not in prompts, not in what is folded away, not where a box ends before it.
DRAWN = """text => { const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT); let n = 0;
  for (let node; (node = walk.nextNode()); ) {
    const e = node.parentElement, at = node.data.indexOf(text);
    if (at < 0 || !e.closest('.jp-OutputArea-output, #holynb-side') || !e.checkVisibility()) continue;
    if (/^prompt$/i.test(e.closest('.hn-part')?.querySelector('h4')?.textContent ?? e.querySelector(':scope > b')?.textContent)) continue;
    const range = document.createRange();
    range.setStart(node, at); range.setEnd(node, at + text.length);
    const word = range.getBoundingClientRect();
    let cut = !word.width || !word.height;
    for (let box = e; box && !box.matches('.jp-OutputArea-output'); box = box.parentElement) {
      const { overflowX, overflowY } = getComputedStyle(box), edge = box.getBoundingClientRect();
      cut ||= overflowX === 'hidden' && word.left >= edge.right - 1;
      cut ||= overflowY === 'hidden' && word.top >= edge.bottom - 1;
    }
    n += cut ? 0 : node.data.split(text).length - 1;
  } return n; }"""


class NotPossibleError(Exception):
    """This way is not there."""


class Hands:
    """A person at the page: what is pressed and clicked is counted. A way that waits in vain for something ends in NotPossibleError."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.keys = self.clicks = 0

    def type(self, text: str) -> None:
        """Letter by letter; a line break is Enter."""
        self.keys += len(text)
        self.page.page.keyboard.type(text)

    def press(self, *chords: str) -> None:
        for chord in chords:
            self.keys += 1
            self.page.page.keyboard.press(chord)

    def click(self, what: Any, seconds: float = 5) -> None:
        """Click the first of these that is in sight."""
        from playwright.sync_api import Error

        self.clicks += 1
        try:
            what.first.click(timeout=PATIENCE * 1000 * seconds)
        except Error as exc:
            raise NotPossibleError(str(exc).splitlines()[0]) from exc

    def run(self, cell: str) -> None:
        """Type a cell and run it."""
        self.type(cell)
        self.press("Shift+Enter")

    def wait(self, holds: Callable[[], Any], what: str = "what was wanted", seconds: float = PATIENCE_S) -> None:
        try:
            self.page.until(holds, seconds, what)
        except AssertionError as exc:
            raise NotPossibleError(what) from exc

    def button(self, name: str, *, exact: bool = True) -> Any:
        return self.page.page.get_by_role("button", name=name, exact=exact)

    def drawn(self, text: str) -> int:
        """How often this text is to be read in what holynb shows, prompts aside."""
        return int(self.page.ask(DRAWN, text))
