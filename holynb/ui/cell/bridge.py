"""An invisible widget for what only the page can do or know: inserting a cell, whether it is JupyterLab or Notebook, what was typed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anywidget

from holynb.ui.live.assets import asset

__all__ = ["Bridge"]


class Bridge(anywidget.AnyWidget):
    """Must be displayed to work. Calls `on_inserted(done)` after `insert`, and `on_page_type(is_notebook)` once a page has loaded it."""

    _esm = asset("bridge.js")

    def __init__(self, *, on_inserted: Callable[[bool], None] | None = None, on_page_type: Callable[[bool], None] | None = None) -> None:
        super().__init__()
        self._on_inserted = on_inserted
        self._on_page_type = on_page_type
        self._on_page = False
        self._presses: list[Callable[[], None] | None] = []
        self.on_msg(self._on_message)

    def insert(self, source: str) -> None:
        """Ask the page to insert a code cell below the active one; not every page can."""
        self.send({"kind": "insert", "source": source})

    def after_typing(self, act: Callable[[], None]) -> None:
        """Call `act` once what was typed by now has come: ipywidgets hold it back while the kernel is busy, and a press overtakes it."""
        if not self._on_page:
            act()
            return
        self._presses.append(act)
        self.send({"kind": "typed", "press": len(self._presses) - 1})

    def _on_message(self, _widget: Any, content: Any, _buffers: Any) -> None:
        match content:
            case {"cmd": "inserted", "done": bool(done)} if self._on_inserted is not None:
                self._on_inserted(done)
            case {"cmd": "where", "notebook": bool(is_notebook)}:
                self._on_page = True
                if self._on_page_type is not None:
                    self._on_page_type(is_notebook)
            case {"cmd": "typed", "press": int(press)} if 0 <= press < len(self._presses):
                act, self._presses[press] = self._presses[press], None  # a page that shows it twice answers twice
                if act is not None:
                    act()
