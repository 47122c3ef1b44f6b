"""What a magic waits for: a run whose value is the cell's, or one step of a line that takes several. Plain facts; runs nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from holynb.run import Run
    from holynb.ui.cell.views import PageView
    from holynb.ui.cell.wait import Watch

__all__ = ["LineStep", "Work"]


@dataclass(frozen=True, slots=True)
class Work:
    """A run that a cell waits for, and what becomes of its value."""

    run: Run
    page: PageView
    name: str | None = None
    show: str = "all"
    debug: bool = False


@dataclass(frozen=True, slots=True)
class LineStep:
    """A run that a line waits for before it goes on: `then` gets what was watched, and gives the next step, or the line's value."""

    run: Run
    page: PageView
    then: Callable[[Watch], Any]
