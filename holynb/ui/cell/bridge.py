"""A widget without a face, for what only the page can do or know: inserting a cell, and whether this is JupyterLab or Notebook."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anywidget

from holynb.ui.live.widget import asset

__all__ = ["Bridge"]


class Bridge(anywidget.AnyWidget):
    """Must be shown somewhere. `inserted(done)` is called after `insert`; `where(notebook)` once a page has it."""

    _esm = asset("bridge.js")

    def __init__(self, *, inserted: Callable[[bool], None] | None = None, where: Callable[[bool], None] | None = None) -> None:
        super().__init__()
        self._inserted = inserted
        self._where = where
        self.on_msg(self._heard)

    def insert(self, source: str) -> None:
        """Insert a code cell below the active one, where the page can."""
        self.send({"kind": "insert", "source": source})

    def _heard(self, _widget: Any, content: Any, _buffers: Any) -> None:
        match content:
            case {"cmd": "inserted", "done": bool(done)} if self._inserted is not None:
                self._inserted(done)
            case {"cmd": "where", "notebook": bool(notebook)} if self._where is not None:
                self._where(notebook)
