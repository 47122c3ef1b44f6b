"""Where final output goes: a cell's own output, a terminal, a caller that keeps it. Knows no run and no widget."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

__all__ = ["Page"]


class Page(Protocol):
    """What takes the final output. `end` is called once, in the main thread; an empty bundle leaves nothing. below: an output under it.

    width: of the page in CSS pixels, where the page has said so.
    """

    @property
    def width(self) -> int | None: ...

    def end(self, bundle: Mapping[str, Any], below: Mapping[str, Any] | None = None) -> None: ...
