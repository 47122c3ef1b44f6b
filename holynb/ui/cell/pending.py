"""What a magic waits for: a run whose frame is the cell's value, or one step of a line that has several. Data only; runs nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from holynb.run import Run
    from holynb.ui.cell.renewed import Renewal
    from holynb.ui.cell.views import PageView
    from holynb.ui.cell.wait import WaitState

__all__ = ["LineStep", "Work"]


@dataclass(frozen=True, slots=True)
class Work:
    """A run that a cell waits for, and how its value is bound and shown. `renewal`: the variable of the cell that it goes on with."""

    run: Run
    page: PageView
    name: str | None = None
    show: str = "all"
    debug: bool = False
    renewal: Renewal | None = None

    def interrupted(self) -> str:
        """The error message of its cell when it was interrupted."""
        return f"Interrupted: {self._kept()}"

    def stopped(self) -> str:
        """The same words where Stop was pressed and rows are left; empty where none are."""
        return f"Stopped: {self._kept()}" if self.run.stopped and self.run.summary().cancelled else ""

    def _kept(self) -> str:
        """What there is, and how the run goes on."""
        summary = self.run.summary()
        where = f"{self.name} and holynb.last" if self.name else "holynb.last"
        rows = f"{summary.n:,} row{'s are' if summary.n != 1 else ' is'}"
        again = f"%infer resume {self.run.name or self.run.id} sends the rest."
        if self.name:
            again = f"%infer resume {self.run.name or self.run.id} sends the rest and fills {self.name}, and so does the cell, run again."
        return f"{summary.ok:,} of {rows} answered and kept in {where}. {again}"


@dataclass(frozen=True, slots=True)
class LineStep:
    """A run that a line waits for before it continues: `then` takes the state of the wait and returns the next step or the line's value."""

    run: Run
    page: PageView
    then: Callable[[WaitState], Any]
