"""Shows what a command says: lines and tables, as HTML beside text where there is a kernel, as text that fits in a terminal."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING, Any

from holynb.ui.cell import views
from holynb.ui.output import listing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holynb.ui.output.listing import Part

__all__ = ["bundle", "show", "terminal_width"]


def show(shell: Any, *parts: Part, gap: str = "\n") -> None:
    """Display lines and tables where a page may show them, else print them."""
    if getattr(shell, "kernel", None) is None:
        print(listing.as_text(parts, terminal_width(), gap))
    else:
        views.display_bundle(bundle(parts, gap))


def bundle(parts: Sequence[Part], gap: str = "\n") -> dict[str, str]:
    """Lines and tables as HTML and as text."""
    return {"text/html": listing.as_html(parts), "text/plain": listing.as_text(parts, gap=gap)}


def terminal_width() -> int | None:
    """Columns of the terminal that is written to; None where it is none, and lines may be of any length."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None
